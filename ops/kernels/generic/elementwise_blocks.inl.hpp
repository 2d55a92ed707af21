// What the element-wise kernels share: blocks of channels, rounding to bf16, the unsigned quantizer.
//
// A kernel takes a block of channels down all rows (over_channels: rows that a product has just left in the cache) or
// down a group of rows (over_rows: rows in memory) before the next block, so that per-channel constants and sums stay
// in registers. A block is 32 channels wide, one cache line of bf16, so no line is fetched twice; 64, a line of codes,
// on AVX-512 where a product becomes codes (kCodeVectors); 8 on the scalar level.
#pragma once
#include "ops/kernels/generic/vocab.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// A block of kVectors vectors of vocabulary V side by side.
template <typename Vocabulary, int kCount>
struct Block {
  using V = Vocabulary;
  using F = typename V::F;
  static constexpr int kVectors = kCount;
  static constexpr int kWidth = kCount * V::kLanes;
};

constexpr int kBlockVectors = Wide::kLanes == 1 ? 8 : 32 / Wide::kLanes;

/// Vectors that fill a line of codes where registers allow: 4 of 16 lanes, packed together into one store.
constexpr int kCodeVectors = Wide::kLanes == 16 ? 4 : kBlockVectors;

/// Calls body(block, first) for the blocks that cover n channels: full ones, single vectors, then single channels.
template <int kVectors = kBlockVectors, typename Body>
NIBBLE_INLINE void over_channels(int64_t n, const Body& body) {
  int64_t c = 0;
  for (; c + kVectors * Wide::kLanes <= n; c += kVectors * Wide::kLanes) body(Block<Wide, kVectors>{}, c);
  if constexpr (kVectors > 1)
    for (; c + Wide::kLanes <= n; c += Wide::kLanes) body(Block<Wide, 1>{}, c);
  if constexpr (Wide::kLanes > 1)
    for (; c < n; ++c) body(Block<One, 1>{}, c);
}

/// Rows that a block of channels is taken down before the next block. Down all 64 rows of a call, a block touches one
/// line of each, 128 to 4096 bytes apart, which no prefetcher follows: passes through tensors of 32 MiB took 1.1 to 4
/// times as long as in groups of four rows (a Xeon with AMX; most with 2048 channels). Eight rows take 6 to 8 % longer
/// than four in a training step whose results are streamed, single rows up to 60 % in the cache.
constexpr int64_t kGroupRows = 4;

/// Channels between the block that is worked on and the one that is prefetched, in all rows of the group: 4 KiB of a
/// bf16 tensor. With hardware prefetching alone, groups of four rows made 7 to 13 GB/s, with these prefetches 11 to 20.
constexpr int64_t kFetchAhead = 512;

/// The rows [first, end) of a pass, and how far from one of their elements lies what is worked on a little later.
struct RowGroup {
  int64_t first, end;
  int64_t rows_ahead, channels_ahead;
};

/// Calls body(block, c, group) for the blocks of channels of every group of kGroupRows rows, group by group.
template <typename Body>
NIBBLE_INLINE void over_rows(int64_t rows, int64_t n, const Body& body) {
  if (n <= 0) return;
  const int64_t whole = kFetchAhead / n * kGroupRows, rest = kFetchAhead % n;
  for (int64_t first = 0; first < rows; first += kGroupRows) {
    RowGroup group{first, first + kGroupRows < rows ? first + kGroupRows : rows, whole, rest};
    over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
      if (c + rest >= n) {
        group.rows_ahead = whole + kGroupRows;
        group.channels_ahead = rest - n;
      }
      body(block, c, group);
    });
  }
}

/// Prefetches the lines of a block of bf16 channels, where it has whole ones.
template <typename B>
NIBBLE_INLINE void prefetch_block(const bf16* p) {
  constexpr int kLine = 64 / sizeof(bf16);
  if constexpr (B::kWidth % kLine == 0)
    for (int i = 0; i < B::kWidth; i += kLine) __builtin_prefetch(p + i);
}

/// The same for codes, which will be written.
template <typename B>
NIBBLE_INLINE void prefetch_codes(const uint8_t* p) {
  constexpr int kLine = 64;
  if constexpr (B::kWidth % kLine == 0)
    for (int i = 0; i < B::kWidth; i += kLine) __builtin_prefetch(p + i, 1);
}

/// One vector of per-channel constants for each vector of a block.
template <typename B>
struct PerChannel {
  typename B::F v[B::kVectors];

  /// From values[0, width); null: all `otherwise`.
  NIBBLE_INLINE PerChannel(const float* values, float otherwise) {
    NIBBLE_UNROLL
    for (int i = 0; i < B::kVectors; ++i)
      v[i] = values != nullptr ? B::V::load(values + i * B::V::kLanes) : B::V::splat(otherwise);
  }
  NIBBLE_INLINE explicit PerChannel(const float* values) {
    NIBBLE_UNROLL
    for (int i = 0; i < B::kVectors; ++i) v[i] = B::V::load(values + i * B::V::kLanes);
  }
  NIBBLE_INLINE void store(float* to) const {
    NIBBLE_UNROLL
    for (int i = 0; i < B::kVectors; ++i) B::V::store(to + i * B::V::kLanes, v[i]);
  }
};

NIBBLE_INLINE const float* offset(const float* p, int64_t c) {
  return p != nullptr ? p + c : nullptr;
}

template <typename T>
NIBBLE_INLINE T* at(const Rows<T>& rows, int64_t r, int64_t c) {
  return rows.data + r * rows.stride + c;
}

/// Prefetches the line that is worked on a little after row r, channel c; it may lie past the last row.
template <typename T>
NIBBLE_INLINE void fetch_ahead(const Rows<T>& rows, const RowGroup& group, int64_t r, int64_t c) {
  const int64_t elements = (r + group.rows_ahead) * rows.stride + c + group.channels_ahead;
  // As integers, because no pointer may point there.
  const uintptr_t address = reinterpret_cast<uintptr_t>(rows.data) + static_cast<uintptr_t>(elements) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(address));
}

/// max(v, 0): +0 for NaN and for -0.
template <typename V>
NIBBLE_INLINE typename V::F relu(typename V::F v) {
  return V::max(v, V::splat(0.0f));
}

/// The unsigned code of x as a float: floor(min(max(x * scale, 0) + offset, top)); truncation is floor from 0 up.
template <typename V>
NIBBLE_INLINE typename V::F clamped(typename V::F x, typename V::F scale, typename V::F offset, typename V::F top) {
  return V::min(relu<V>(x * scale) + offset, top);
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
