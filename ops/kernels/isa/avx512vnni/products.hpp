// The products of the AVX-512-VNNI level.
#pragma once
#include "ops/kernels/isa/avx512/gemm.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// u8 x s8 quads summed exactly into 32 bits.
struct DotOfBytes : IntLanes {
  static constexpr int kKr = 4, kGroupBytesA = 4, kGroupBytesB = 4;
  static NIBBLE_INLINE __m512i step(__m512i acc, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(acc, a, b); }
};

// One dot-product kernel serves all code widths. bf16 products convert and use FMA: the bf16 dot product has a CPUID
// bit of its own, which the first CPUs of this level lack.
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
