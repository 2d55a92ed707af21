// The products of the AVX-512 level (F, BW, VL, DQ), for CPUs without a dot-product instruction.
#pragma once
#include "ops/kernels/isa/avx512/gemm.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

constexpr Table kProducts = {
    .u8s8 = pair_gemm<GemmInt, PairsOf16, Words, kMr, kNv>(),
    .u8s4 = byte_gemm<QuadsOf4Bit, Words, kMr, kNv, 8>(),
    .u4s4 = byte_gemm<QuadsOf4Bit, Words, kMr, kNv, 128>(),
    .u6s7 = byte_gemm<QuadsOf4Bit, Words, kMr, kNv, 4>(),
    .s16s14 = pair_gemm<GemmWide, PairsOf16, Words, kMr, kNv>(),
    .bf16_gemm = float_gemm<bf16, FloatFma, Words, kMr, kNv>(),
    .f32_gemm = float_gemm<float, FloatFma, Words, kMr, kNv>(),
    .ew = {},
    .probe = nullptr,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
