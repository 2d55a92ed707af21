// Activation codes: quantizing, dequantizing, packing two to a byte, power-of-two factors; float conversions.
#pragma once
#include "ops/kernels/generic/elementwise_blocks.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

void quantize_bf16(Rows<const bf16> x, int64_t rows, int64_t n, UnsignedQuantizer q, Rows<uint8_t> codes) {
  over_rows(rows, n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> scale(q.scale + c);
    const auto added = V::splat(q.offset), top = V::splat(q.top);
    for (int64_t r = group.first; r < group.end; ++r) {
      fetch_ahead(x, group, r, c);
      typename B::F code[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i)
        code[i] = clamped<V>(V::load(at(x, r, c + i * V::kLanes)), scale.v[i], added, top);
      V::store_codes(at(codes, r, c), code);
    }
  });
}

void dequantize_bf16(Rows<const uint8_t> codes, int64_t rows, int64_t n, const float* scale, Rows<bf16> out) {
  over_rows(rows, n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> divisor(scale + c);
    for (int64_t r = group.first; r < group.end; ++r) {
      fetch_ahead(codes, group, r, c);
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) v[i] = V::load(at(codes, r, c + i * V::kLanes)) / divisor.v[i];
      V::store_rounded(at(out, r, c), v);
    }
  });
}

void pack_codes(const uint8_t* codes, int64_t n, uint8_t* packed) {
  int64_t i = 0;
  for (; i + Wide::kCodes <= n; i += Wide::kCodes) Wide::pack_nibbles(codes + i, packed + i / 2);
  for (; i + 2 <= n; i += 2) One::pack_nibbles(codes + i, packed + i / 2);
  if (i < n) packed[i / 2] = static_cast<uint8_t>(codes[i] & 15);
}

void unpack_codes(const uint8_t* packed, int64_t n, uint8_t* codes, int8_t flip) {
  int64_t i = 0;
  for (; i + Wide::kCodes <= n; i += Wide::kCodes) Wide::unpack_nibbles(packed + i / 2, codes + i, flip);
  for (; i + 2 <= n; i += 2) One::unpack_nibbles(packed + i / 2, codes + i, flip);
  if (i < n) {
    uint8_t pair[2];
    One::unpack_nibbles(packed + i / 2, pair, flip);
    codes[i] = pair[0];
  }
}

void pack_u4(const uint8_t* codes, int64_t n, uint8_t* packed) {
  pack_codes(codes, n, packed);
}

void unpack_u4(const uint8_t* packed, int64_t n, uint8_t* codes) {
  unpack_codes(packed, n, codes, 0);
}

void pack_s4(const int8_t* codes, int64_t n, uint8_t* packed) {
  pack_codes(reinterpret_cast<const uint8_t*>(codes), n, packed);
}

void unpack_s4(const uint8_t* packed, int64_t n, int8_t* codes) {
  unpack_codes(packed, n, reinterpret_cast<uint8_t*>(codes), 8);
}

void multiply_u8(const uint8_t* codes, const uint8_t* factor, int64_t n, uint8_t* out) {
  int64_t i = 0;
  for (; i + Wide::kBytes <= n; i += Wide::kBytes) Wide::multiply_bytes(codes + i, factor + i, out + i);
  for (; i < n; ++i) One::multiply_bytes(codes + i, factor + i, out + i);
}

void max_rows_u8(Rows<const uint8_t* const> rows, int count, int64_t pixels, int64_t n, Rows<uint8_t> out) {
  constexpr int kWindow = 9;  // that no edge cuts: its rows stay in registers, where no store of bytes may change them
  const bool whole = count == kWindow;
  const uint8_t* taps[kWindow];
  for (int r = 0; r < kWindow; ++r) taps[r] = rows.data[whole ? r : 0];
  int64_t i = 0;
  for (; i + Wide::kBytes <= n; i += Wide::kBytes)
    for (int64_t p = 0; p < pixels; ++p) {
      if (whole)
        Wide::max_bytes(taps, kWindow, p * rows.stride + i, at(out, p, i));
      else
        Wide::max_bytes(rows.data, count, p * rows.stride + i, at(out, p, i));
    }
  for (; i < n; ++i)
    for (int64_t p = 0; p < pixels; ++p) One::max_bytes(rows.data, count, p * rows.stride + i, at(out, p, i));
}

void f32_to_bf16(const float* x, int64_t n, bf16* out) {
  over_channels<2>(n, [&](auto block, int64_t first) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    typename B::F v[B::kVectors];
    NIBBLE_UNROLL
    for (int i = 0; i < B::kVectors; ++i) v[i] = V::load(x + first + i * V::kLanes);
    V::store_rounded(out + first, v);
  });
}

void bf16_to_f32(const bf16* x, int64_t n, float* out) {
  over_channels<1>(n, [&](auto block, int64_t i) NIBBLE_INLINE_BODY {
    using V = typename decltype(block)::V;
    V::store(out + i, V::load(x + i));
  });
}

void s8_to_bf16(const int8_t* x, int64_t n, bf16* out) {
  over_channels<2>(n, [&](auto block, int64_t first) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    typename B::F v[B::kVectors];
    NIBBLE_UNROLL
    for (int i = 0; i < B::kVectors; ++i) v[i] = V::load(x + first + i * V::kLanes);
    V::store_upper(out + first, v);
  });
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
