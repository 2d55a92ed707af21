// Width conversions and packed-byte helpers of the AVX-512 levels (F, BW), for the element-wise vocabulary
// (vocab_xsimd.hpp). Levels whose flags include AVX512-BF16 round with its instructions: like to_bf16 they round to
// nearest even whatever the mode, quiet a NaN and flush denormals to zero of their sign.
#pragma once
#include <immintrin.h>

#include "ops/kernels/generic/vocab.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

struct Convert {
  static NIBBLE_INLINE __m512 from_s32(__m512i v) { return _mm512_cvtepi32_ps(v); }
  static NIBBLE_INLINE __m512i to_s32(__m512 v) { return _mm512_cvttps_epi32(v); }
  static NIBBLE_INLINE __m512i bits(__m512 v) { return _mm512_castps_si512(v); }
  static NIBBLE_INLINE __m512 from_bits(__m512i v) { return _mm512_castsi512_ps(v); }
  static NIBBLE_INLINE __m512 max(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
  static NIBBLE_INLINE __m512 min(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
  /// A value whose upper half is the bf16 of x and whose lower half is anything.
  template <Domain kDomain>
  static NIBBLE_INLINE __m512 round_upper(__m512 x) {
    const __m512i u = _mm512_castps_si512(x);
    if constexpr (kDomain == Domain::kNonNegative) {
      const __mmask16 normal = _mm512_cmpgt_epi32_mask(u, _mm512_set1_epi32(0x007fffff));
      return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(normal, to_nearest(u)));
    }
    const __m512i magnitude = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
    const __mmask16 denormal = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(0x00800000));
    const __mmask16 nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
    __m512i r = to_nearest(u);
    r = _mm512_mask_and_epi32(r, denormal, u, _mm512_set1_epi32(INT32_MIN));
    r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x00400000));
    return _mm512_castsi512_ps(r);
  }

  using M = __mmask16;
  static NIBBLE_INLINE M before(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static NIBBLE_INLINE M both_before(M m, __m512 a, __m512 b) { return _mm512_mask_cmp_ps_mask(m, a, b, _CMP_LT_OQ); }
  static NIBBLE_INLINE M both(M a, M b) { return static_cast<M>(a & b); }
  static NIBBLE_INLINE M either(M a, M b) { return static_cast<M>(a | b); }
  static NIBBLE_INLINE M differ(M a, M b) { return static_cast<M>(a ^ b); }
  static NIBBLE_INLINE __m512 select(M m, __m512 x, __m512 y) { return _mm512_mask_blend_ps(m, y, x); }
  static NIBBLE_INLINE M load_mask(const uint8_t* row, int64_t c) {
    uint16_t bits = 0;
    __builtin_memcpy(&bits, row + c / 8, sizeof bits);
    return bits;
  }
  static NIBBLE_INLINE void store_mask(uint8_t* row, int64_t c, M m) {
    const uint16_t bits = m;
    __builtin_memcpy(row + c / 8, &bits, sizeof bits);
  }
  static NIBBLE_INLINE void stream(float* p, __m512 v) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), _mm512_castps_si512(v));
  }
  static NIBBLE_INLINE void publish() { _mm_sfence(); }

#if defined(__AVX512BF16__)
  static constexpr bool kRoundsPairs = true;
  template <Domain>
  static NIBBLE_INLINE __m512 round_bf16(__m512 x) {
    return widened(__builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(x)));
  }
  /// Two vectors are rounded by one instruction, and widened again from its result.
  static NIBBLE_INLINE void round_and_store_pair(bf16* p, auto& v, auto& w, Store store) {
    const __m512i halves = __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(w, v));
    store_line(p, halves, store);
    v = widened(_mm512_castsi512_si256(halves));
    w = widened(_mm512_extracti64x4_epi64(halves, 1));
  }
  /// Rounds two vectors and widens them again by interleaving with zeros: of every eight channels v gets the first four
  /// and w the others. That is two shuffles where `widened` takes three and two shifts.
  static NIBBLE_INLINE __m512i round_interleave(auto& v, auto& w) {
    const __m512i halves = __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(w, v)), zero = _mm512_setzero_si512();
    v = _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, halves));
    w = _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, halves));
    return halves;
  }
  static NIBBLE_INLINE void round_store_interleave(bf16* p, auto& v, auto& w, Store store) {
    store_line(p, round_interleave(v, w), store);
  }
  static NIBBLE_INLINE void store_rounded_one(bf16* p, __m512 v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(v)));
  }
  static NIBBLE_INLINE void store_rounded_pair(bf16* p, __m512 v, __m512 w, Store store) {
    store_line(p, __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(w, v)), store);
  }
#else
  static constexpr bool kRoundsPairs = false;
  template <Domain kDomain>
  static NIBBLE_INLINE __m512 round_bf16(__m512 x) {
    const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(round_upper<kDomain>(x)), mask));
  }
#endif

  static NIBBLE_INLINE __m512 load_bf16(const bf16* p) {
    return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  /// CPUs without bf16 instructions include those before Ice Lake, where a shuffle of words takes two steps.
  static constexpr bool kLoadsPairs = kRoundsPairs;
  /// Two vectors from one line: a shuffle for each, where load_bf16 takes a shuffle and a shift.
  static NIBBLE_INLINE void load_pair(const bf16* p, auto& v, auto& w) {
    constexpr __mmask32 kUpper = 0xaaaaaaaa;  // of each word
    const __m512i halves = _mm512_loadu_si512(p);
    const __m512i words = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i first = _mm512_slli_epi32(words, 16), second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    v = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(kUpper, first, halves));
    w = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(kUpper, second, halves));
  }
  static NIBBLE_INLINE __m512i load_u8(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static NIBBLE_INLINE __m512i load_s8(const int8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  static NIBBLE_INLINE void store_upper_one(bf16* p, __m512 v) {
    const __m256i upper = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(v), 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), upper);
  }
  static NIBBLE_INLINE void store_upper_pair(bf16* p, __m512 v, __m512 w, Store store) {
    const __m512i a = _mm512_srli_epi32(_mm512_castps_si512(v), 16), b = _mm512_srli_epi32(_mm512_castps_si512(w), 16);
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    store_line(p, _mm512_permutexvar_epi64(order, _mm512_packus_epi32(a, b)), store);
  }
  static NIBBLE_INLINE void store_codes_quad(uint8_t* p, __m512i a, __m512i b, __m512i c, __m512i d) {
    // Packing works in lanes of 128 bits: word 4 * lane + vector of the bytes is word 4 * vector + lane of the codes.
    const __m512i bytes = _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, bytes));
  }
  /// Two vectors of 32 channels side by side into the order that round_interleave leaves.
  static NIBBLE_INLINE void interleave(auto& v, auto& w) {
    const __m512 first = v, second = w;
    v = _mm512_shuffle_f32x4(first, second, _MM_SHUFFLE(2, 0, 2, 0));
    w = _mm512_shuffle_f32x4(first, second, _MM_SHUFFLE(3, 1, 3, 1));
  }
  /// The reverse.
  static NIBBLE_INLINE void part(auto& v, auto& w) {
    const __m512i a = _mm512_castps_si512(v), b = _mm512_castps_si512(w);
    v = _mm512_castsi512_ps(_mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), b));
    w = _mm512_castsi512_ps(_mm512_permutex2var_epi64(a, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), b));
  }
  static NIBBLE_INLINE void store_interleaved_codes(uint8_t* p, __m512i a, __m512i b, __m512i c, __m512i d) {
    // Packing joins in each lane what interleaving has separated; then eights of a and b take turns with eights of c
    // and d.
    const __m512i bytes = _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d));
    _mm512_storeu_si512(p, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), bytes));
  }
  static NIBBLE_INLINE void store_u8(uint8_t* p, __m512i v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }
  static NIBBLE_INLINE void store_s8(int8_t* p, __m512i v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }

  static constexpr int kCodes = 64;  // codes one step of pack and unpack takes
  /// 64 codes to 32 bytes, low nibble first; the upper four bits of a code are dropped.
  static NIBBLE_INLINE void pack_nibbles(const uint8_t* codes, uint8_t* packed) {
    const __m512i low = _mm512_set1_epi8(15), weights = _mm512_set1_epi16(0x1001);  // even code + 16 * odd code
    const __m512i words = _mm512_maddubs_epi16(_mm512_and_si512(_mm512_loadu_si512(codes), low), weights);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), _mm512_cvtepi16_epi8(words));
  }
  /// 32 bytes to 64 codes; (nibble ^ flip) - flip: flip 8 extends the sign, flip 0 keeps the nibble.
  static NIBBLE_INLINE void unpack_nibbles(const uint8_t* packed, uint8_t* codes, int8_t flip) {
    const __m512i low = _mm512_set1_epi8(15), bit = _mm512_set1_epi8(flip);
    const __m512i words = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)));
    const __m512i nibbles = _mm512_and_si512(_mm512_or_si512(words, _mm512_slli_epi16(words, 4)), low);
    _mm512_storeu_si512(codes, _mm512_sub_epi8(_mm512_xor_si512(nibbles, bit), bit));
  }

  static constexpr int kBytes = 64;  // bytes one step of multiply and max takes
  /// The low eight bits of 64 products.
  static NIBBLE_INLINE void multiply_bytes(const uint8_t* x, const uint8_t* y, uint8_t* out) {
    const __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(y);
    const __m512i even = _mm512_and_si512(_mm512_mullo_epi16(a, b), _mm512_set1_epi16(0x00ff));
    const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8));
    _mm512_storeu_si512(out, _mm512_or_si512(even, _mm512_slli_epi16(odd, 8)));
  }
  static NIBBLE_INLINE void max_bytes(const uint8_t* const* rows, int count, int64_t first, uint8_t* out) {
    __m512i best = _mm512_loadu_si512(rows[0] + first);
    for (int r = 1; r < count; ++r) best = _mm512_max_epu8(best, _mm512_loadu_si512(rows[r] + first));
    _mm512_storeu_si512(out, best);
  }

 private:
  static NIBBLE_INLINE void store_line(bf16* p, __m512i v, Store store) {
    if (store == Store::kStreamed && reinterpret_cast<uintptr_t>(p) % 64 == 0)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(p), v);
    else
      _mm512_storeu_si512(p, v);
  }
  static NIBBLE_INLINE __m512 widened(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static NIBBLE_INLINE __m512i to_nearest(__m512i u) {
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  }
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
