// What the executor does with the accumulators of a unit: normalise, add the shortcut, ReLU, bf16, codes, logits.
#pragma once
#include "nn/runtime/executor.hpp"
#include "ops/accumulators.hpp"
#include "ops/activation_codes.hpp"
#include "ops/plane_gemm.hpp"

namespace nibble {

/// A value is read by conv1 and a projection at most, each with bits and signedness of its own.
inline constexpr size_t kMostQuantizers = 2;

/// Pixels of a map, of all images of a group or of the rows of one image that its window holds.
template <typename T>
struct Pixels {
  T* data = nullptr;
  int64_t first = 0;  // pixel at data
  int64_t stride = 0;

  T* at(int64_t pixel) const { return data + (pixel - first) * stride; }
  explicit operator bool() const { return data != nullptr; }
};

/// The epilogue of one unit: accumulators of a block of output pixels become what the consumers read.
struct Epilogue {
  const UnitSpec& unit;
  const ServedLayer& layer;
  const ExecutionPlan::Step& step;
  const kernels::Elementwise& ew;
  Pixels<bf16> plain{};
  Pixels<const bf16> shortcut{};
  float* logits = nullptr;
  struct Codes {
    const ActivationQuantizer* quantizer = nullptr;
    Pixels<uint8_t> to{};
  };
  Codes codes[kMostQuantizers] = {};
  size_t code_count = 0;

  /// Rows [first, first + rows) of columns [c0, c0 + n). The shortcut of the following block is prefetched row by row:
  /// its rows lie far apart, and the map of a stage need not fit L2.
  template <typename Acc>
  void operator()(int64_t, int64_t first, int64_t rows, int64_t c0, int64_t n, const Acc* c, int64_t ldc,
                  NextBlock next = {}) const {
    const float *m = layer.affine.m.data() + c0, *a = layer.affine.a.data() + c0;
    if (logits != nullptr) {
      const kernels::Rows<float> out{logits + first * unit.shape.oc + c0, unit.shape.oc};
      kernel_for(c, ew.affine_f32_s32, ew.affine_f32_f32)(c, ldc, rows, n, m, a, out);
      return;
    }
    if (!unit.relu) {
      const kernels::Rows<bf16> out{plain.at(first) + c0, plain.stride};
      const bf16* const next_out = next.point < 0 ? nullptr : plain.at(next.point) + next.column;
      kernel_for(c, ew.affine_bf16_s32, ew.affine_bf16_f32)(c, ldc, rows, n, m, a, out, next_out);
      return;
    }
    if (!step.rounded && code_count > 0) {
      kernels::UnsignedQuantizer q = codes[0].quantizer->kernel();
      q.scale += c0;
      const kernels::Rows<uint8_t> out{codes[0].to.at(first) + c0, codes[0].to.stride};
      kernel_for(c, ew.affine_quantize_s32, ew.affine_quantize_f32)(c, ldc, rows, n, m, a, q, out);
      return;
    }
    // A block output: bf16, kept where something reads it, and codes from the rounded value, in one pass unless these
    // are several or signed.
    const bool coded = code_count > 0;
    const bool one_pass = coded && code_count == 1 && !codes[0].quantizer->is_signed;
    Scratch scratch;
    kernels::AddReluArgs args;
    if (shortcut) args.shortcut = {shortcut.at(first) + c0, shortcut.stride};
    if (shortcut && next.point >= 0) args.next_shortcut = shortcut.at(next.point) + next.column;
    kernels::Rows<bf16>& z = args.out;
    if (plain)
      z = {plain.at(first) + c0, plain.stride};
    else if (!one_pass)
      z = {scratch.get<bf16>(static_cast<size_t>(rows * round_up(n, 32))), round_up(n, 32)};
    if (one_pass) {
      args.quantizer = codes[0].quantizer->kernel();
      args.quantizer.scale += c0;
      args.codes = {codes[0].to.at(first) + c0, codes[0].to.stride};
      if (next.point >= 0) args.next_codes = codes[0].to.at(next.point) + next.column;
    }
    kernel_for(c, ew.affine_add_relu_bf16_s32, ew.affine_add_relu_bf16_f32)(c, ldc, rows, n, m, a, args);
    if (one_pass || !coded) return;
    for (size_t i = 0; i < code_count; ++i)
      quantize_block(*codes[i].quantizer, z, rows, c0, n, {codes[i].to.at(first) + c0, codes[i].to.stride});
  }

  /// Codes of channels [c0, c0 + n).
  static void quantize_block(const ActivationQuantizer& q, const kernels::Rows<bf16>& z, int64_t rows, int64_t c0,
                             int64_t n, const kernels::Rows<uint8_t>& to) {
    const kernels::Rows<const bf16> from{z.data, z.stride};
    if (q.is_signed) {
      quantize_signed_rows(from, rows, c0, n, q, to);
      return;
    }
    kernels::UnsignedQuantizer part = q.kernel();
    part.scale += c0;
    kernels::active().ew.quantize_bf16(from, rows, n, part, to);
  }
};

}  // namespace nibble
