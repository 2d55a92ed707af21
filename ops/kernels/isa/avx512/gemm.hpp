// Products of the AVX-512 levels: the AVX2 scheme at twice the width.
#pragma once
#include "ops/kernels/generic/gemm_bytes.inl.hpp"
#include "ops/kernels/isa/avx512/words.hpp"
#include "ops/kernels/isa/intrinsics.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

struct FloatFma {
  static constexpr int kLanes = 16, kKr = 1, kGroupBytesA = 4, kGroupBytesB = 4, kUnroll = 1;
  using C = float;
  using Acc = __m512;
  using A = __m512;
  using B = __m512;
  static NIBBLE_INLINE __m512 zero() { return _mm512_setzero_ps(); }
  static NIBBLE_INLINE __m512 load_c(const float* p) { return _mm512_loadu_ps(p); }
  static NIBBLE_INLINE void store_c(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
  static NIBBLE_INLINE __m512 load_b(const std::byte* p) { return _mm512_load_ps(p); }
  static NIBBLE_INLINE __m512 broadcast(const std::byte* p) {
    float v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm512_set1_ps(v);
  }
  static NIBBLE_INLINE __m512 step(__m512 acc, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, acc); }
};

struct IntLanes {
  static constexpr int kLanes = 16, kUnroll = 1;
  using C = int32_t;
  using Acc = __m512i;
  using A = __m512i;
  using B = __m512i;
  static NIBBLE_INLINE __m512i zero() { return _mm512_setzero_si512(); }
  static NIBBLE_INLINE __m512i load_c(const int32_t* p) { return _mm512_loadu_si512(p); }
  static NIBBLE_INLINE void store_c(int32_t* p, __m512i v) { _mm512_storeu_si512(p, v); }
  static NIBBLE_INLINE __m512i load_b(const std::byte* p) { return _mm512_load_si512(p); }
  static NIBBLE_INLINE __m512i broadcast(const std::byte* p) {
    int32_t group;
    __builtin_memcpy(&group, p, sizeof group);
    return _mm512_set1_epi32(group);
  }
};

/// As on AVX2: codes widened to 16 bits, exact pair products.
struct PairsOf16 : IntLanes {
  static constexpr int kKr = 2, kGroupBytesA = 4, kGroupBytesB = 4;
  static NIBBLE_INLINE __m512i step(__m512i acc, __m512i a, __m512i b) {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
  }
};

struct QuadsOf4Bit : IntLanes {
  static constexpr int kKr = 4, kGroupBytesA = 4, kGroupBytesB = 4;
  using Half = __m512i;
  static NIBBLE_INLINE __m512i half_zero() { return _mm512_setzero_si512(); }
  static NIBBLE_INLINE __m512i half_step(__m512i half, __m512i a, __m512i b) {
    half = _mm512_add_epi16(half, _mm512_maddubs_epi16(a, b));
    NIBBLE_KEEP(half);
    return half;
  }
  static NIBBLE_INLINE __m512i widen(__m512i acc, __m512i half) {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(half, _mm512_set1_epi16(1)));
  }
  static NIBBLE_INLINE __m512i step(__m512i acc, __m512i a, __m512i b) {
    return widen(acc, _mm512_maddubs_epi16(a, b));
  }
};

constexpr int kMr = 14, kNv = 2;

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
