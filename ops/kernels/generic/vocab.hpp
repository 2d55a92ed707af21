// The vocabulary of the element-wise kernels: lanes of floats and 32-bit words, one lane or one xsimd batch at a time.
//
// A vocabulary V has kLanes, the types F (floats) and U (32-bit words), the operators of F (+ - * /) and of U (&), and
// these functions:
//   splat, splat_u            the same value in every lane
//   load(const T*)            kLanes elements as floats: T = float, int32_t (rounded to nearest even), bf16, uint8_t,
//                             int8_t (all exact)
//   load_halves               kCount vectors of bf16 side by side
//   store(float*, F)          can stream
//   store_upper               kCount vectors side by side: the upper halves of the lanes as bf16
//   store_rounded             kCount vectors side by side, rounded to bf16; these and the next two can stream
//   round_and_store<D>        kCount vectors side by side: rounded in place, and stored as bf16
//   store_codes               kCount vectors side by side: values 0..255 as bytes, truncated towards zero
//   store_clipped_codes       the same for values up to 255, truncated; those below 0 and NaNs as 0
//   store_s8(int8_t*, F)      integral values in range
//   round_bf16<D>(F)          rounded to bf16 (engine/dtype.hpp's to_bf16), as floats
//   round_for_codes           kCount vectors of x >= +0: rounded in place, and stored as bf16 unless p is null; leaves
//                             the lanes in code order, an order of a level's own in which they are rounded and packed
//                             with the fewest shuffles
//   round_and_store_ordered   round_and_store that leaves the lanes in code order
//   to_code_order             kCount vectors side by side: into that order
//   from_code_order           the reverse
//   store_ordered_codes       kCount vectors in that order: the same, side by side
//   bits, from_bits           the same lanes as words, as floats
//   max(a, b)                 a > b ? a : b
//   min(a, b)                 a < b ? a : b; with a NaN on either side the answer of both is b, as the x86 instructions
//                             have it; code that must drop a NaN puts the bound into b
//   less(a, b, x, y)          x where a < b, else y (also where a or b is a NaN)
//   equal(a, b, x, y)         x where a == b, else y
//   M                         a truth value a lane: before(a, b) for a < b (false with a NaN), both_before(m, a, b) for
//                             m and a < b, both, either, differ, select(m, x, y)
//   load_mask(row, c)         M of the bits c, c + 1, ... of a row of bits
//   store_mask(row, c, M)     the reverse; other bits keep their value
//   publish()                 what was streamed becomes visible to others before what is stored later
//   max_u(a, b)               the larger word, both below 2^31
//   truncate(F)               towards zero, as floats with integral values; |x| < 2^31
//   pack_nibbles              kCodes codes to kCodes / 2 bytes, low nibble first; upper four bits of a code are dropped
//   unpack_nibbles            the reverse; (nibble ^ flip) - flip: flip 8 extends the sign, 0 keeps the nibble
//   multiply_bytes            the low eight bits of kBytes products
//   max_bytes                 the largest of `count` rows in each of kBytes columns from `first` on
// `One` is the plain form: the scalar level runs on it, the others use it for the last channels, so a tail has the bits
// of the body. NIBBLE_KERNEL_LEVEL and NIBBLE_KERNEL_LANES are explained in elementwise.inl.hpp.
#pragma once
#include <cstdint>

#include "ops/kernels/table.hpp"

#if !defined(NIBBLE_KERNEL_LEVEL) || !defined(NIBBLE_KERNEL_LANES)
#error "define NIBBLE_KERNEL_LEVEL and NIBBLE_KERNEL_LANES before including the element-wise kernels"
#endif

#define NIBBLE_INLINE inline __attribute__((always_inline))
// For the body of a loop over blocks: out of line it reads its captures from memory again in every row, because a store
// of codes may alias anything.
#define NIBBLE_INLINE_BODY __attribute__((always_inline))
#if defined(__clang__)
#define NIBBLE_UNROLL _Pragma("unroll")
#else
#define NIBBLE_UNROLL _Pragma("GCC unroll 16")
#endif

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// What a rounding to bf16 has to expect. kNonNegative, x >= +0 and no NaN, takes fewer instructions.
enum class Domain { kAny, kNonNegative };

struct One {
  static constexpr int kLanes = 1;
  using F = float;
  using U = uint32_t;

  static NIBBLE_INLINE F splat(float v) { return v; }
  static NIBBLE_INLINE U splat_u(uint32_t v) { return v; }
  static NIBBLE_INLINE F load(const float* p) { return *p; }
  static NIBBLE_INLINE F load(const int32_t* p) { return static_cast<float>(*p); }
  static NIBBLE_INLINE F load(const bf16* p) { return from_bits(static_cast<uint32_t>(p->bits) << 16); }
  template <int kCount>
  static NIBBLE_INLINE void load_halves(const bf16* p, F (&v)[kCount]) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) v[i] = load(p + i);
  }
  static NIBBLE_INLINE F load(const uint8_t* p) { return static_cast<float>(*p); }
  static NIBBLE_INLINE F load(const int8_t* p) { return static_cast<float>(*p); }
  static NIBBLE_INLINE void store(float* p, F v, Store = Store::kCached) { *p = v; }
  template <int kCount>
  static NIBBLE_INLINE void store_upper(bf16* p, const F (&v)[kCount], Store = Store::kCached) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) p[i].bits = static_cast<uint16_t>(bits(v[i]) >> 16);
  }
  template <int kCount>
  static NIBBLE_INLINE void store_rounded(bf16* p, const F (&v)[kCount], Store = Store::kCached) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) p[i].bits = static_cast<uint16_t>(bits(round_upper(v[i])) >> 16);
  }
  template <int kCount>
  static NIBBLE_INLINE void store_codes(uint8_t* p, const F (&v)[kCount]) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) p[i] = static_cast<uint8_t>(static_cast<int32_t>(v[i]));
  }
  template <int kCount>
  static NIBBLE_INLINE void store_clipped_codes(uint8_t* p, const F (&v)[kCount]) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) p[i] = static_cast<uint8_t>(static_cast<int32_t>(max(v[i], 0.0f)));
  }
  static NIBBLE_INLINE void store_s8(int8_t* p, F v) { *p = static_cast<int8_t>(static_cast<int32_t>(v)); }
  static NIBBLE_INLINE U bits(F v) { return __builtin_bit_cast(uint32_t, v); }
  static NIBBLE_INLINE F from_bits(U v) { return __builtin_bit_cast(float, v); }
  static NIBBLE_INLINE F max(F a, F b) { return a > b ? a : b; }
  static NIBBLE_INLINE F min(F a, F b) { return a < b ? a : b; }
  static NIBBLE_INLINE F less(F a, F b, F x, F y) { return a < b ? x : y; }
  static NIBBLE_INLINE F equal(F a, F b, F x, F y) { return a == b ? x : y; }
  static NIBBLE_INLINE U max_u(U a, U b) { return a > b ? a : b; }
  static NIBBLE_INLINE F truncate(F v) { return static_cast<float>(static_cast<int32_t>(v)); }

  /// A value whose upper half is the bf16 of x and whose lower half is anything.
  static NIBBLE_INLINE F round_upper(F x) {
    const U u = bits(x), magnitude = u & 0x7fffffffu;
    const U nearest = u + 0x7fffu + ((u >> 16) & 1u);
    const U flushed = magnitude < 0x00800000u ? u & 0x80000000u : nearest;
    return from_bits(magnitude > 0x7f800000u ? u | 0x00400000u : flushed);
  }
  template <Domain = Domain::kAny>
  static NIBBLE_INLINE F round_bf16(F x) {
    return from_bits(bits(round_upper(x)) & 0xffff0000u);
  }
  template <Domain = Domain::kAny, int kCount>
  static NIBBLE_INLINE void round_and_store(bf16* p, F (&v)[kCount], Store = Store::kCached) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) v[i] = round_bf16(v[i]);
    store_upper(p, v);
  }
  template <int kCount>
  static NIBBLE_INLINE void round_for_codes(bf16* p, F (&v)[kCount]) {
    NIBBLE_UNROLL
    for (int i = 0; i < kCount; ++i) v[i] = round_bf16(v[i]);
    if (p != nullptr) store_upper(p, v);
  }
  template <int kCount>
  static NIBBLE_INLINE void round_and_store_ordered(bf16* p, F (&v)[kCount], Store = Store::kCached) {
    round_and_store(p, v);
  }
  template <int kCount>
  static NIBBLE_INLINE void to_code_order(F (&)[kCount]) {}
  template <int kCount>
  static NIBBLE_INLINE void from_code_order(F (&)[kCount]) {}
  template <int kCount>
  static NIBBLE_INLINE void store_ordered_codes(uint8_t* p, const F (&v)[kCount]) {
    store_codes(p, v);
  }

  using M = bool;
  static NIBBLE_INLINE M before(F a, F b) { return a < b; }
  static NIBBLE_INLINE M both(M a, M b) { return a && b; }
  static NIBBLE_INLINE M either(M a, M b) { return a || b; }
  static NIBBLE_INLINE M both_before(M m, F a, F b) { return m && a < b; }
  static NIBBLE_INLINE M differ(M a, M b) { return a != b; }
  static NIBBLE_INLINE F select(M m, F x, F y) { return m ? x : y; }
  static NIBBLE_INLINE M load_mask(const uint8_t* row, int64_t c) { return (row[c / 8] >> (c % 8) & 1) != 0; }
  static NIBBLE_INLINE void store_mask(uint8_t* row, int64_t c, M m) {
    const unsigned bit = 1u << (c % 8);
    row[c / 8] = static_cast<uint8_t>((row[c / 8] & ~bit) | (m ? bit : 0u));
  }
  static NIBBLE_INLINE void publish() {}

  static constexpr int kCodes = 2;
  static NIBBLE_INLINE void pack_nibbles(const uint8_t* codes, uint8_t* packed) {
    *packed = static_cast<uint8_t>((codes[0] & 15) | ((codes[1] & 15) << 4));
  }
  static NIBBLE_INLINE void unpack_nibbles(const uint8_t* packed, uint8_t* codes, int8_t flip) {
    codes[0] = static_cast<uint8_t>(((*packed & 15) ^ flip) - flip);
    codes[1] = static_cast<uint8_t>(((*packed >> 4) ^ flip) - flip);
  }
  static constexpr int kBytes = 1;
  static NIBBLE_INLINE void multiply_bytes(const uint8_t* x, const uint8_t* y, uint8_t* out) {
    *out = static_cast<uint8_t>(*x * *y);
  }
  static NIBBLE_INLINE void max_bytes(const uint8_t* const* rows, int count, int64_t first, uint8_t* out) {
    uint8_t best = rows[0][first];
    for (int r = 1; r < count; ++r) best = rows[r][first] > best ? rows[r][first] : best;
    *out = best;
  }
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL

#if NIBBLE_KERNEL_LANES > 1
#include "ops/kernels/generic/vocab_xsimd.hpp"
#else
namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {
using Wide = One;
}
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
#endif
