// Products of the AVX2 level: fp32 FMA, exact int8 by 16-bit multiply-add, int4 by byte multiply-add.
#pragma once
#include "ops/kernels/generic/gemm_bytes.inl.hpp"
#include "ops/kernels/isa/avx2/words.hpp"
#include "ops/kernels/isa/intrinsics.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

struct FloatFma {
  // Three groups per turn: 2 to 7 % more products per second than one (depths of 512 and 64); with four GCC 12 spills
  // sums.
  static constexpr int kLanes = 8, kKr = 1, kGroupBytesA = 4, kGroupBytesB = 4, kUnroll = 3;
  using C = float;
  using Acc = __m256;
  using A = __m256;
  using B = __m256;
  static NIBBLE_INLINE __m256 zero() { return _mm256_setzero_ps(); }
  static NIBBLE_INLINE __m256 load_c(const float* p) { return _mm256_loadu_ps(p); }
  static NIBBLE_INLINE void store_c(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
  static NIBBLE_INLINE __m256 load_b(const std::byte* p) { return _mm256_load_ps(reinterpret_cast<const float*>(p)); }
  static NIBBLE_INLINE __m256 broadcast(const std::byte* p) {
    return _mm256_broadcast_ss(reinterpret_cast<const float*>(p));
  }
  static NIBBLE_INLINE __m256 step(__m256 acc, __m256 a, __m256 b) { return _mm256_fmadd_ps(a, b, acc); }
};

struct IntLanes {
  static constexpr int kLanes = 8, kUnroll = 1;
  using C = int32_t;
  using Acc = __m256i;
  using A = __m256i;
  using B = __m256i;
  static NIBBLE_INLINE __m256i zero() { return _mm256_setzero_si256(); }
  static NIBBLE_INLINE __m256i load_c(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static NIBBLE_INLINE void store_c(int32_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static NIBBLE_INLINE __m256i load_b(const std::byte* p) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  }
  static NIBBLE_INLINE __m256i broadcast(const std::byte* p) {
    int32_t group;
    __builtin_memcpy(&group, p, sizeof group);
    return _mm256_set1_epi32(group);
  }
};

/// Codes widened to 16 bits when they are packed: pairs of k, products summed exactly into 32 bits. The byte form would
/// saturate (255*127*2 > 32767).
struct PairsOf16 : IntLanes {
  static constexpr int kKr = 2, kGroupBytesA = 4, kGroupBytesB = 4;
  static NIBBLE_INLINE __m256i step(__m256i acc, __m256i a, __m256i b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
  }
};

struct QuadsOf4Bit : IntLanes {
  static constexpr int kKr = 4, kGroupBytesA = 4, kGroupBytesB = 4;
  using Half = __m256i;
  static NIBBLE_INLINE __m256i half_zero() { return _mm256_setzero_si256(); }
  static NIBBLE_INLINE __m256i half_step(__m256i half, __m256i a, __m256i b) {
    half = _mm256_add_epi16(half, _mm256_maddubs_epi16(a, b));
    NIBBLE_KEEP(half);
    return half;
  }
  static NIBBLE_INLINE __m256i widen(__m256i acc, __m256i half) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(half, _mm256_set1_epi16(1)));
  }
  static NIBBLE_INLINE __m256i step(__m256i acc, __m256i a, __m256i b) {
    return widen(acc, _mm256_maddubs_epi16(a, b));
  }
};

constexpr int kMr = 6, kNv = 2;

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
