#include "ops/gather.hpp"

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

}  // namespace nibble
