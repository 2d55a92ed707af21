// The vocabulary over xsimd batches (see vocab.hpp). What xsimd 8.1 lacks (width conversions, work on packed bytes) or
// later versions do differently (casts of bits, maxima of what is not a number) comes from the level family's
// convert.hpp.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operand inside its own AVX-512 intrinsics for a mistake, wherever they are inlined.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

// Every level gets an xsimd namespace of its own: two levels instantiate the same batch functions with different
// compiler flags, and a linker that merged them would run one level's instructions on another level's CPU.
#define NIBBLE_JOIN_NOW(a, b) a##b
#define NIBBLE_JOIN(a, b) NIBBLE_JOIN_NOW(a, b)
#define xsimd NIBBLE_JOIN(nibble_xsimd_, NIBBLE_KERNEL_LEVEL)
#include <xsimd/xsimd.hpp>

#if NIBBLE_KERNEL_LANES == 8
#include "ops/kernels/isa/avx2/convert.hpp"
#elif NIBBLE_KERNEL_LANES == 16
#include "ops/kernels/isa/avx512/convert.hpp"
#else
#error "NIBBLE_KERNEL_LANES is 1, 8 (AVX2) or 16 (AVX-512)"
#endif

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

struct Wide : Convert {
  // Never an fma architecture: products are rounded before they are added, on every level.
#if NIBBLE_KERNEL_LANES == 8
  using Arch = xsimd::avx2;
#else
  using Arch = xsimd::avx512bw;
#endif
  using F = xsimd::batch<float, Arch>;
  using U = xsimd::batch<int32_t, Arch>;
  static constexpr int kLanes = NIBBLE_KERNEL_LANES;
  static_assert(F::size == kLanes);

  static NIBBLE_INLINE F splat(float v) {
    return F(v);
  }
  static NIBBLE_INLINE U splat_u(uint32_t v) {
    return U(static_cast<int32_t>(v));
  }
  static NIBBLE_INLINE F load(const float* p) {
    return F::load_unaligned(p);
  }
  static NIBBLE_INLINE F load(const int32_t* p) {
    return from_s32(U::load_unaligned(p));
  }
  static NIBBLE_INLINE F load(const bf16* p) {
    return load_bf16(p);
  }
  template <int kCount>
  static NIBBLE_INLINE void load_halves(const bf16* p, F (&v)[kCount]) {
    if constexpr (kLoadsPairs && kCount % 2 == 0) {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; i += 2) load_pair(p + i * kLanes, v[i], v[i + 1]);
    } else {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; ++i) v[i] = load_bf16(p + i * kLanes);
    }
  }
  static NIBBLE_INLINE F load(const uint8_t* p) {
    return from_s32(load_u8(p));
  }
  static NIBBLE_INLINE F load(const int8_t* p) {
    return from_s32(load_s8(p));
  }
  static NIBBLE_INLINE void store(float* p, F v, Store store = Store::kCached) {
    if (store == Store::kStreamed && reinterpret_cast<uintptr_t>(p) % sizeof v == 0)
      stream(p, v);
    else
      v.store_unaligned(p);
  }
  template <int kCount>
  static NIBBLE_INLINE void store_upper(bf16* p, const F (&v)[kCount], Store store = Store::kCached) {
    // Two vectors fill a register of halves, so they share the shuffles.
    NIBBLE_UNROLL
    for (int i = 0; i + 2 <= kCount; i += 2) store_upper_pair(p + i * kLanes, v[i], v[i + 1], store);
    if constexpr (kCount % 2 == 1) store_upper_one(p + (kCount - 1) * kLanes, v[kCount - 1]);
  }
  template <int kCount>
  static NIBBLE_INLINE void store_rounded(bf16* p, const F (&v)[kCount], Store store = Store::kCached) {
    if constexpr (kRoundsPairs) {
      NIBBLE_UNROLL
      for (int i = 0; i + 2 <= kCount; i += 2) store_rounded_pair(p + i * kLanes, v[i], v[i + 1], store);
      if constexpr (kCount % 2 == 1) store_rounded_one(p + (kCount - 1) * kLanes, v[kCount - 1]);
    } else {
      F upper[kCount];
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; ++i) upper[i] = Convert::template round_upper<Domain::kAny>(v[i]);
      store_upper(p, upper, store);
    }
  }
  template <int kCount>
  static NIBBLE_INLINE void store_codes(uint8_t* p, const F (&v)[kCount]) {
    if constexpr (kCount == 4) {
      store_codes_quad(p, to_s32(v[0]), to_s32(v[1]), to_s32(v[2]), to_s32(v[3]));
    } else {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; ++i) store_u8(p + i * kLanes, to_s32(v[i]));
    }
  }
  template <int kCount>
  static NIBBLE_INLINE void store_clipped_codes(uint8_t* p, const F (&v)[kCount]) {
    if constexpr (kCount == 4) {
      // What is below 0, or INT_MIN for a NaN or what no word can hold, saturates to 0 where four words become bytes.
      store_codes(p, v);
    } else {
      F positive[kCount];
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; ++i) positive[i] = max(v[i], splat(0.0f));
      store_codes(p, positive);
    }
  }
  static NIBBLE_INLINE void store_s8(int8_t* p, F v) {
    Convert::store_s8(p, to_s32(v));
  }
  static NIBBLE_INLINE U bits(F v) {
    return Convert::bits(v);
  }
  static NIBBLE_INLINE F from_bits(U v) {
    return Convert::from_bits(v);
  }
  // The instructions themselves: xsimd's give b for a NaN up to version 13, and a from 14 on.
  static NIBBLE_INLINE F max(F a, F b) {
    return Convert::max(a, b);
  }
  static NIBBLE_INLINE F min(F a, F b) {
    return Convert::min(a, b);
  }
  static NIBBLE_INLINE F less(F a, F b, F x, F y) {
    return xsimd::select(a < b, x, y);
  }
  static NIBBLE_INLINE F equal(F a, F b, F x, F y) {
    return xsimd::select(a == b, x, y);
  }
  static NIBBLE_INLINE M before(F a, F b) {
    return Convert::before(a, b);
  }
  static NIBBLE_INLINE M both_before(M m, F a, F b) {
    return Convert::both_before(m, a, b);
  }
  static NIBBLE_INLINE F select(M m, F x, F y) {
    return Convert::select(m, x, y);
  }
  template <Domain kDomain = Domain::kAny>
  static NIBBLE_INLINE F round_bf16(F x) {
    return Convert::round_bf16<kDomain>(x);
  }
  template <Domain kDomain = Domain::kAny, int kCount>
  static NIBBLE_INLINE void round_and_store(bf16* p, F (&v)[kCount], Store store = Store::kCached) {
    if constexpr (kRoundsPairs && kCount % 2 == 0) {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; i += 2) round_and_store_pair(p + i * kLanes, v[i], v[i + 1], store);
    } else {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; ++i) v[i] = round_bf16<kDomain>(v[i]);
      store_upper(p, v, store);
    }
  }
  /// Whether blocks of kCount vectors have a code order of their own.
  template <int kCount>
  static constexpr bool kOrdered = kCount % 2 == 0 && kRoundsPairs;
  template <int kCount>
  static NIBBLE_INLINE void round_for_codes(bf16* p, F (&v)[kCount]) {
    if constexpr (kOrdered<kCount>) {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; i += 2) {
        if (p != nullptr)
          round_store_interleave(p + i * kLanes, v[i], v[i + 1], Store::kCached);
        else
          round_interleave(v[i], v[i + 1]);
      }
    } else if (p != nullptr) {
      round_and_store<Domain::kNonNegative>(p, v);
    } else {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; ++i) v[i] = round_bf16<Domain::kNonNegative>(v[i]);
    }
  }
  template <int kCount>
  static NIBBLE_INLINE void round_and_store_ordered(bf16* p, F (&v)[kCount], Store store = Store::kCached) {
    if constexpr (kOrdered<kCount>) {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; i += 2) round_store_interleave(p + i * kLanes, v[i], v[i + 1], store);
    } else {
      round_and_store(p, v, store);
    }
  }
  template <int kCount>
  static NIBBLE_INLINE void from_code_order(F (&v)[kCount]) {
    if constexpr (kOrdered<kCount>) {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; i += 2) part(v[i], v[i + 1]);
    }
  }
  template <int kCount>
  static NIBBLE_INLINE void to_code_order(F (&v)[kCount]) {
    if constexpr (kOrdered<kCount>) {
      NIBBLE_UNROLL
      for (int i = 0; i < kCount; i += 2) interleave(v[i], v[i + 1]);
    }
  }
  template <int kCount>
  static NIBBLE_INLINE void store_ordered_codes(uint8_t* p, const F (&v)[kCount]) {
    if constexpr (kOrdered<kCount> && kCount == 4)
      store_interleaved_codes(p, to_s32(v[0]), to_s32(v[1]), to_s32(v[2]), to_s32(v[3]));
    else
      store_codes(p, v);
    static_assert(!kOrdered<kCount> || kCount == 4, "two vectors are ordered, and nothing stores their codes");
  }
  static NIBBLE_INLINE U max_u(U a, U b) {
    return xsimd::max(a, b);
  }
  static NIBBLE_INLINE F truncate(F v) {
    return from_s32(to_s32(v));
  }
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
