// Clip classes: what backward needs to know of an activation, in two bits.
#pragma once
#include "ops/kernels/generic/elementwise_blocks.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

void clip_classes(Rows<const bf16> z, int64_t rows, int64_t n, UnsignedQuantizer q, Rows<uint8_t> classes) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> scale(offset(q.scale, c), 0.0f);
    const bool quantized = q.scale != nullptr;
    const auto zero = V::splat(0.0f), one = V::splat(1.0f), two = V::splat(2.0f), three = V::splat(3.0f);
    const auto top = V::splat(q.top), end = V::splat(q.top + 1.0f);
    for (int64_t r = 0; r < rows; ++r) {
      typename B::F code[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const auto v = V::load(at(z, r, c + i * V::kLanes));
        auto k = two;
        if (quantized) {
          const auto t = v * scale.v[i];
          k = V::less(t, end, one, three);
          k = V::less(t, top, two, k);
          k = V::less(t, one, one, k);
        }
        code[i] = V::less(zero, v, k, zero);
      }
      V::store_codes(at(classes, r, c), code);
    }
  });
}

void clip_values(Rows<const uint8_t> classes, int64_t rows, int64_t n, UnsignedQuantizer q, Rows<bf16> z) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> scale(offset(q.scale, c), 1.0f);
    const auto zero = V::splat(0.0f), half = V::splat(0.5f), two = V::splat(2.0f);
    const auto beyond = V::splat(4.0f * (q.top + 1.0f));
    typename B::F low[B::kVectors], middle[B::kVectors], high[B::kVectors];
    NIBBLE_UNROLL
    for (int i = 0; i < B::kVectors; ++i) {
      low[i] = half / scale.v[i];
      middle[i] = two / scale.v[i];
      high[i] = beyond / scale.v[i];
    }
    for (int64_t r = 0; r < rows; ++r) {
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const auto k = V::load(at(classes, r, c + i * V::kLanes));
        auto x = V::less(k, V::splat(2.5f), middle[i], high[i]);
        x = V::less(k, V::splat(1.5f), low[i], x);
        x = V::less(k, half, zero, x);
        v[i] = x;
      }
      V::store_rounded(at(z, r, c), v);
    }
  });
}

// Plain loops over whole bytes: compilers make vectors of them on every level.
void pack_u2(const uint8_t* codes, int64_t n, uint8_t* packed) {
  const int64_t quarter = n / 4;
  const uint8_t* __restrict a = codes, * __restrict b = a + quarter, * __restrict c = b + quarter, * __restrict d = c + quarter;
  uint8_t* __restrict out = packed;
  for (int64_t i = 0; i < quarter; ++i) out[i] = static_cast<uint8_t>(a[i] | b[i] << 2 | c[i] << 4 | d[i] << 6);
}

void unpack_u2(const uint8_t* packed, int64_t n, uint8_t* codes) {
  const int64_t quarter = n / 4;
  const uint8_t* __restrict in = packed;
  for (int shift = 0; shift < 8; shift += 2) {
    uint8_t* __restrict out = codes + shift / 2 * quarter;
    for (int64_t i = 0; i < quarter; ++i) out[i] = static_cast<uint8_t>(in[i] >> shift & 3);
  }
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
