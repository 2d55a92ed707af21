// Two rows of elements joined to words of two bf16, for panels whose groups in k are pairs and whose operand lies the
// other way round.
#pragma once
#include "ops/kernels/isa/avx512/words.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// Up to 16 elements from `offset` on, zeros after them: element j of the first row in the lower half of word j, of
/// the second in the upper half; a row that is null is zeros, count <= 0 none. Codes become bf16 (exact).
template <typename S>
NIBBLE_INLINE Words::V join_rows(const S* first, const S* second, int64_t offset, int count) {
  if (count <= 0) return Words::zero();
  const Words::V low = first == nullptr ? Words::zero() : Words::some_floats(first + offset, count);
  const Words::V high = second == nullptr ? Words::zero() : Words::some_floats(second + offset, count);
  return Words::join(low, high);
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
