// Which rows of which unit are computed when, so that the large maps of a network's first stages never leave the cache:
// a few rows of every unit in turn instead of whole maps (depth first).
//
//     conv1 rows 0..8, pool rows 0..3, block 1 rows 0..2, block 2 rows 0..1, conv1 rows 9..16, pool rows 4..7, ...
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "nn/unit.hpp"

namespace nibble {

/// How a form of a map is read: by the convolutions after it, as a shortcut, or both. A shortcut is done with
/// sooner, as nothing strides over it or reads around a pixel.
enum class ReadAs : uint8_t { kInput, kShortcut, kEither };
using PerReading = std::array<int64_t, 3>;

/// Rows [begin, end) of one unit's convolution, or of the pool after it.
struct RowStep {
  size_t unit = 0;
  bool pool = false;
  int64_t begin = 0, end = 0;
  PerReading live{};   // first row of the same map that is still read when the step begins; begin if none
  int64_t filled = 0;  // rows of the same map that hold anything then, of this unit or of one that it overwrites
};

struct RowSchedule {
  size_t begin = 0, end = 0;   // units [begin, end); none if equal
  std::vector<RowStep> steps;  // of one image
  /// Per unit of the network, the unit in whose map its output is written. A block's output overwrites its shortcut,
  /// row by row, so that the blocks of a stage share one map; every other unit has its own.
  std::vector<size_t> map_of;
  /// Per map, rows alive at once including those of a step: of the convolution, and after its pool.
  std::vector<PerReading> map_rows, pooled_rows;

  bool contains(size_t unit) const { return unit >= begin && unit < end; }
};

/// Stage by stage, the stem with the first: advances the last unit of a stage by about strip_points pixels at a time,
/// and every other unit of it as far as that needs.
RowSchedule make_row_schedule(const Network& network, size_t begin, size_t end, int64_t strip_points);

}  // namespace nibble
