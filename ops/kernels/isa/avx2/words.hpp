// Vectors of eight 32-bit words on AVX2: what the packing of panels is made of (vocabulary of gemm_pack.inl.hpp).
#pragma once
#include "ops/kernels/generic/gemm.inl.hpp"
#include "ops/kernels/isa/intrinsics.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

struct Words {
  static constexpr int kLanes = 8;
  static constexpr bool kLoadsFirst = false;
  using V = __m256i;
  static NIBBLE_INLINE V zero() { return _mm256_setzero_si256(); }
  static NIBBLE_INLINE void store(uint32_t* p, V v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  /// The first kCount = 6 words.
  template <int kCount>
  static NIBBLE_INLINE void store_first(uint32_t* p, V v) {
    static_assert(kCount == 6);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(v));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p + 4), _mm256_extracti128_si256(v, 1));
  }

  /// Eight groups of four bytes as they are.
  static NIBBLE_INLINE V quads(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  /// Eight groups of two elements, bytes widened to 16 bits.
  static NIBBLE_INLINE V pairs(const uint8_t* p) { return _mm256_cvtepu8_epi16(half(p)); }
  static NIBBLE_INLINE V pairs(const int8_t* p) { return _mm256_cvtepi8_epi16(half(p)); }
  static NIBBLE_INLINE V pairs(const int16_t* p) { return quads(p); }
  /// Eight elements as floats.
  static NIBBLE_INLINE V floats(const float* p) { return quads(p); }
  static NIBBLE_INLINE V floats(const bf16* p) { return widen_bf16(half(p)); }
  static NIBBLE_INLINE V floats(const uint8_t* p) {
    return widen_u8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }

  /// The first kCount = 6 elements as floats; nothing after them is read.
  template <int kCount>
  static NIBBLE_INLINE V first_floats(const float* p) {
    static_assert(kCount == 6);
    const __m128i high = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 4));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(half(p)), high, 1);
  }
  template <int kCount>
  static NIBBLE_INLINE V first_floats(const bf16* p) {
    static_assert(kCount == 6);
    int64_t low;
    int32_t high;
    std::memcpy(&low, p, sizeof low);
    std::memcpy(&high, p + 4, sizeof high);
    return widen_bf16(_mm_set_epi64x(high, low));
  }

  /// v[i] lane j becomes v[j] lane i.
  static NIBBLE_INLINE void transpose(V (&v)[kLanes]) {
    V t[kLanes], u[kLanes];
    NIBBLE_UNROLL_ALL for (int i = 0; i < kLanes; i += 2) {
      t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
      t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    // u[4q + j], 128-bit lane l: column 4l + j of rows 4q..4q+3.
    NIBBLE_UNROLL_ALL for (int q = 0; q < kLanes; q += 4) {
      u[q] = _mm256_unpacklo_epi64(t[q], t[q + 2]);
      u[q + 1] = _mm256_unpackhi_epi64(t[q], t[q + 2]);
      u[q + 2] = _mm256_unpacklo_epi64(t[q + 1], t[q + 3]);
      u[q + 3] = _mm256_unpackhi_epi64(t[q + 1], t[q + 3]);
    }
    NIBBLE_UNROLL_ALL for (int j = 0; j < 4; ++j) {
      v[j] = _mm256_permute2x128_si256(u[j], u[4 + j], 0x20);
      v[4 + j] = _mm256_permute2x128_si256(u[j], u[4 + j], 0x31);
    }
  }

 private:
  static NIBBLE_INLINE __m128i half(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static NIBBLE_INLINE V widen_bf16(__m128i v) { return _mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16); }
  static NIBBLE_INLINE V widen_u8(__m128i v) {
    return _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)));
  }
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
