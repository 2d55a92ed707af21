#include "ops/weight_gradient_plan.hpp"

#include <algorithm>

#include "ops/image_gemm.hpp"

namespace nibble::weight_gradient {

/// So that the neighbours that a tap reads are neighbours.
int64_t dealt_column(const ConvShape& s, int64_t x) {
  int64_t at = x / s.stride;
  for (int64_t phase = 0; phase < x % s.stride; ++phase) at += ceil_div(s.w - phase, s.stride);
  return at;
}

namespace {

/// Bytes of the operand that stays, and of the panels of the other one that are packed at once: both fit a 2 MiB L2.
constexpr int64_t kStayingBytes = 640 << 10, kStreamingBytes = 512 << 10;
/// Least points of a chunk: loading and storing the sums of a block costs about 0.1 us, 512 points 0.45 us.
constexpr int64_t kLeastPoints = 512;
/// Sums up to here stay in L2 between two chunks.
constexpr int64_t kNearSums = 512 << 10;

bool by_images(const LayerWeights& layer, const ConvShape& s) {
  static_assert(kStep == kBlockImages);
  return !layer.row_folded && images_innermost(forward_gather(s));
}

Geometry images_geometry(const ConvShape& s) {
  Geometry g;
  g.rows = {.source = s.h, .grid = s.oh(), .kernel = s.kh, .stride = s.stride, .before = s.pad_before};
  g.columns = {.source = s.w, .grid = s.ow(), .kernel = s.kw, .stride = s.stride, .before = s.pad_before};
  g.images = 1;
  g.batch = s.n;
  g.image_pitch = s.oh();
  g.row_pitch = s.ow() * s.n;
  g.planes.push_back({.pixels = s.h * s.w * s.n, .even = true});
  g.taps.resize(static_cast<size_t>(s.taps()));
  const int64_t steps = s.n / kStep, rows = std::max<int64_t>(1, kSliceSteps / (s.ow() * steps));
  for (int64_t i0 = 0; i0 < s.oh(); i0 += rows) {
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      const int64_t dh = tap / s.kw - s.pad_before, dw = tap % s.kw - s.pad_before;
      const int64_t j0 = std::max<int64_t>(0, ceil_div(std::max<int64_t>(0, -dw), s.stride));
      const int64_t j1 = std::min(s.ow(), ceil_div(s.w - dw, s.stride));
      std::vector<kernels::StepRun>& runs = g.runs.emplace_back();
      for (int64_t i = i0; i < std::min(s.oh(), i0 + rows); ++i) {
        const int64_t y = i * s.stride + dh;
        if (y < 0 || y >= s.h || j0 >= j1) continue;
        runs.push_back({.left = (i * s.ow() + j0) * steps,
                        .right = (y * s.w + dealt_column(s, j0 * s.stride + dw)) * steps,
                        .steps = (j1 - j0) * steps});
      }
    }
  }
  return g;
}

int64_t right_panel_bytes(const Geometry& g, int64_t points) {
  int64_t bytes = 0;
  for (const Plane& p : g.planes) bytes += p.bytes_of(points);
  return bytes;
}

}  // namespace

Geometry geometry(const LayerWeights& layer, const ConvShape& s) {
  if (by_images(layer, s)) return images_geometry(s);
  Geometry g;
  g.images = s.n;
  if (layer.row_folded) {  // the source has its pads, and a point reads kw pixels as one
    g.rows = {.source = s.padded_h(), .grid = s.oh(), .kernel = s.kh, .stride = s.stride, .before = 0};
    g.columns = {.source = s.padded_w(), .grid = s.ow(), .kernel = 1, .stride = s.stride, .before = 0};
  } else {
    g.rows = {.source = s.h, .grid = s.oh(), .kernel = s.kh, .stride = s.stride, .before = s.pad_before};
    g.columns = {.source = s.w, .grid = s.ow(), .kernel = s.kw, .stride = s.stride, .before = s.pad_before};
  }
  g.row_pitch = g.columns.pitch();
  g.image_pitch = g.rows.pitch();
  const int64_t across = g.columns.classes();
  for (int64_t r = 0; r < g.rows.classes(); ++r)
    for (int64_t c = 0; c < across; ++c) g.planes.push_back({.row_phase = r, .column_phase = c});
  for (int64_t y = 0; y < g.rows.kernel; ++y) {
    for (int64_t x = 0; x < g.columns.kernel; ++x) {
      const PlaneTap tap{.plane = static_cast<size_t>(y % s.stride * across + x % s.stride),
                         .offset = y / s.stride * g.row_pitch + x / s.stride};
      Plane& plane = g.planes[tap.plane];
      plane.reach = std::max(plane.reach, tap.offset);
      (tap.offset % 2 == 0 ? plane.even : plane.odd) = true;
      g.taps.push_back(tap);
    }
  }
  return g;
}

void TiledPlan::cut(const Geometry& g, int64_t rows_of_chunk) {
  const int64_t rows = g.plane_rows();
  rows_per_chunk = rows_of_chunk;
  chunks = ceil_div(rows, rows_per_chunk);
  const int64_t longest = round_up(rows_per_chunk * g.row_pitch, kStep);
  left_bytes = longest * kOutputs * 2;
  right_bytes = right_panel_bytes(g, longest);
  group = ceil_div(staying(), ceil_div(staying() * staying_bytes(), kStayingBytes));
  at_once = std::clamp<int64_t>(kStreamingBytes / streaming_bytes(), 1, streaming());
}

double TiledPlan::cost(int64_t taps) const {
  const auto sums = static_cast<double>(left * right * taps * kBlockFloats * 4);
  const auto groups = static_cast<double>(ceil_div(staying(), group));
  const double apart = at_once < streaming() ? 1 + 2 / static_cast<double>(at_once) : 1;
  const double once = static_cast<double>(staying() * staying_bytes()) +
                      groups * apart * static_cast<double>(streaming() * streaming_bytes());
  const auto all = static_cast<double>(chunks);
  return all * once + (all - 1) * 2 * sums * (sums > static_cast<double>(kNearSums) ? 1 : 0.25);
}

TiledPlan uncut_plan(const Geometry& g, int64_t outputs, int64_t channels) {
  TiledPlan p;
  p.left = ceil_div(outputs, kOutputs);
  p.right = ceil_div(channels, kChannels);
  int64_t versions = 0;
  for (const Plane& plane : g.planes) versions += plane.even + plane.odd;
  p.left_stays = p.left < p.right * versions;
  return p;
}

TiledPlan make_plan(const Geometry& g, int64_t outputs, int64_t channels) {
  TiledPlan p = uncut_plan(g, outputs, channels);
  if (g.batch > 0) {
    p.cut(g, g.plane_rows());
    return p;
  }
  const int64_t most =
      std::clamp<int64_t>(g.plane_rows() * g.row_pitch / kLeastPoints, 1, std::max<int64_t>(1, g.plane_rows()));
  const auto taps = static_cast<int64_t>(g.taps.size());
  TiledPlan best;
  for (int64_t chunks = 1; chunks <= most; ++chunks) {
    p.cut(g, ceil_div(g.plane_rows(), chunks));
    if (p.streaming_bytes() > kStreamingBytes && chunks < most) continue;  // would push out what stays
    if (best.group == 0 || p.cost(taps) < best.cost(taps)) best = p;
  }
  return best;
}

}  // namespace nibble::weight_gradient
