// How the products of the plane driver (plane_gemm.hpp) are cut into tasks.
#pragma once
#include <algorithm>
#include <cstdint>

#include "ops/panels.hpp"

namespace nibble {

/// How a product is cut into tasks: by grid rows (flattened over images) and, for few points, by panels.
struct PlaneCut {
  int64_t row_begin = 0, row_end = 0;  // only these grid rows
  int64_t row_parts = 1, rows_per_part = 1, panel_parts = 1;
  int64_t panels_together = 1;  // panels are shared out in groups of so many neighbours
  int64_t first_task = 0;       // number of the first of these tasks, as the epilogue sees it

  bool operator==(const PlaneCut&) const = default;
  int64_t tasks() const { return row_parts * panel_parts; }
  /// The first of `panels` panels of one part; for the part after the last one: the end.
  int64_t first_panel(int64_t part, int64_t panels) const {
    const int64_t groups = ceil_div(panels, panels_together);
    return std::min(panels, part * groups / panel_parts * panels_together);
  }
};
/// About 512 points per task, by shape alone: task_count(g) tasks of grid_rows_per_task(g) rows, as for gather_gemm.
PlaneCut cut_by_shape(const Gather& g);
/// For the executor, where only speed depends on it: pieces for `workers` threads. Points are cheapest to share out,
/// but only the last part gets less than a block of them, so for few points panels are shared out, too.
PlaneCut cut_for_workers(const Gather& g, const Panels& b, int64_t workers);

}  // namespace nibble
