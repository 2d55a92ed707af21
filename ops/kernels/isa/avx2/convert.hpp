// Width conversions and packed-byte helpers of the AVX2 levels, for the element-wise vocabulary (vocab_xsimd.hpp).
#pragma once
#include <immintrin.h>

#include "ops/kernels/generic/vocab.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

struct Convert {
  static constexpr bool kRoundsPairs = false;
  static NIBBLE_INLINE __m256 from_s32(__m256i v) { return _mm256_cvtepi32_ps(v); }
  static NIBBLE_INLINE __m256i to_s32(__m256 v) { return _mm256_cvttps_epi32(v); }
  static NIBBLE_INLINE __m256i bits(__m256 v) { return _mm256_castps_si256(v); }
  static NIBBLE_INLINE __m256 from_bits(__m256i v) { return _mm256_castsi256_ps(v); }
  static NIBBLE_INLINE __m256 max(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
  static NIBBLE_INLINE __m256 min(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
  /// A value whose upper half is the bf16 of x and whose lower half is anything.
  template <Domain kDomain>
  static NIBBLE_INLINE __m256 round_upper(__m256 x) {
    const __m256i u = _mm256_castps_si256(x), most_denormal = _mm256_set1_epi32(0x007fffff);
    if constexpr (kDomain == Domain::kNonNegative)
      return _mm256_castsi256_ps(_mm256_and_si256(to_nearest(u), _mm256_cmpgt_epi32(u, most_denormal)));
    const __m256i magnitude = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
    const __m256i normal = _mm256_cmpgt_epi32(magnitude, most_denormal);  // otherwise only the sign stays
    const __m256i keep = _mm256_or_si256(normal, _mm256_set1_epi32(INT32_MIN));
    const __m256i flushed = _mm256_and_si256(to_nearest(u), keep);
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x00400000));
    return _mm256_blendv_ps(_mm256_castsi256_ps(flushed), _mm256_castsi256_ps(quiet),
                            _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  template <Domain kDomain>
  static NIBBLE_INLINE __m256 round_bf16(__m256 x) {
    return _mm256_and_ps(round_upper<kDomain>(x),
                         _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }

  using M = __m256;
  static NIBBLE_INLINE M before(__m256 a, __m256 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static NIBBLE_INLINE M both_before(M m, __m256 a, __m256 b) { return _mm256_and_ps(m, before(a, b)); }
  static NIBBLE_INLINE M both(M a, M b) { return _mm256_and_ps(a, b); }
  static NIBBLE_INLINE M either(M a, M b) { return _mm256_or_ps(a, b); }
  static NIBBLE_INLINE M differ(M a, M b) { return _mm256_xor_ps(a, b); }
  static NIBBLE_INLINE __m256 select(M m, __m256 x, __m256 y) { return _mm256_blendv_ps(y, x, m); }
  static NIBBLE_INLINE M load_mask(const uint8_t* row, int64_t c) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(row[c / 8]), bit), bit));
  }
  static NIBBLE_INLINE void store_mask(uint8_t* row, int64_t c, M m) {
    row[c / 8] = static_cast<uint8_t>(_mm256_movemask_ps(m));
  }
  static NIBBLE_INLINE void stream(float* p, __m256 v) { _mm256_stream_ps(p, v); }
  static NIBBLE_INLINE void publish() { _mm_sfence(); }

  static constexpr bool kLoadsPairs = false;
  static NIBBLE_INLINE __m256 load_bf16(const bf16* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static NIBBLE_INLINE __m256i load_u8(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static NIBBLE_INLINE __m256i load_s8(const int8_t* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }

  static NIBBLE_INLINE void store_upper_one(bf16* p, __m256 v) {
    const __m256i upper = _mm256_srli_epi32(_mm256_castps_si256(v), 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  }
  static NIBBLE_INLINE void store_upper_pair(bf16* p, __m256 v, __m256 w, Store store) {
    const __m256i a = _mm256_srli_epi32(_mm256_castps_si256(v), 16), b = _mm256_srli_epi32(_mm256_castps_si256(w), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
    if (store == Store::kStreamed && reinterpret_cast<uintptr_t>(p) % 32 == 0)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(p), packed);
    else
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
  }
  /// 32 values 0..255 as bytes.
  static NIBBLE_INLINE void store_codes_quad(uint8_t* p, __m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(bytes, order));
  }
  static NIBBLE_INLINE void store_u8(uint8_t* p, __m256i v) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  static NIBBLE_INLINE void store_s8(int8_t* p, __m256i v) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }

  static constexpr int kCodes = 64;  // codes one step of pack and unpack takes
  /// 64 codes to 32 bytes, low nibble first; the upper four bits of a code are dropped.
  static NIBBLE_INLINE void pack_nibbles(const uint8_t* codes, uint8_t* packed) {
    const __m256i low = _mm256_set1_epi8(15), weights = _mm256_set1_epi16(0x1001);  // even code + 16 * odd code
    const __m256i* from = reinterpret_cast<const __m256i*>(codes);
    const __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_loadu_si256(from), low), weights);
    const __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_loadu_si256(from + 1), low), weights);
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), bytes);
  }
  /// 32 bytes to 64 codes; (nibble ^ flip) - flip: flip 8 extends the sign, flip 0 keeps the nibble.
  static NIBBLE_INLINE void unpack_nibbles(const uint8_t* packed, uint8_t* codes, int8_t flip) {
    const __m256i low = _mm256_set1_epi8(15), bit = _mm256_set1_epi8(flip);
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
    const __m256i even = _mm256_and_si256(bytes, low), odd = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
    const __m256i x = _mm256_sub_epi8(_mm256_xor_si256(even, bit), bit);
    const __m256i y = _mm256_sub_epi8(_mm256_xor_si256(odd, bit), bit);
    const __m256i a = _mm256_unpacklo_epi8(x, y), b = _mm256_unpackhi_epi8(x, y);
    __m256i* to = reinterpret_cast<__m256i*>(codes);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(a, b, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(a, b, 0x31));
  }

  static constexpr int kBytes = 32;  // bytes one step of multiply and max takes
  /// The low eight bits of 32 products.
  static NIBBLE_INLINE void multiply_bytes(const uint8_t* x, const uint8_t* y, uint8_t* out) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y));
    const __m256i even = _mm256_and_si256(_mm256_mullo_epi16(a, b), _mm256_set1_epi16(0x00ff));
    const __m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_or_si256(even, _mm256_slli_epi16(odd, 8)));
  }
  static NIBBLE_INLINE void max_bytes(const uint8_t* const* rows, int count, int64_t first, uint8_t* out) {
    const auto load = [&](int r) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r] + first)); };
    __m256i best = load(0);
    for (int r = 1; r < count; ++r) best = _mm256_max_epu8(best, load(r));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), best);
  }

 private:
  static NIBBLE_INLINE __m256i to_nearest(__m256i u) {
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  }
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
