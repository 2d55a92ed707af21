// The products of the AMX level: tiles for codes and bf16; tiles have no product of fp32, which is that of AVX-512.
#pragma once
#include "ops/kernels/isa/amx/gemm.hpp"
#include "ops/kernels/isa/amx/weight_gradient.hpp"
#include "ops/kernels/isa/avx512/gemm.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

constexpr Table kProducts = {
    .u8s8 = tile_gemm_codes(),
    .u8s4 = tile_gemm_codes(),
    .u4s4 = tile_gemm_codes(),
    .u6s7 = tile_gemm_codes(),
    .bf16_gemm = tile_gemm_bf16(),
    .f32_gemm = float_gemm<float, FloatFma, Words, kMr, kNv>(),
    .weight_gradient = tile_weight_gradient(),
    .ew = {},
    .probe = probe_tiles,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
