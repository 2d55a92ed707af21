// Packing of panels by transposing blocks of 32-bit words, for levels with vectors (contract: table.hpp).
//
// Every panel here consists of words: one group of kr elements of one row (four codes, two widened codes or
// bf16, or one float), rows side by side: [k/kr][rows] words. So packing rows is a transposition of words, kLanes
// groups of kLanes rows at a time. W is the level's Words (isa/avx2/words.hpp, isa/avx512/words.hpp).
#pragma once
#include "ops/kernels/generic/gemm.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

// What one word of a panel holds: load() gives kLanes groups, first() those of `count` elements at most, zeros after
// them, on levels that load bytes under a mask (W::kLoadsFirst), one() a group of `count` <= kKr elements.
template <typename W>
struct WordsOfQuads {
  static constexpr int kKr = 4;
  template <typename S>
  static NIBBLE_INLINE typename W::V load(const S* p) {
    return W::quads(p);
  }
  template <typename S>
  static NIBBLE_INLINE typename W::V first(const S* p, int count) {
    return W::first_bytes(p, count);
  }
  template <typename S>
  static NIBBLE_INLINE uint32_t one(const S* p, int count) {
    uint32_t word = 0;
    for (int j = 0; j < count; ++j) word |= static_cast<uint32_t>(static_cast<uint8_t>(p[j])) << 8 * j;
    return word;
  }
};
template <typename W>
struct WordsOfPairs {
  static constexpr int kKr = 2;
  template <typename S>
  static NIBBLE_INLINE typename W::V load(const S* p) {
    return W::pairs(p);
  }
  template <typename S>
  static NIBBLE_INLINE typename W::V first(const S* p, int count) {
    return W::first_pairs(p, count);
  }
  template <typename S>
  static NIBBLE_INLINE uint32_t one(const S* p, int count) {
    const uint32_t low = static_cast<uint16_t>(int16_t{p[0]}),
                   high = count > 1 ? static_cast<uint16_t>(int16_t{p[1]}) : 0;
    return low | high << 16;
  }
};
template <typename W>
struct WordsOfFloats {
  static constexpr int kKr = 1;
  template <typename S>
  static NIBBLE_INLINE typename W::V load(const S* p) {
    return W::floats(p);
  }
  template <typename S>
  static NIBBLE_INLINE typename W::V first(const S* p, int count) {
    return W::some_floats(p, count);
  }
  template <typename S>
  static NIBBLE_INLINE uint32_t one(const S* p, int) {
    return __builtin_bit_cast(uint32_t, PanelFloat(*p).value);
  }
};

/// kLanes whole groups of up to kLanes rows into words that start at `to` and are kRows apart. Where a word row is
/// narrower than a vector, a store writes past it and the next group overwrites that; `last`: there is no next group.
template <typename W, typename Kind, int kRows, typename S>
NIBBLE_INLINE void pack_block(const S* const* rows, int m, int64_t first, bool last, uint32_t* to) {
  constexpr int kWidth = kRows < W::kLanes ? kRows : W::kLanes;
  typename W::V v[W::kLanes];
  NIBBLE_UNROLL_ALL for (int j = 0; j < W::kLanes; ++j) v[j] =
      j < kWidth && j < m ? Kind::load(rows[j] + first) : W::zero();
  W::transpose(v);
  NIBBLE_UNROLL_ALL for (int j = 0; j + 1 < W::kLanes; ++j) W::store(to + j * kRows, v[j]);
  if constexpr (kWidth < W::kLanes) {
    if (last) {
      W::template store_first<kWidth>(to + (W::kLanes - 1) * kRows, v[W::kLanes - 1]);
      return;
    }
  }
  W::store(to + (W::kLanes - 1) * kRows, v[W::kLanes - 1]);
}

/// Up to kLanes rows of k elements, fewer groups than a vector has lanes, into words kRows apart, as above.
template <typename W, typename Kind, int kRows, typename S>
NIBBLE_INLINE void pack_short(const S* const* rows, int m, int k, uint32_t* to) {
  constexpr int kWidth = kRows < W::kLanes ? kRows : W::kLanes;
  const int groups = (k + Kind::kKr - 1) / Kind::kKr;
  typename W::V v[W::kLanes];
  NIBBLE_UNROLL_ALL for (int j = 0; j < W::kLanes; ++j) v[j] =
      j < kWidth && j < m ? Kind::first(rows[j], k) : W::zero();
  W::transpose(v);
  NIBBLE_UNROLL_ALL for (int j = 0; j < W::kLanes; ++j) {
    if (j + 1 < groups || (j + 1 == groups && kWidth == W::kLanes))
      W::store(to + j * kRows, v[j]);
    else if (j + 1 == groups)
      W::template store_first<kWidth>(to + j * kRows, v[j]);
  }
}

/// Up to kLanes rows of k elements into words kRows apart. The last block overlaps the one before it instead of being
/// shorter; the group that k does not fill and, on levels without masks, fewer groups than one block go word by word
/// (with masks fewer groups go at once, the one that k does not fill among them).
template <typename W, typename Kind, int kRows, typename S>
NIBBLE_INLINE void pack_strip(const S* const* rows, int m, int k, uint32_t* to) {
  constexpr int kWidth = kRows < W::kLanes ? kRows : W::kLanes;
  const int whole = k / Kind::kKr, rest = k % Kind::kKr;
  if constexpr (W::kLoadsFirst) {
    if (whole < W::kLanes) {
      pack_short<W, Kind, kRows>(rows, m, k, to);
      return;
    }
  }
  int g = 0;
  if (whole >= W::kLanes) {
    for (; g < whole; g += W::kLanes) {
      g = g + W::kLanes <= whole ? g : whole - W::kLanes;
      pack_block<W, Kind, kRows>(rows, m, int64_t{g} * Kind::kKr, g + W::kLanes == whole && rest == 0,
                                 to + int64_t{g} * kRows);
    }
    g = whole;
  }
  for (; g < whole; ++g)
    for (int r = 0; r < kWidth; ++r)
      to[int64_t{g} * kRows + r] = r < m ? Kind::one(rows[r] + int64_t{g} * Kind::kKr, Kind::kKr) : 0;
  if (rest > 0)
    for (int r = 0; r < kWidth; ++r)
      to[int64_t{g} * kRows + r] = r < m ? Kind::one(rows[r] + int64_t{g} * Kind::kKr, rest) : 0;
}

/// Rows of k elements into [k/kr][kRows] words; missing rows and the end of the last group are zero.
template <typename W, typename Kind, int kRows, typename S>
NIBBLE_INLINE void pack_words(const S* const* rows, int m, int k, void* panel) {
  static_assert(kRows <= W::kLanes || kRows % W::kLanes == 0);
  for (int r = 0; r < kRows; r += W::kLanes) {
    const int have = m < r ? 0 : m - r;
    uint32_t* const to = static_cast<uint32_t*>(panel) + r;
    if (have >= kRows || have >= W::kLanes)
      pack_strip<W, Kind, kRows>(rows + r, W::kLanes, k, to);
    else
      pack_strip<W, Kind, kRows>(rows + r, have, k, to);
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
  if (k > 0) W::template store_first<kMr>(to, W::template first_floats<kMr>(rows[k - 1]));
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

/// rows[k][offset + n] -> [k][kNr] floats: a copy with conversion.
template <typename W, int kNr, typename S>
void pack_gathered(const S* const* rows, int64_t offset, int k, int columns, void* panel) {
  if (columns < kNr) {
    pack_gathered_plain<S, kNr>(rows, offset, k, columns, panel);
    return;
  }
  uint32_t* to = static_cast<uint32_t*>(panel);
  for (int i = 0; i < k; ++i, to += kNr) {
    const S* const from = rows[i] + offset;
    NIBBLE_UNROLL_ALL for (int n = 0; n < kNr; n += W::kLanes) W::store(to + n, W::floats(from + n));
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
  g.pack_b = pack_columns_float<W, kNr, T>;
  g.pack_b_rows = pack_gathered<W, kNr, T>;
  if constexpr (sizeof(T) == 2) g.pack_b_rows_u8 = pack_gathered<W, kNr, uint8_t>;
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

/// 16-bit integers in groups of two: codes (GemmInt) are widened when they are packed.
template <typename Gemm, typename Step, typename W, int kMr, int kNv>
constexpr Gemm pair_gemm() {
  constexpr int kNr = kNv * Step::kLanes;
  Gemm g;
  g.mr = kMr;
  g.nr = kNr;
  g.kr = 2;
  g.a_bytes = g.b_bytes = 2;
  g.pack_a = pack_rows<W, WordsOfPairs<W>, kMr, typename Gemm::Left>;
  g.pack_b = pack_columns<W, WordsOfPairs<W>, kNr, int16_t, typename Gemm::Right>;
  g.run = run_tiles<Step, kMr, kNv>;
  return g;
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
