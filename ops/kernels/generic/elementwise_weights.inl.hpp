// Flat passes over n weights: largest magnitude, quantizing, the optimiser step, gradient sums.
#pragma once
#include "ops/kernels/generic/elementwise_blocks.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// The product w * fold of one vector; fold null: w.
template <typename V>
NIBBLE_INLINE typename V::F folded(const float* w, const float* fold, int64_t i) {
  const auto v = V::load(w + i);
  return fold != nullptr ? v * V::load(fold + i) : v * V::splat(1.0f);
}

/// Magnitudes are compared as words: their order is that of the floats, and a NaN is above infinity.
float absmax(const float* w, const float* fold, int64_t n) {
  uint32_t largest = 0;
  auto wide = Wide::splat_u(0);
  over_channels<1>(n, [&](auto block, int64_t i) NIBBLE_INLINE_BODY {
    using V = typename decltype(block)::V;
    const auto magnitude = V::bits(folded<V>(w, fold, i)) & V::splat_u(0x7fffffffu);
    if constexpr (V::kLanes == Wide::kLanes)
      wide = V::max_u(wide, magnitude);
    else
      largest = One::max_u(largest, magnitude);
  });
  float lanes[Wide::kLanes];
  Wide::store(lanes, Wide::from_bits(wide));
  for (int i = 0; i < Wide::kLanes; ++i) largest = One::max_u(largest, One::bits(lanes[i]));
  return One::from_bits(largest);
}

void quantize_weights(const float* w, const float* fold, int64_t n, float scale, float top, int8_t* codes) {
  over_channels<1>(n, [&](auto block, int64_t i) NIBBLE_INLINE_BODY {
    using V = typename decltype(block)::V;
    const auto low = V::splat(-top), high = V::splat(top), one = V::splat(1.0f);
    const auto t = V::min(V::max(folded<V>(w, fold, i) * V::splat(scale), low), high) + V::splat(0.5f);
    const auto towards_zero = V::truncate(t);
    V::store_s8(codes + i, V::less(t, towards_zero, towards_zero - one, towards_zero));  // floor
  });
}

void sgd_step(float* w, float* m, const float* g, int64_t n, float rate, float momentum, float decay, bool nesterov) {
  over_channels<1>(n, [&](auto block, int64_t i) NIBBLE_INLINE_BODY {
    using V = typename decltype(block)::V;
    const auto weight = V::load(w + i);
    const auto d = V::load(g + i) + V::splat(decay) * weight;
    const auto average = V::splat(momentum) * V::load(m + i) + d;
    const auto step = nesterov ? d + V::splat(momentum) * average : average;
    V::store(m + i, average);
    V::store(w + i, weight - V::splat(rate) * step);
  });
}

void add_f32(const float* x, int64_t n, float* out) {
  over_channels<1>(n, [&](auto block, int64_t i) NIBBLE_INLINE_BODY {
    using V = typename decltype(block)::V;
    V::store(out + i, V::load(out + i) + V::load(x + i));
  });
}

void scale_rows_f32(Rows<const float> x, int64_t rows, int64_t n, const float* column, const float* row,
                    Rows<float> out, Into into, Store store) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> of_channel(offset(row, c), 1.0f);
    for (int64_t r = 0; r < rows; ++r) {
      const auto of_row = V::splat(column != nullptr ? column[r] : 1.0f);
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        float* const to = at(out, r, c + i * V::kLanes);
        const auto scaled = (of_row * of_channel.v[i]) * V::load(at(x, r, c + i * V::kLanes));
        if (into == Into::kAccumulate)
          V::store(to, V::load(to) + scaled);
        else
          V::store(to, scaled, store);
      }
    }
  });
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
