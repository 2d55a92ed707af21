// The dot products of bytes and of 16-bit integers of AVX512-VNNI, for the levels that have it without tiles.
#pragma once
#include "ops/kernels/isa/avx512/gemm.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// u8 x s8 quads summed exactly into 32 bits.
struct DotOfBytes : IntLanes {
  static constexpr int kKr = 4, kGroupBytesA = 4, kGroupBytesB = 4;
  static NIBBLE_INLINE __m512i step(__m512i acc, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(acc, a, b); }
};

/// Pairs of 16-bit products, sums modulo 2^32.
struct DotOfPairs : IntLanes {
  static constexpr int kKr = 2, kGroupBytesA = 4, kGroupBytesB = 4;
  static NIBBLE_INLINE __m512i step(__m512i acc, __m512i a, __m512i b) { return _mm512_dpwssd_epi32(acc, a, b); }
};

constexpr GemmWide wide_gemm() {
  return pair_gemm<GemmWide, DotOfPairs, Words, kMr, kNv>();
}

/// One kernel serves all code widths.
constexpr GemmInt dot_gemm() {
  GemmInt g = quad_gemm<DotOfBytes, Words, kMr, kNv>();
  g.run_gathered = run_gathered<DotOfBytes, kMr, kNv>;
  return g;
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
