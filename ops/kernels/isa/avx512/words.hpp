// Vectors of sixteen 32-bit words on AVX-512: what the packing of panels is made of (vocabulary of gemm_pack.inl.hpp).
#pragma once
#include "ops/kernels/generic/gemm.inl.hpp"
#include "ops/kernels/isa/intrinsics.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

struct Words {
  static constexpr int kLanes = 16;
  static constexpr bool kLoadsFirst = true;
  using V = __m512i;
  static NIBBLE_INLINE V zero() { return _mm512_setzero_si512(); }
  static NIBBLE_INLINE void store(uint32_t* p, V v) { _mm512_storeu_si512(p, v); }
  /// The first kCount < 16 words.
  template <int kCount>
  static NIBBLE_INLINE void store_first(uint32_t* p, V v) {
    _mm512_mask_storeu_epi32(p, kFirst<kCount>, v);
  }

  /// Sixteen groups of four bytes as they are.
  static NIBBLE_INLINE V quads(const void* p) { return _mm512_loadu_si512(p); }
  /// The first `bytes` <= 64 bytes, zeros after them; nothing after them is read.
  static NIBBLE_INLINE V first_bytes(const void* p, int bytes) {
    return _mm512_maskz_loadu_epi8(bytes >= 64 ? ~0ull : (1ull << bytes) - 1, p);
  }
  /// Sixteen groups of two elements, bytes widened to 16 bits.
  static NIBBLE_INLINE V pairs(const uint8_t* p) { return _mm512_cvtepu8_epi16(half(p)); }
  static NIBBLE_INLINE V pairs(const int8_t* p) { return _mm512_cvtepi8_epi16(half(p)); }
  static NIBBLE_INLINE V pairs(const int16_t* p) { return quads(p); }
  /// The first `count` elements in pairs, zeros after them; nothing after them is read.
  static NIBBLE_INLINE V first_pairs(const uint8_t* p, int count) {
    return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(first_of_32(count), p));
  }
  static NIBBLE_INLINE V first_pairs(const int8_t* p, int count) {
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(first_of_32(count), p));
  }
  static NIBBLE_INLINE V first_pairs(const int16_t* p, int count) { return first_bytes(p, 2 * count); }
  /// Sixteen elements as floats.
  static NIBBLE_INLINE V floats(const float* p) { return quads(p); }
  static NIBBLE_INLINE V floats(const bf16* p) { return widen_bf16(half(p)); }
  static NIBBLE_INLINE V floats(const uint8_t* p) {
    return widen_u8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  /// The first kCount < 16 elements as floats; nothing after them is read.
  template <int kCount>
  static NIBBLE_INLINE V first_floats(const float* p) {
    return _mm512_maskz_loadu_epi32(kFirst<kCount>, p);
  }
  template <int kCount>
  static NIBBLE_INLINE V first_floats(const bf16* p) {
    return widen_bf16(_mm256_maskz_loadu_epi16(kFirst<kCount>, p));
  }

  /// The first `count` elements (at most 16) as floats, zeros after them.
  static NIBBLE_INLINE V some_floats(const bf16* p, int count) {
    return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(count), p));
  }
  static NIBBLE_INLINE V some_floats(const uint8_t* p, int count) {
    return widen_u8(_mm_maskz_loadu_epi8(first_lanes(count), p));
  }
  static NIBBLE_INLINE V some_floats(const float* p, int count) {
    return _mm512_maskz_loadu_epi32(first_lanes(count), p);
  }

  /// Word j = bf16 of low[j] | bf16 of high[j] << 16, for floats whose lower halves are zero.
  static NIBBLE_INLINE V join(V low_floats, V high_floats) {
    return _mm512_or_si512(_mm512_srli_epi32(low_floats, 16), high_floats);
  }

  /// v[i] lane j becomes v[j] lane i.
  static NIBBLE_INLINE void transpose(V (&v)[kLanes]) {
    V t[kLanes], u[kLanes];
    NIBBLE_UNROLL_ALL for (int i = 0; i < kLanes; i += 2) {
      t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
      t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    // u[4q + j], 128-bit lane l: column 4l + j of rows 4q..4q+3.
    NIBBLE_UNROLL_ALL for (int q = 0; q < kLanes; q += 4) {
      u[q] = _mm512_unpacklo_epi64(t[q], t[q + 2]);
      u[q + 1] = _mm512_unpackhi_epi64(t[q], t[q + 2]);
      u[q + 2] = _mm512_unpacklo_epi64(t[q + 1], t[q + 3]);
      u[q + 3] = _mm512_unpackhi_epi64(t[q + 1], t[q + 3]);
    }
    NIBBLE_UNROLL_ALL for (int j = 0; j < 4; ++j) {
      const V even_top = _mm512_shuffle_i32x4(u[j], u[4 + j], 0x88),
              odd_top = _mm512_shuffle_i32x4(u[j], u[4 + j], 0xdd);
      const V even_low = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0x88);
      const V odd_low = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0xdd);
      v[j] = _mm512_shuffle_i32x4(even_top, even_low, 0x88);
      v[4 + j] = _mm512_shuffle_i32x4(odd_top, odd_low, 0x88);
      v[8 + j] = _mm512_shuffle_i32x4(even_top, even_low, 0xdd);
      v[12 + j] = _mm512_shuffle_i32x4(odd_top, odd_low, 0xdd);
    }
  }

 private:
  static constexpr uint32_t first_of_32(int count) { return count >= 32 ? ~0u : (1u << count) - 1; }
  static constexpr uint16_t first_lanes(int count) {
    return static_cast<uint16_t>(count >= kLanes ? 0xffffu : (1u << count) - 1);
  }
  template <int kCount>
  static constexpr uint16_t kFirst = static_cast<uint16_t>((1u << kCount) - 1);
  static NIBBLE_INLINE __m256i half(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static NIBBLE_INLINE V widen_bf16(__m256i v) { return _mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16); }
  static NIBBLE_INLINE V widen_u8(__m128i v) {
    return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v)));
  }
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
