// Activations as codes: a bf16 tensor quantized, codes back to bf16, and the gradient of what was quantized.
#pragma once
#include "engine/tensor.hpp"
#include "ops/kernels/table.hpp"
#include "ops/quantization.hpp"

namespace nibble {

/// What codes are stored as: u4, packed, for unsigned 4 bits, otherwise a byte each.
DType code_dtype(const ActivationQuantizer& q);
/// An unwritten tensor for the codes of activations of this shape.
Tensor new_codes(const Shape& shape, const ActivationQuantizer& q);

/// Codes of a non-negative bf16 tensor; packs nibbles for unsigned 4 bits. A signed quantizer (the published conv1 of
/// projection blocks) stores code + 128.
Tensor quantize_tensor(const Tensor& x, const ActivationQuantizer& q);
/// The signed form on rows of channels [first_channel, first_channel + n) of x >= 0: floor(min(x*s, Q) + 0.5) + 128.
/// Only a named quirk uses it, so it has no kernel of its own.
void quantize_signed_rows(kernels::Rows<const bf16> x, int64_t rows, int64_t first_channel, int64_t n,
                          const ActivationQuantizer& q, kernels::Rows<uint8_t> codes);
/// bf16(code / scale) of a code tensor.
Tensor dequantize_tensor(const Tensor& codes, const ActivationQuantizer& q);

/// Gradient of v, where x = max(v, 0) is a bf16 tensor that is read through a quantizer and directly:
/// (through_quantizer times the quantizer's derivative) + direct, and 0 where x is 0. Either may be undefined; without
/// a quantizer through_quantizer counts as it is.
Tensor combine_gradients(const Tensor& x, const Tensor& through_quantizer, const Tensor& direct,
                         const ActivationQuantizer* quantizer);

}  // namespace nibble
