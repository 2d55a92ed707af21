// The products of the AVX-VNNI level: AVX2 plus the four-byte dot product in its VEX encoding.
#pragma once
#include "ops/kernels/isa/avx2/gemm.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// u8 x s8 quads summed exactly into 32 bits.
struct DotOfBytes : IntLanes {
  static constexpr int kKr = 4, kGroupBytesA = 4, kGroupBytesB = 4;
  static NIBBLE_INLINE __m256i step(__m256i acc, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(acc, a, b); }
};

/// Pairs of 16-bit products, sums modulo 2^32.
struct DotOfPairs : IntLanes {
  static constexpr int kKr = 2, kGroupBytesA = 4, kGroupBytesB = 4;
  static NIBBLE_INLINE __m256i step(__m256i acc, __m256i a, __m256i b) { return _mm256_dpwssd_avx_epi32(acc, a, b); }
};

/// One kernel serves all code widths: the dot product is as fast for 4-bit codes as for bytes.
constexpr GemmInt dot_gemm() {
  GemmInt g = quad_gemm<DotOfBytes, Words, kMr, kNv>();
  g.run_gathered = run_gathered<DotOfBytes, kMr, kNv>;
  return g;
}

constexpr Table kProducts = {
    .u8s8 = dot_gemm(),
    .u8s4 = dot_gemm(),
    .u4s4 = dot_gemm(),
    .u6s7 = dot_gemm(),
    .s16s14 = pair_gemm<GemmWide, DotOfPairs, Words, kMr, kNv>(),
    .bf16_gemm = float_gemm<bf16, FloatFma, Words, kMr, kNv>(),
    .f32_gemm = float_gemm<float, FloatFma, Words, kMr, kNv>(),
    .ew = {},
    .probe = nullptr,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
