// What the drivers of products say to those who take part in them: the blocks' epilogues and what is around a task.
#pragma once
#include <cstdint>

#include "engine/scratch.hpp"

namespace nibble {

/// What an epilogue gets after this: rows from grid point `point` on, columns from `column` on. point -1: not known.
struct NextBlock {
  int64_t point = -1, column = 0;
};

/// What a product's task does around its blocks: before the first one, with memory until the task ends, and once its
/// part of the grid rows [g0, g1) is finished. This one: nothing.
struct NothingMore {
  void begin(Scratch& /*scratch*/, int64_t /*task*/, int64_t /*g0*/, int64_t /*g1*/) const {}
  void end(int64_t /*task*/, int64_t /*g0*/, int64_t /*g1*/) const {}
};

}  // namespace nibble
