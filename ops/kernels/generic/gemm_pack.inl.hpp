// Packing of panels by transposing blocks of 32-bit words, for levels with vectors (contract: table.hpp).
//
// Every panel here consists of words: one group of kr elements of one row (four codes, two widened codes, or one
// float), rows side by side: [k/kr][rows] words. So packing rows is a transposition of words, kLanes groups of kLanes
// rows at a time. W is the level's Words (isa/avx2/words.hpp, isa/avx512/words.hpp).
#pragma once
#include "ops/kernels/generic/gemm.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

// What one word of a panel holds.
template <typename W>
struct WordsOfQuads {
  static constexpr int kKr = 4;
  template <typename S>
  static NIBBLE_INLINE typename W::V load(const S* p) {
    return W::quads(p);
  }
};
template <typename W>
struct WordsOfPairs {
  static constexpr int kKr = 2;
  template <typename S>
  static NIBBLE_INLINE typename W::V load(const S* p) {
    return W::pairs(p);
  }
};
template <typename W>
struct WordsOfFloats {
  static constexpr int kKr = 1;
  template <typename S>
  static NIBBLE_INLINE typename W::V load(const S* p) {
    return W::floats(p);
  }
};

/// Writes the first kCount lanes; kCount < kLanes costs a copy, so callers use it for the end of a panel only.
template <typename W, int kCount>
NIBBLE_INLINE void store_first(uint32_t* to, typename W::V v) {
  if constexpr (kCount >= W::kLanes) {
    W::store(to, v);
  } else {
    alignas(64) uint32_t words[W::kLanes];
    W::store(words, v);
    std::memcpy(to, words, kCount * sizeof(uint32_t));
  }
}

/// kLanes groups (or the last `valid` elements of a segment, zeros behind them) of up to kLanes rows into words that
/// start at `to` and are kRows apart. `last`: the group behind which the panel may end.
template <typename W, typename Kind, int kRows, bool kWhole, typename S>
NIBBLE_INLINE void pack_block(const S* const* rows, int m, int64_t first, int valid, int groups, bool last,
                              uint32_t* to) {
  constexpr int kElements = W::kLanes * Kind::kKr, kWidth = kRows < W::kLanes ? kRows : W::kLanes;
  typename W::V v[W::kLanes];
  NIBBLE_UNROLL_ALL for (int j = 0; j < W::kLanes; ++j) {
    if (j >= kWidth || j >= m) {
      v[j] = W::zero();
    } else if constexpr (kWhole) {
      v[j] = Kind::load(rows[j] + first);
    } else {
      alignas(64) S rest[kElements] = {};
      std::memcpy(static_cast<void*>(rest), rows[j] + first, static_cast<size_t>(valid) * sizeof(S));
      v[j] = Kind::load(rest);
    }
  }
  W::transpose(v);
  if constexpr (kWhole) {
    // A word row narrower than a vector: what a store writes beyond it, the next one overwrites.
    NIBBLE_UNROLL_ALL for (int j = 0; j + 1 < W::kLanes; ++j) W::store(to + j * kRows, v[j]);
    if (kWidth < W::kLanes && last)
      store_first<W, kWidth>(to + (W::kLanes - 1) * kRows, v[W::kLanes - 1]);
    else
      W::store(to + (W::kLanes - 1) * kRows, v[W::kLanes - 1]);
  } else {
    alignas(64) uint32_t words[W::kLanes][W::kLanes];
    NIBBLE_UNROLL_ALL for (int j = 0; j < W::kLanes; ++j) W::store(words[j], v[j]);
    for (int j = 0; j < groups; ++j) std::memcpy(to + j * kRows, words[j], kWidth * sizeof(uint32_t));
  }
}

/// Rows of k elements into [k/kr][kRows] words; missing rows and the end of the last group are zero.
template <typename W, typename Kind, int kRows, typename S>
NIBBLE_INLINE void pack_words(const S* const* rows, int m, int k, void* panel) {
  static_assert(kRows <= W::kLanes || kRows % W::kLanes == 0);
  constexpr int kElements = W::kLanes * Kind::kKr;
  const int groups = (k + Kind::kKr - 1) / Kind::kKr;
  for (int r = 0; r < kRows; r += W::kLanes) {
    uint32_t* to = static_cast<uint32_t*>(panel) + r;
    const int have = m - r < 0 ? 0 : m - r;
    int i = 0;
    if (have >= kRows || have >= W::kLanes) {
      for (; i + kElements <= k; i += kElements, to += W::kLanes * kRows)
        pack_block<W, Kind, kRows, true>(rows + r, W::kLanes, i, kElements, W::kLanes, i + kElements == k, to);
    } else {
      for (; i + kElements <= k; i += kElements, to += W::kLanes * kRows)
        pack_block<W, Kind, kRows, true>(rows + r, have, i, kElements, W::kLanes, i + kElements == k, to);
    }
    if (i < k) pack_block<W, Kind, kRows, false>(rows + r, have, i, k - i, groups - i / Kind::kKr, true, to);
  }
}

template <typename W, typename Kind, int kMr, typename S>
void pack_rows(const S* const* rows, int m, int k, void* panel) {
  pack_words<W, Kind, kMr>(rows, m, k, panel);
}

/// Columns that are contiguous in k are rows of words; other layouts of integers occur only in tests.
template <typename W, typename Kind, int kNr, typename D, typename S>
void pack_columns(const S* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) {
  if (k_stride == 1) {
    const S* rows[kNr];
    for (int n = 0; n < columns; ++n) rows[n] = src + n * n_stride;
    pack_words<W, Kind, kNr>(rows, columns, k, panel);
  } else {
    pack_columns_plain<S, D, kNr, Kind::kKr>(src, k_stride, n_stride, k, columns, panel);
  }
}

/// rows[k][m] -> [k][kMr] floats: a copy with conversion.
template <typename W, int kMr, typename S>
void pack_transposed(const S* const* rows, int k, int columns, void* panel) {
  if (columns < kMr) {
    pack_transposed_plain<S, kMr>(rows, k, columns, panel);
    return;
  }
  uint32_t* to = static_cast<uint32_t*>(panel);
  for (int i = 0; i + 1 < k; ++i, to += kMr) W::store(to, W::template first_floats<kMr>(rows[i]));
  if (k > 0) store_first<W, kMr>(to, W::template first_floats<kMr>(rows[k - 1]));
}

/// Float columns: contiguous in n (output gradients, weights of the input gradient) or in k (forward weights).
template <typename W, int kNr, typename S>
void pack_columns_float(const S* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) {
  if (n_stride == 1 && columns == kNr) {
    uint32_t* to = static_cast<uint32_t*>(panel);
    for (int i = 0; i < k; ++i, to += kNr, src += k_stride)
      NIBBLE_UNROLL_ALL for (int n = 0; n < kNr; n += W::kLanes) W::store(to + n, W::floats(src + n));
  } else {
    pack_columns<W, WordsOfFloats<W>, kNr, PanelFloat>(src, k_stride, n_stride, k, columns, panel);
  }
}

template <typename T, typename Step, typename W, int kMr, int kNv>
constexpr GemmFloat<T> float_gemm() {
  constexpr int kNr = kNv * Step::kLanes;
  GemmFloat<T> g;
  g.mr = kMr;
  g.nr = kNr;
  g.kr = 1;
  g.a_bytes = g.b_bytes = 4;
  g.pack_a = pack_rows<W, WordsOfFloats<W>, kMr, T>;
  g.pack_a_transposed = pack_transposed<W, kMr, T>;
  if constexpr (sizeof(T) == 2) g.pack_a_transposed_u8 = pack_transposed<W, kMr, uint8_t>;
  g.pack_b = pack_columns_float<W, kNr, T>;
  g.run = run_tiles<Step, kMr, kNv>;
  return g;
}

/// Byte codes in groups of four (dot-product instructions and byte multiply-adds).
template <typename Step, typename W, int kMr, int kNv>
constexpr GemmInt quad_gemm() {
  constexpr int kNr = kNv * Step::kLanes;
  GemmInt g;
  g.mr = kMr;
  g.nr = kNr;
  g.kr = 4;
  g.a_bytes = g.b_bytes = 1;
  g.pack_a = pack_rows<W, WordsOfQuads<W>, kMr, uint8_t>;
  g.pack_b = pack_columns<W, WordsOfQuads<W>, kNr, int8_t, int8_t>;
  g.run = run_tiles<Step, kMr, kNv>;
  return g;
}

/// Codes widened to 16 bits when they are packed, in groups of two.
template <typename Step, typename W, int kMr, int kNv>
constexpr GemmInt pair_gemm() {
  constexpr int kNr = kNv * Step::kLanes;
  GemmInt g;
  g.mr = kMr;
  g.nr = kNr;
  g.kr = 2;
  g.a_bytes = g.b_bytes = 2;
  g.pack_a = pack_rows<W, WordsOfPairs<W>, kMr, uint8_t>;
  g.pack_b = pack_columns<W, WordsOfPairs<W>, kNr, int16_t, int8_t>;
  g.run = run_tiles<Step, kMr, kNv>;
  return g;
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
