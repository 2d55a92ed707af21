// The element-wise kernels of one ISA level, written once (contract: struct Elementwise in ops/kernels/table.hpp).
//
// A level's table.cpp includes this file at global scope, once, before any other use of xsimd:
//   #define NIBBLE_KERNEL_LEVEL avx2  // the namespace nibble::kernels::avx2
//   #define NIBBLE_KERNEL_LANES 8     // 1: plain C++ (scalar); 8: avx2, avxvnni; 16: avx512, avx512vnni,
//                                     // avx512bf16, amx
//   #include "ops/kernels/generic/elementwise.inl.hpp"
// (or inherited_elementwise.inl.hpp, which does) and then puts kElementwise into its table (`with_elementwise`). All
// names are in an anonymous namespace inside the level's namespace; nothing here may be an inline function or a
// template instance that another level could share, because the linker keeps one copy and would run one level's
// instructions on another level's CPU.
//
// Same bits on every level: each lane computes exactly what the scalar level computes for that channel. Products and
// sums are rounded one by one (-ffp-contract=off is required), sums go down the rows, and these cases are pinned down:
//   - max(v, 0) is +0 for v = -0 and for NaN, so a code of NaN is 0 and z of NaN is +0;
//   - relu'(v) = 0 gives g = +0 whatever the gradient is, and holds for v = NaN;
//   - the quantizer's derivative is 0 for NaN; the clip class of NaN is 0; no `through` and no `direct` gradient at all
//   gives g = +0;
//   - quantize_weights gives -top for NaN;
//   - max_rows replaces the best row only by a greater one: a NaN stays if it comes first and never wins later;
//     denormals count as zero and come out as zero of their sign.
// A NaN that arithmetic passes on stays a NaN; which one it is (sign, payload) is the hardware's choice.
#pragma once
#include "ops/kernels/generic/elementwise_affine.inl.hpp"
#include "ops/kernels/generic/elementwise_codes.inl.hpp"
#include "ops/kernels/generic/elementwise_training.inl.hpp"
#include "ops/kernels/generic/elementwise_weights.inl.hpp"
#include "ops/kernels/generic/elementwise_winograd_gradients.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

constexpr Elementwise kElementwise = {
    .affine_quantize_s32 = affine_quantize<int32_t>,
    .affine_bf16_s32 = affine_bf16<int32_t>,
    .affine_add_relu_bf16_s32 = affine_add_relu_bf16<int32_t>,
    .affine_f32_s32 = affine_f32<int32_t>,
    .affine_quantize_f32 = affine_quantize<float>,
    .affine_bf16_f32 = affine_bf16<float>,
    .affine_add_relu_bf16_f32 = affine_add_relu_bf16<float>,
    .affine_f32_f32 = affine_f32<float>,
    .rescale_stats_s32 = rescale_stats<int32_t>,
    .rescale_stats_f32 = rescale_stats<float>,
    .normalise_activate = normalise_activate,
    .quantize_bf16 = quantize_bf16,
    .dequantize_bf16 = dequantize_bf16,
    .activate_backward = activate_backward,
    .norm_backward_sums = norm_backward_sums,
    .norm_backward_apply = norm_backward_apply,
    .scale_bf16_f32 = scale_bf16_f32,
    .publish = publish,
    .add_bf16 = add_bf16,
    .max_rows_bf16 = max_rows_bf16,
    .max_rows_u8 = max_rows_u8,
    .max_rows_backward_bf16 = max_rows_backward_bf16,
    .sum_rows_bf16 = sum_rows_bf16,
    .winograd_input = winograd_input,
    .winograd_input_wide = winograd_input_wide,
    .winograd_output = winograd_output,
    .winograd_input_4x4 = winograd_input_4x4,
    .winograd_output_4x4 = winograd_output_4x4,
    .f2x2 = kGradientTransforms<2>,
    .f4x4 = kGradientTransforms<4>,
    .pack_u4 = pack_u4,
    .unpack_u4 = unpack_u4,
    .pack_s4 = pack_s4,
    .unpack_s4 = unpack_s4,
    .multiply_u8 = multiply_u8,
    .f32_to_bf16 = f32_to_bf16,
    .bf16_to_f32 = bf16_to_f32,
    .s8_to_bf16 = s8_to_bf16,
    .absmax = absmax,
    .quantize_weights = quantize_weights,
    .sgd_step = sgd_step,
    .add_f32 = add_f32,
    .scale_rows_f32 = scale_rows_f32,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
