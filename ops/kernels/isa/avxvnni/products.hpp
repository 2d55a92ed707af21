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

// The dot product is as fast for 4-bit codes as for bytes, so all families of codes are the same kernel.
constexpr Table kProducts = {
    .u8s8 = quad_gemm<DotOfBytes, Words, kMr, kNv>(),
    .u8s4 = quad_gemm<DotOfBytes, Words, kMr, kNv>(),
    .u4s4 = quad_gemm<DotOfBytes, Words, kMr, kNv>(),
    .u6s7 = quad_gemm<DotOfBytes, Words, kMr, kNv>(),
    .bf16_gemm = float_gemm<bf16, FloatFma, Words, kMr, kNv>(),
    .f32_gemm = float_gemm<float, FloatFma, Words, kMr, kNv>(),
    .ew = {},
    .probe = nullptr,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
