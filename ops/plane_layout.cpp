#include "ops/plane_layout.hpp"

#include <algorithm>

namespace nibble {

namespace {

int64_t floor_divide(int64_t a, int64_t b) {
  return a >= 0 ? a / b : -ceil_div(-a, b);
}

}  // namespace

PlaneLayout folded_layout(const Gather& g, int64_t segment, int64_t element_bytes) {
  PlaneLayout l;
  const int64_t line = plane_detail::kGroupBytes / element_bytes, rows = static_cast<int64_t>(g.taps.size());
  // Rows that do not divide the stride would be copied into several planes.
  int64_t fit = std::clamp<int64_t>(line / std::max<int64_t>(1, segment), 1, rows);
  while (g.step > 1 && g.step % fit != 0) --fit;
  l.folded_rows = fit;
  l.segment = segment;
  l.pixel = round_up(segment, line);
  l.slot = l.pixel / fit;
  l.width = g.gw;
  for (int64_t row = 0; row < rows; row += fit) {
    const PlaneLayout::Plane plane{.row_phase = row % g.step};
    const auto known = std::find(l.planes.begin(), l.planes.end(), plane);
    l.taps.push_back({known - l.planes.begin(), row / g.step * l.width});
    if (known == l.planes.end()) l.planes.push_back(plane);
    l.row_span = row / g.step;
  }
  l.height = g.gh + l.row_span;
  return l;
}

PlaneLayout plane_layout(const Gather& g) {
  PlaneLayout l;
  l.width = g.gw;
  l.height = g.gh;
  if (g.taps.empty()) return l;
  // A tap (dh, dw) reads plane (dh mod step, dw mod step) at the shift (floor(dh / step), floor(dw / step)).
  const auto shift = [&](int64_t d) { return floor_divide(d, g.step); };
  int64_t high_row = shift(g.taps[0].dh), high_column = shift(g.taps[0].dw);
  l.low_row = high_row;
  l.low_column = high_column;
  for (const Tap& t : g.taps) {
    l.low_row = std::min(l.low_row, shift(t.dh));
    high_row = std::max(high_row, shift(t.dh));
    l.low_column = std::min(l.low_column, shift(t.dw));
    high_column = std::max(high_column, shift(t.dw));
  }
  l.row_span = high_row - l.low_row;
  // Neighbours share their rims, so the wider side decides: pixels below zero, or those past the last one.
  const auto extent = [&](int64_t grid, int64_t source, int64_t low, int64_t high, int64_t& end) {
    end = std::min(ceil_div(source, g.step), grid + high);
    return std::max(grid, end - std::max<int64_t>(0, low) + std::max(std::max<int64_t>(0, -low), grid + high - end));
  };
  int64_t row_end = 0, column_end = 0;
  l.height = extent(g.gh, g.sh, l.low_row, high_row, row_end);
  l.width = extent(g.gw, g.sw, l.low_column, high_column, column_end);
  l.overhang = std::max<int64_t>(0, g.gw + high_column - l.low_column - l.width);
  for (const Tap& t : g.taps) {
    const int64_t row = shift(t.dh), column = shift(t.dw);
    PlaneLayout::Plane plane{.row_phase = t.dh - row * g.step, .column_phase = t.dw - column * g.step};
    // Where step does not divide the map, the last phases lack a pixel: another rim.
    plane.rows = std::min(row_end, ceil_div(g.sh - plane.row_phase, g.step));
    plane.columns = std::min(column_end, ceil_div(g.sw - plane.column_phase, g.step));
    const auto known = std::find(l.planes.begin(), l.planes.end(), plane);
    l.taps.push_back({known - l.planes.begin(), (row - l.low_row) * l.width + column - l.low_column});
    if (known == l.planes.end()) l.planes.push_back(plane);
  }
  l.in_place = g.step == 1 && g.taps.size() == 1 && g.taps[0].dh == 0 && g.taps[0].dw == 0 && g.gh == g.sh &&
               g.gw == g.sw && l.width == g.gw && l.height == g.gh;
  return l;
}

}  // namespace nibble
