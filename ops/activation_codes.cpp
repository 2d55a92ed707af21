#include "ops/activation_codes.hpp"

#include <algorithm>
#include <vector>

#include "ops/packed_conv.hpp"
#include "ops/row_blocks.hpp"

namespace nibble {

DType code_dtype(const ActivationQuantizer& q) {
  return q.bits == 4 && !q.is_signed ? DType::u4 : DType::u8;
}

Tensor new_codes(const Shape& shape, const ActivationQuantizer& q) {
  return Tensor(code_dtype(q), shape, code_stride(shape.back()));
}

namespace {

Tensor quantize_signed(const Tensor& x, const ActivationQuantizer& q) {
  const Tensor codes = new_codes(x.shape(), q);
  row_blocks(x.rows(), [&](int64_t, int64_t first, int64_t rows) {
    std::fill_n(codes.row<uint8_t>(first), rows * codes.stride(), kSignedOffset);
    quantize_signed_rows(bf16_rows(x, first), rows, 0, x.shape().back(), q,
                         {codes.row<uint8_t>(first), codes.stride()});
  });
  return codes;
}

/// Its clip rule: 1 inside, 0.5 exactly at the bound, 0 beyond (METHOD.md section 2). ReLU's derivative then applies to
/// the sum of both gradients.
Tensor signed_gradient(const Tensor& x, const Tensor& through, const Tensor& direct, const ActivationQuantizer& q) {
  const Tensor g = bf16_like(x);
  const int64_t c = x.shape().back();
  parallel_for(x.rows(), [&](int64_t r) {
    for (int64_t i = 0; i < c; ++i) {
      const float v = to_float(x.row<bf16>(r)[i]), t = v * q.scale[static_cast<size_t>(i)];
      const float slope = t > q.top() ? 0.0f : t == q.top() ? 0.5f : 1.0f;
      float sum = through.defined() ? to_float(through.row<bf16>(r)[i]) * slope : 0.0f;
      if (direct.defined()) sum += to_float(direct.row<bf16>(r)[i]);
      g.row<bf16>(r)[i] = to_bf16(v > 0 ? sum : 0.0f);
    }
  });
  return g;
}

}  // namespace

void quantize_signed_rows(kernels::Rows<const bf16> x, int64_t rows, int64_t first_channel, int64_t n,
                          const ActivationQuantizer& q, kernels::Rows<uint8_t> codes) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      const int code = q.signed_code(to_float(x.data[r * x.stride + i]), static_cast<size_t>(first_channel + i));
      codes.data[r * codes.stride + i] = static_cast<uint8_t>(code + kSignedOffset);
    }
  }
}

Tensor quantize_tensor(const Tensor& x, const ActivationQuantizer& q) {
  if (q.is_signed) return quantize_signed(x, q);
  const Tensor codes = new_codes(x.shape(), q);
  const int64_t c = x.shape().back();
  const auto& ew = kernels::active().ew;
  row_blocks(x.rows(), [&](int64_t, int64_t first, int64_t rows) {
    Scratch scratch;
    const CodeBlock block(codes, first, rows, scratch);
    ew.quantize_bf16(bf16_rows(x, first), rows, c, q.kernel(), block.bytes());
    block.store();
  });
  return codes;
}

Tensor dequantize_tensor(const Tensor& codes, const ActivationQuantizer& q) {
  const int64_t c = codes.shape().back();
  const Tensor out = bf16_like(codes);
  if (q.is_signed) {
    row_blocks(codes.rows(), [&](int64_t, int64_t first, int64_t rows) {
      for (int64_t r = first; r < first + rows; ++r)
        for (int64_t i = 0; i < c; ++i)
          out.row<bf16>(r)[i] =
              to_bf16(static_cast<float>(codes.row<uint8_t>(r)[i] - kSignedOffset) / q.scale[static_cast<size_t>(i)]);
    });
    return out;
  }
  const auto& ew = kernels::active().ew;
  row_blocks(codes.rows(), [&](int64_t, int64_t first, int64_t rows) {
    Scratch scratch;
    const uint8_t* from = codes.row<uint8_t>(first);
    if (bits_of(codes.dtype()) == 4) {
      uint8_t* block = scratch.get<uint8_t>(static_cast<size_t>(rows * codes.stride()));
      ew.unpack_u4(from, rows * codes.stride(), block);
      from = block;
    }
    ew.dequantize_bf16({from, codes.stride()}, rows, c, q.scale.data(), {out.row<bf16>(first), out.stride()});
  });
  return out;
}

Tensor combine_gradients(const Tensor& x, const Tensor& through_quantizer, const Tensor& direct,
                         const ActivationQuantizer* quantizer) {
  const int64_t c = x.shape().back();
  if (quantizer != nullptr && quantizer->is_signed) return signed_gradient(x, through_quantizer, direct, *quantizer);
  const std::vector<float> zero(static_cast<size_t>(c));
  const Tensor g = bf16_like(x);
  const auto& ew = kernels::active().ew;
  row_blocks(x.rows(), [&](int64_t, int64_t first, int64_t rows) {
    Scratch scratch;
    float* unused = scratch.get<float>(static_cast<size_t>(2 * c));
    std::fill_n(unused, 2 * c, 0.0f);
    ew.activate_backward({.rows = rows,
                          .n = c,
                          .y = bf16_rows(x, first),
                          .z = bf16_rows(x, first),
                          .through_quantizer = bf16_rows(through_quantizer, first),
                          .direct = bf16_rows(direct, first),
                          .quantizer = quantizer != nullptr ? quantizer->kernel() : kernels::UnsignedQuantizer{},
                          .mean = zero.data(),
                          .g = {g.row<bf16>(first), g.stride()},
                          .sum_g = unused,
                          .sum_g_centred = unused + c});
  });
  return g;
}

}  // namespace nibble
