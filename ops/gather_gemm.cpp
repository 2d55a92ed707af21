#include "ops/gather_gemm.hpp"

namespace nibble {

Gather forward_gather(const ConvShape& s) {
  Gather g{.n = s.n, .gh = s.oh(), .gw = s.ow(), .sh = s.h, .sw = s.w, .step = s.stride, .taps = {}};
  for (int64_t y = 0; y < s.kh; ++y)
    for (int64_t x = 0; x < s.kw; ++x) g.taps.push_back({y - s.pad_before, x - s.pad_before, y * s.kw + x});
  return g;
}

Gather row_folded_gather(const ConvShape& s) {
  Gather g{.n = s.n, .gh = s.oh(), .gw = s.ow(), .sh = s.padded_h(), .sw = s.padded_w(), .step = s.stride, .taps = {}};
  for (int64_t y = 0; y < s.kh; ++y) g.taps.push_back({y, 0, y});
  return g;
}

std::vector<InputGradientClass> input_gradient_classes(const ConvShape& s) {
  std::vector<InputGradientClass> classes;
  for (int64_t py = 0; py < std::min(s.stride, s.h); ++py) {
    for (int64_t px = 0; px < std::min(s.stride, s.w); ++px) {
      InputGradientClass c;
      c.row_phase = py;
      c.column_phase = px;
      c.gather = {.n = s.n,
                  .gh = ceil_div(s.h - py, s.stride),
                  .gw = ceil_div(s.w - px, s.stride),
                  .sh = s.oh(),
                  .sw = s.ow(),
                  .step = 1,
                  .taps = {}};
      // Input row i*stride + py was read by output row oh under tap y iff oh*stride + y - pad equals it.
      for (int64_t y = 0; y < s.kh; ++y) {
        if ((py + s.pad_before - y) % s.stride != 0) continue;
        for (int64_t x = 0; x < s.kw; ++x) {
          if ((px + s.pad_before - x) % s.stride != 0) continue;
          c.gather.taps.push_back(
              {(py + s.pad_before - y) / s.stride, (px + s.pad_before - x) / s.stride, y * s.kw + x});
        }
      }
      classes.push_back(std::move(c));
    }
  }
  return classes;
}

RowRange source_rows(const Gather& g, int64_t g0, int64_t g1) {
  if (g0 >= g1 || g.taps.empty()) return {0, 0};
  int64_t low = g.taps[0].dh, high = g.taps[0].dh;
  for (const Tap& t : g.taps) {
    low = std::min(low, t.dh);
    high = std::max(high, t.dh);
  }
  const auto clip = [&](int64_t y) { return std::clamp<int64_t>(y, 0, g.sh - 1); };
  const int64_t last = g1 - 1;
  return {g0 / g.gh * g.sh + clip(g0 % g.gh * g.step + low),
          last / g.gh * g.sh + clip(last % g.gh * g.step + high) + 1};
}

int64_t grid_rows_per_task(const Gather& g) {
  constexpr int64_t kPoints = 512;
  return round_up(std::max<int64_t>(1, kPoints / std::max<int64_t>(1, g.gw)), g.rows_together);
}

ServingCut cut_for_serving(const Gather& g, const Panels& b, int64_t workers) {
  // About 512 points per task, as in training, so that a thread that runs dry finds something to take; for fewer points
  // than one block per worker, columns: a 7x7 map of one image is 49 points, and its weights are then read once.
  constexpr int64_t kPoints = 512;
  const int64_t blocks = std::max<int64_t>(1, g.points() / kBlockRows);
  const auto by_columns = [&](int64_t parts) {
    return ServingCut{.point_parts = blocks >= workers ? 1 : blocks, .panel_parts = std::min(b.count(), parts)};
  };
  if (blocks < workers) return by_columns(ceil_div(workers, blocks));
  // Few points compared with the weights (14x14 of one image, 256 channels and more): columns, too, if every thread
  // gets as many and the rows that each packs or transforms for itself meet a few panels. All threads then read the
  // smaller operand, each a part of the larger one: layers of stage 3 took 0.85 of their time (two threads).
  constexpr int64_t kLeastPanels = 4;
  const int64_t weights = b.segments * b.segment_k * b.columns;
  const int64_t source = std::min(g.n * g.sh * g.sw, g.points() * b.segments) * b.segment_k;
  if (g.points() < kPoints && weights > source && b.count() % workers == 0 && b.count() >= kLeastPanels * workers)
    return by_columns(workers);
  const int64_t rounds = std::max<int64_t>(1, (g.points() + kPoints * workers - 1) / (kPoints * workers));
  return {.point_parts = rounds * workers, .panel_parts = 1};
}

int64_t serving_block_rows(int64_t points, int64_t mr) {
  const int64_t most = round_up(kBlockRows, mr), blocks = std::max<int64_t>(1, ceil_div(points, most));
  return round_up(ceil_div(points, blocks), mr);
}

}  // namespace nibble
