// What will be read soon: products prefetch it, a piece per run (`next_b` of the kernels), while they multiply what is
// in cache. Otherwise rows that lie in memory come no faster than it delivers when a task or chunk begins.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/tensor.hpp"

namespace nibble {

struct MemoryAhead {
  const std::byte* next = nullptr;
  const std::byte* end = nullptr;

  /// The next piece; null when less than one is left, because a kernel may prefetch all of it.
  const std::byte* take(int64_t piece_bytes) {
    if (end - next < piece_bytes) return nullptr;
    next += piece_bytes;
    return next - piece_bytes;
  }
  /// Whole pieces of it for task `i` of `tasks`.
  MemoryAhead part(int64_t i, int64_t tasks, int64_t piece_bytes) const {
    const int64_t pieces = (end - next) / piece_bytes;
    return {next + i * pieces / tasks * piece_bytes, next + (i + 1) * pieces / tasks * piece_bytes};
  }
};

/// Rows [first, last) of a tensor.
inline MemoryAhead rows_ahead(const Tensor& t, int64_t first, int64_t last) {
  if (first >= last) return {};
  const auto row_bytes = static_cast<int64_t>(t.row_bytes());
  return {t.raw() + first * row_bytes, t.raw() + last * row_bytes};
}

/// Both operands of the chunk of a weight gradient that comes next.
struct ChunkAhead {
  MemoryAhead d_y, x;

  const std::byte* take(int64_t piece_bytes) {
    const std::byte* const piece = d_y.take(piece_bytes);
    return piece != nullptr ? piece : x.take(piece_bytes);
  }
  ChunkAhead part(int64_t i, int64_t tasks, int64_t piece_bytes) const {
    return {d_y.part(i, tasks, piece_bytes), x.part(i, tasks, piece_bytes)};
  }
};

}  // namespace nibble
