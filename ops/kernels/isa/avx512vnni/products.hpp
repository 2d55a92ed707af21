// The products of the AVX-512-VNNI level.
#pragma once
#include "ops/kernels/isa/avx512/dot_products.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

// bf16 products convert and use FMA: the bf16 dot product has a CPUID bit and a level of its own (avx512bf16), which
// the first CPUs of this one lack.
constexpr Table kProducts = {
    .u8s8 = dot_gemm(),
    .u8s4 = dot_gemm(),
    .u4s4 = dot_gemm(),
    .u6s7 = dot_gemm(),
    .s16s14 = wide_gemm(),
    .bf16_gemm = float_gemm<bf16, FloatFma, Words, kMr, kNv>(),
    .f32_gemm = float_gemm<float, FloatFma, Words, kMr, kNv>(),
    .ew = {},
    .probe = nullptr,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
