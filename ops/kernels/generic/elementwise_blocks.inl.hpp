// What the element-wise kernels share: blocks of channels, rounding to bf16, the unsigned quantizer.
//
// A kernel takes a block of channels down all rows before the next block, so that per-channel constants and sums stay
// in registers; a block is 32 channels wide, one cache line of bf16, so no line is fetched twice.
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

/// The value of the upper half alone.
template <typename V>
NIBBLE_INLINE typename V::F upper(typename V::F x) {
  return V::from_bits(V::bits(x) & V::splat_u(0xffff0000u));
}

/// x rounded to bf16 (engine/dtype.hpp's to_bf16), as floats.
template <typename V>
NIBBLE_INLINE typename V::F round_bf16(typename V::F x) {
  return upper<V>(V::round_upper(x));
}

/// max(v, 0): +0 for NaN and for -0.
template <typename V>
NIBBLE_INLINE typename V::F relu(typename V::F v) {
  return V::max(v, V::splat(0.0f));
}

/// The unsigned code of x as a float: floor(min(max(x * scale, 0), top)); truncation is floor from 0 up.
template <typename V>
NIBBLE_INLINE typename V::F clamped(typename V::F x, typename V::F scale, typename V::F top) {
  return V::min(relu<V>(x * scale), top);
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
