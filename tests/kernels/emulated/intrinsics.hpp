// The intrinsics of the kernels in portable C++, so that every level's products run on every machine.
//
// SIMDe (a translation of Intel's intrinsics to portable code) supplies most; what its version 0.7 lacks follows, and
// the tiles are in tiles.hpp. The semantics are those of Intel's Intrinsics Guide.
#pragma once
// Vectors without hardware registers are passed in memory: no ABI is involved here, everything is inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/dtype.hpp"

namespace nibble::testing::emulated {
namespace {

/// What a broken system does: with the tiles, or (a wrong sum of floats) with dot products of bf16.
enum class Flaw { kNone, kContentsLost, kLastSumWrong, kLastRealSumWrong, kStreamedLoadLost };
inline Flaw flaw = Flaw::kNone;

/// Lane-wise access: vectors as arrays.
template <typename T, typename V>
struct Lanes {
  T v[sizeof(V) / sizeof(T)] = {};
  static constexpr int kCount = static_cast<int>(sizeof(V) / sizeof(T));
  Lanes() = default;
  explicit Lanes(V from) { std::memcpy(v, &from, sizeof v); }
  V pack() const {
    V to;
    std::memcpy(&to, v, sizeof v);
    return to;
  }
};

/// Every element of `from`, converted.
template <typename T, typename S, typename Out, typename In>
Out converted(In from) {
  const Lanes<S, In> in(from);
  Lanes<T, Out> out;
  static_assert(in.kCount == out.kCount);
  for (int i = 0; i < out.kCount; ++i) out.v[i] = static_cast<T>(in.v[i]);
  return out.pack();
}

/// The first eight elements, widened.
template <typename S>
__m512i widened_to_eight(__m128i from) {
  const Lanes<S, __m128i> in(from);
  Lanes<uint64_t, __m512i> out;
  for (int i = 0; i < out.kCount; ++i) out.v[i] = in.v[i];
  return out.pack();
}

/// Truncated towards zero; 2^31 and what is not a number give the lowest integer.
inline __m512i truncated(__m512 from) {
  const Lanes<float, __m512> in(from);
  Lanes<int32_t, __m512i> out;
  for (int i = 0; i < out.kCount; ++i)
    out.v[i] = in.v[i] >= -2147483648.0f && in.v[i] < 2147483648.0f ? static_cast<int32_t>(in.v[i]) : INT32_MIN;
  return out.pack();
}

/// Rounded to bf16 as the instructions of AVX512-BF16 do it, whatever MXCSR says: that is to_bf16.
inline __m256i rounded(__m512 from) {
  const Lanes<float, __m512> in(from);
  Lanes<uint16_t, __m256i> out;
  for (int i = 0; i < out.kCount; ++i) out.v[i] = to_bf16(in.v[i]).bits;
  return out.pack();
}
inline __m512i rounded_pair(__m512 upper, __m512 lower) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(rounded(lower)), rounded(upper), 1);
}

/// A float as instructions of bf16 see it: denormals count as zero.
inline float flushed(float v) {
  return std::abs(v) < FLT_MIN ? std::copysign(0.0f, v) : v;
}
inline float real_of(uint16_t half) {
  return flushed(to_float(bf16{half}));
}

/// acc + products of neighbouring pairs of bf16: the upper ones are added first, then the lower ones, each rounded by
/// itself (Intel SDM, VDPBF16PS).
inline __m512 dot_halves(__m512 acc, __m512i a, __m512i b) {
  const Lanes<uint16_t, __m512i> x(a), y(b);
  Lanes<float, __m512> out(acc);
  for (int i = 0; i < out.kCount; ++i) {
    float sum = flushed(out.v[i]);
    for (const int j : {2 * i + 1, 2 * i}) sum = flushed(sum + flushed(real_of(x.v[j]) * real_of(y.v[j])));
    out.v[i] = sum;
  }
  if (flaw == Flaw::kLastRealSumWrong) out.v[out.kCount - 1] += 1;
  return out.pack();
}

/// Elements whose mask bit is set, zeros elsewhere; the others are not read.
template <typename T, typename V>
V masked_load(uint64_t mask, const void* p) {
  Lanes<T, V> out;
  for (int i = 0; i < out.kCount; ++i)
    if ((mask >> i) & 1) std::memcpy(&out.v[i], static_cast<const std::byte*>(p) + i * sizeof(T), sizeof(T));
  return out.pack();
}

/// Stores the 32-bit elements whose mask bit is set.
inline void masked_store(void* p, uint64_t mask, __m512i v) {
  const Lanes<uint32_t, __m512i> from(v);
  for (int i = 0; i < from.kCount; ++i)
    if ((mask >> i) & 1) std::memcpy(static_cast<std::byte*>(p) + 4 * i, &from.v[i], 4);
}

/// Sums of products of neighbouring signed 16-bit elements.
inline __m512i madd(__m512i a, __m512i b) {
  const Lanes<int16_t, __m512i> x(a), y(b);
  Lanes<int32_t, __m512i> out;
  for (int i = 0; i < out.kCount; ++i) out.v[i] = x.v[2 * i] * y.v[2 * i] + x.v[2 * i + 1] * y.v[2 * i + 1];
  return out.pack();
}

/// Sums of products of neighbouring bytes, unsigned by signed, saturated to 16 bits.
inline __m512i maddubs(__m512i a, __m512i b) {
  const Lanes<uint8_t, __m512i> x(a);
  const Lanes<int8_t, __m512i> y(b);
  Lanes<int16_t, __m512i> out;
  for (int i = 0; i < out.kCount; ++i) {
    const int sum = x.v[2 * i] * y.v[2 * i] + x.v[2 * i + 1] * y.v[2 * i + 1];
    out.v[i] = static_cast<int16_t>(sum > INT16_MAX ? INT16_MAX : sum < INT16_MIN ? INT16_MIN : sum);
  }
  return out.pack();
}

/// acc + sums of four products of bytes, unsigned by signed, modulo 2^32.
template <typename V>
V dot_bytes(V acc, V a, V b) {
  const Lanes<uint8_t, V> x(a);
  const Lanes<int8_t, V> y(b);
  Lanes<uint32_t, V> out(acc);
  for (int i = 0; i < out.kCount; ++i)
    for (int j = 4 * i; j < 4 * i + 4; ++j) out.v[i] += static_cast<uint32_t>(x.v[j] * y.v[j]);
  return out.pack();
}

/// acc + sums of two products of signed 16-bit integers, modulo 2^32.
template <typename V>
V dot_pairs(V acc, V a, V b) {
  const Lanes<int16_t, V> x(a), y(b);
  Lanes<uint32_t, V> out(acc);
  for (int i = 0; i < out.kCount; ++i)
    for (int j = 2 * i; j < 2 * i + 2; ++j) out.v[i] += static_cast<uint32_t>(int32_t{x.v[j]} * y.v[j]);
  return out.pack();
}

}  // namespace
}  // namespace nibble::testing::emulated

#undef _mm512_madd_epi16  // SIMDe 0.7.4's alias has the parameters of the masked form
#undef _mm512_maddubs_epi16
#undef _mm512_dpbusd_epi32
#undef _mm512_dpwssd_epi32
#undef _mm512_dpbf16_ps
#undef _mm256_dpbusd_avx_epi32
#undef _mm256_dpwssd_avx_epi32
#undef _mm512_cvtepu8_epi16
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepu8_epi64
#undef _mm512_cvtepu16_epi64
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepi32_epi16
#undef _mm512_cvtepi32_epi8
#undef _mm512_cvtepi16_epi8
#undef _mm512_cvttps_epi32
#undef _mm512_cmplt_epi32_mask
#undef _mm_maskz_loadu_epi8
#undef _mm256_maskz_loadu_epi8
#undef _mm256_maskz_loadu_epi16
#undef _mm512_maskz_loadu_epi8
#undef _mm512_maskz_loadu_epi32
#undef _mm512_mask_storeu_epi32
#undef _mm512_stream_si512
#undef _mm512_mask_cmp_ps_mask
#undef _mm512_cvtneps_pbh
#undef _mm512_cvtne2ps_pbh
#undef _mm512_shuffle_f32x4
#define _mm512_madd_epi16(a, b) nibble::testing::emulated::madd(a, b)
#define _mm512_maddubs_epi16(a, b) nibble::testing::emulated::maddubs(a, b)
#define _mm512_dpbusd_epi32(acc, a, b) nibble::testing::emulated::dot_bytes<__m512i>(acc, a, b)
#define _mm512_dpbf16_ps(acc, a, b) nibble::testing::emulated::dot_halves(acc, a, b)
#define _mm256_dpbusd_avx_epi32(acc, a, b) nibble::testing::emulated::dot_bytes<__m256i>(acc, a, b)
#define _mm512_dpwssd_epi32(acc, a, b) nibble::testing::emulated::dot_pairs<__m512i>(acc, a, b)
#define _mm256_dpwssd_avx_epi32(acc, a, b) nibble::testing::emulated::dot_pairs<__m256i>(acc, a, b)
#define _mm512_cvtepu8_epi16(v) nibble::testing::emulated::converted<uint16_t, uint8_t, __m512i>(v)
#define _mm512_cvtepu8_epi32(v) nibble::testing::emulated::converted<uint32_t, uint8_t, __m512i>(v)
#define _mm512_cvtepu8_epi64(v) nibble::testing::emulated::widened_to_eight<uint8_t>(v)
#define _mm512_cvtepu16_epi64(v) nibble::testing::emulated::widened_to_eight<uint16_t>(v)
#define _mm512_cvtepu16_epi32(v) nibble::testing::emulated::converted<uint32_t, uint16_t, __m512i>(v)
#define _mm512_cvtepi32_ps(v) nibble::testing::emulated::converted<float, int32_t, __m512>(v)
#define _mm512_cvtepi8_epi32(v) nibble::testing::emulated::converted<int32_t, int8_t, __m512i>(v)
#define _mm512_cvtepi32_epi16(v) nibble::testing::emulated::converted<uint16_t, uint32_t, __m256i>(v)
#define _mm512_cvtepi32_epi8(v) nibble::testing::emulated::converted<uint8_t, uint32_t, __m128i>(v)
#define _mm512_cvtepi16_epi8(v) nibble::testing::emulated::converted<uint8_t, uint16_t, __m256i>(v)
#define _mm512_cmplt_epi32_mask(a, b) _mm512_cmpgt_epi32_mask(b, a)
#define _mm512_cvttps_epi32(v) nibble::testing::emulated::truncated(v)
#define _mm_maskz_loadu_epi8(mask, p) nibble::testing::emulated::masked_load<uint8_t, __m128i>(mask, p)
#define _mm256_maskz_loadu_epi8(mask, p) nibble::testing::emulated::masked_load<uint8_t, __m256i>(mask, p)
#define _mm256_maskz_loadu_epi16(mask, p) nibble::testing::emulated::masked_load<uint16_t, __m256i>(mask, p)
#define _mm512_maskz_loadu_epi8(mask, p) nibble::testing::emulated::masked_load<uint8_t, __m512i>(mask, p)
#define _mm512_maskz_loadu_epi32(mask, p) nibble::testing::emulated::masked_load<uint32_t, __m512i>(mask, p)
#define _mm512_mask_storeu_epi32(p, mask, v) nibble::testing::emulated::masked_store(p, mask, v)
#define _mm512_stream_si512(p, v) _mm512_storeu_si512(p, v)
#define _mm512_mask_cmp_ps_mask(m, a, b, how) static_cast<__mmask16>((m)&_mm512_cmp_ps_mask(a, b, how))
#define _mm512_cvtneps_pbh(v) nibble::testing::emulated::rounded(v)
#define _mm512_cvtne2ps_pbh(a, b) nibble::testing::emulated::rounded_pair(a, b)
#define _mm512_shuffle_f32x4(a, b, lanes) simde_mm512_shuffle_f32x4(a, b, lanes)

#define NIBBLE_KEEP(v) static_cast<void>(v)
// An emulated step is a loop over lanes: 28 copies of it inlined into every tile cost minutes of compilation.
#define NIBBLE_INLINE inline
#define NIBBLE_UNROLL_ALL

#include "tests/kernels/emulated/tiles.hpp"
