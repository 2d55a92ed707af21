// Which rows of which unit are computed when, so that the large maps of a network's first stages never leave the cache:
// a few rows of every unit in turn instead of whole maps (depth first).
//
//     conv1 rows 0..8, pool rows 0..3, block 1 rows 0..2, block 2 rows 0..1, conv1 rows 9..16, pool rows 4..7, ...
#pragma once
#include <cstdint>
#include <vector>

#include "nn/unit.hpp"

namespace nibble {

/// Rows [begin, end) of one unit's convolution, or of the pool behind it.
struct RowStep {
  size_t unit = 0;
  bool pool = false;
  int64_t begin = 0, end = 0;
  int64_t live = 0;  // first row of the same map that is still read when the step begins; end if none
};

struct RowSchedule {
  size_t begin = 0, end = 0;   // units [begin, end); none if equal
  std::vector<RowStep> steps;  // of one image
  /// Per unit of the network, rows alive at once including those of a step: of the convolution, and behind its pool.
  std::vector<int64_t> map_rows, pooled_rows;

  bool contains(size_t unit) const { return unit >= begin && unit < end; }
};

/// Advances unit end - 1 by about strip_points pixels at a time, and every other unit as far as that needs.
RowSchedule make_row_schedule(const Network& network, size_t begin, size_t end, int64_t strip_points);

}  // namespace nibble
