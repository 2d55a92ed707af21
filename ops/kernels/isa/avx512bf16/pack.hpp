// Panels of pairs of bf16, [k/2][rows][2]: two rows of a matrix joined to words. Rows that are pairs as they are go
// through the transposition of words that other panels use (gemm_pack.inl.hpp).
#pragma once
#include "ops/kernels/generic/gemm_pack.inl.hpp"
#include "ops/kernels/isa/avx512/join_rows.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

template <typename W>
struct WordsOfBf16 {
  static constexpr int kKr = 2;
  static NIBBLE_INLINE typename W::V load(const bf16* p) { return W::quads(p); }
  static NIBBLE_INLINE typename W::V first(const bf16* p, int count) { return W::first_bytes(p, 2 * count); }
  static NIBBLE_INLINE uint32_t one(const bf16* p, int count) {
    const uint32_t low = p[0].bits, high = count > 1 ? p[1].bits : 0;
    return low | high << 16;
  }
};

/// rows[k][m] -> [k/2][kMr][2]. A whole vector is stored of each pair of rows but the last one: the next overwrites
/// what lies past kMr.
template <int kMr>
void pack_pairs_transposed(const bf16* const* rows, int k, int columns, void* panel) {
  static_assert(kMr <= Words::kLanes);
  uint32_t* to = static_cast<uint32_t*>(panel);
  int i = 0;
  for (; i + 2 < k; i += 2, to += kMr) Words::store(to, join_rows(rows[i], rows[i + 1], 0, columns));
  if (i >= k) return;
  const bf16* const last = i + 1 < k ? rows[i + 1] : nullptr;
  Words::store_first<kMr>(to, join_rows(rows[i], last, 0, columns));
}

/// rows[k][offset + n] -> [k/2][kNr][2]; codes become bf16 (exact).
template <int kNr, typename S>
void pack_pairs_gathered(const S* const* rows, int64_t offset, int k, int columns, void* panel) {
  uint32_t* to = static_cast<uint32_t*>(panel);
  for (int i = 0; i < k; i += 2) {
    const S* const high = i + 1 < k ? rows[i + 1] : nullptr;
    NIBBLE_UNROLL_ALL for (int n = 0; n < kNr; n += Words::kLanes, to += Words::kLanes)
        Words::store(to, join_rows(rows[i], high, offset + n, columns - n));
  }
}

/// Columns contiguous in n (weights of the input gradient) or in k (forward weights); others occur only in tests.
template <int kNr>
void pack_pairs_of_columns(const bf16* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) {
  if (k_stride == 1) {
    const bf16* rows[kNr];
    for (int n = 0; n < columns; ++n) rows[n] = src + n * n_stride;
    pack_words<Words, WordsOfBf16<Words>, kNr>(rows, columns, k, panel);
    return;
  }
  uint32_t* to = static_cast<uint32_t*>(panel);
  for (int i = 0; i < k; i += 2) {
    const bf16* const low = src + i * k_stride;
    const bf16* const high = i + 1 < k ? low + k_stride : nullptr;
    for (int n = 0; n < kNr; n += Words::kLanes, to += Words::kLanes) {
      if (n_stride == 1) {
        Words::store(to, join_rows(low, high, n, columns - n));
        continue;
      }
      for (int j = 0; j < Words::kLanes; ++j) {
        const int64_t at = (n + j) * n_stride;
        const bool inside = n + j < columns;
        to[j] = (inside ? low[at].bits : 0u) | static_cast<uint32_t>(inside && high != nullptr ? high[at].bits : 0)
                                                   << 16;
      }
    }
  }
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
