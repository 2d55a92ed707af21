#include "ops/plane_cut.hpp"

#include "ops/block_pipeline.hpp"

namespace nibble {

PlaneCut cut_by_shape(const Gather& g) {
  return {.row_end = g.n * g.gh, .row_parts = task_count(g), .rows_per_part = grid_rows_per_task(g)};
}

PlaneCut cut_for_workers(const Gather& g, const Panels& b, int64_t workers) {
  constexpr int64_t kBlockPoints = block_pipeline::kRows;
  constexpr int64_t kPoints = 512;
  const int64_t all = g.n * g.gh, panels = std::max<int64_t>(1, b.count());
  const auto parts_of_rows = [&](int64_t parts) {
    const int64_t rows = std::max<int64_t>(1, ceil_div(all, parts));
    return PlaneCut{.row_end = all, .row_parts = ceil_div(all, rows), .rows_per_part = rows};
  };
  const int64_t most_rows =
      std::clamp<int64_t>(g.points() / kBlockPoints, 1, std::max<int64_t>(1, std::min(all, workers)));
  // Two workers share rows while there are two blocks of points, the cut that was measured.
  if (most_rows >= workers && (workers <= 2 || g.points() > kPoints * workers))
    return parts_of_rows(std::max<int64_t>(1, ceil_div(g.points(), kPoints * workers)) * workers);
  // At most a task per thread: the cut whose longest task is shortest, among equals the one that reads the source least
  // often. A panel whose neighbour is in another task takes a third longer (block_pipeline.hpp). That every part of the
  // panels lays its source out again is left out of account; with more than two threads none of it was timed where
  // there are tiles.
  PlaneCut best;
  int64_t least = 0;
  for (int64_t parts = 1; parts <= std::min(panels, workers);) {
    const int64_t each = ceil_div(panels, parts);
    PlaneCut cut = parts_of_rows(std::clamp<int64_t>(workers / parts, 1, most_rows));
    cut.panel_parts = parts;
    cut.panels_together = each % 2 == 0 ? 2 : 1;
    const int64_t cost = ceil_div(cut.rows_per_part * g.gw, kBlockPoints) * (3 * each + each % 2);
    if (least == 0 || cost < least) {
      best = cut;
      least = cost;
    }
    if (each == 1) break;
    parts = ceil_div(panels, each - 1);  // as many in between do not help
  }
  return best;
}

}  // namespace nibble
