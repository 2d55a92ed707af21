// Gradients of the packed convolution: bf16 products with fp32 sums (DESIGN 2.4).
#include "engine/profiler.hpp"
#include "ops/packed_conv.hpp"
#include "ops/packed_source.hpp"

namespace nibble {

namespace {

/// Pointers to the rows behind one kernel position, advanced to channel `m0`.
template <typename T>
void advance(const T* const* from, int64_t count, int64_t m0, const T** to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] + m0;
}

/// Accumulates d_w[tap][channel][o] over one chunk of grid rows: left operand = source rows transposed, right = d_y.
template <typename T, typename PackA>
void accumulate_chunk(const kernels::GemmFloat<bf16>& gemm, const Gather& g, const SourceRows<T>& rows_from, int64_t k,
                      int64_t first, int64_t points, const Panels& d_y, const PackA& pack_a, float* out,
                      int64_t rows_per_tap) {
  Scratch scratch;
  const T** pointers = scratch.get<const T*>(static_cast<size_t>(points) * g.taps.size());
  point_rows(g, rows_from, first, points, pointers);
  constexpr int64_t kPanelsPerTask = 4;
  const int64_t m_panels = rows_per_tap / gemm.mr, groups = (m_panels + kPanelsPerTask - 1) / kPanelsPerTask;
  const int64_t depth = round_up(points, gemm.kr);
  const int64_t a_panel_bytes = round_up(gemm.mr * depth * gemm.a_bytes, static_cast<int64_t>(kAlignment));
  parallel_for(static_cast<int64_t>(g.taps.size()) * groups, [&](int64_t job) {
    const int64_t tap = job / groups, p0 = job % groups * kPanelsPerTask;
    const int64_t panels = std::min(kPanelsPerTask, m_panels - p0);
    Scratch local;
    auto* a = local.get<std::byte>(static_cast<size_t>(panels * a_panel_bytes));
    const T** shifted = local.get<const T*>(static_cast<size_t>(points));
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t m0 = (p0 + p) * gemm.mr;
      advance(pointers + tap * points, points, m0, shifted);
      pack_a(shifted, static_cast<int>(points), static_cast<int>(std::min<int64_t>(gemm.mr, k - m0)),
             a + p * a_panel_bytes);
    }
    float* c = out + (tap * rows_per_tap + p0 * gemm.mr) * d_y.padded_columns();
    for (int64_t n = 0; n < d_y.count(); ++n)
      gemm.run(static_cast<int>(depth), static_cast<int>(panels), a, a_panel_bytes, d_y.panel(n), c + n * gemm.nr,
               d_y.padded_columns(), kernels::Into::kAccumulate);
  });
}

/// Signed image codes as bf16 (code - 128 is exact); the padded image already holds 128 in its rim.
Tensor signed_codes(const Tensor& x) {
  Tensor out(DType::bf16, x.shape(), x.stride());
  const uint8_t* from = x.data<uint8_t>();
  bf16* to = out.data<bf16>();
  const int64_t per_image = x.dim(1) * x.dim(2) * x.stride();
  parallel_for(x.dim(0), [&](int64_t i) {
    for (int64_t e = i * per_image; e < (i + 1) * per_image; ++e)
      to[e] = to_bf16(static_cast<float>(from[e] - kSignedOffset));
  });
  return out;
}

/// d_weights[o][tap][c] += column[o] * row[c] * sum[tap][c][o]; the two scales may be null (1).
void scale_transposed(const float* sum, int64_t rows_per_tap, int64_t ld, int64_t taps, int64_t k, const float* column,
                      const std::vector<float>& row, const Tensor& d_weights) {
  constexpr int64_t kBlock = 16;  // 16 outputs: one line of `sum` feeds 16 streams of d_weights
  const int64_t oc = d_weights.dim(0);
  parallel_for((oc + kBlock - 1) / kBlock, [&](int64_t b) {
    const int64_t o0 = b * kBlock, o1 = std::min(oc, o0 + kBlock);
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t c = 0; c < k; ++c) {
        const float* from = sum + (t * rows_per_tap + c) * ld;
        const float r = row.empty() ? 1.0f : row[static_cast<size_t>(c)];
        for (int64_t o = o0; o < o1; ++o)
          d_weights.data<float>()[(o * taps + t) * k + c] += (column != nullptr ? column[o] * r : r) * from[o];
      }
    }
  });
}

}  // namespace

namespace {

void check_gradient(const LayerWeights& layer, const ConvShape& s, const Tensor& d_y) {
  if (d_y.shape() != Shape{s.n, s.oh(), s.ow(), s.oc})
    throw ShapeError("[conv] {} makes [{},{},{},{}], but its gradient is {}", layer.name, s.n, s.oh(), s.ow(), s.oc,
                     d_y.shape().str());
}

}  // namespace

std::vector<float> y_gradient_scale(const LayerWeights& layer) {
  std::vector<float> inverse;
  for (float s : layer.scale) inverse.push_back(1.0f / s);
  return inverse;
}

Tensor packed_conv_backward_input(const LayerWeights& layer, const Tensor& d_y, const Shape& x_shape) {
  const Zone zone("conv backward, input");
  ConvShape s = layer.shape;
  s.n = x_shape[0];
  if (x_shape != Shape{s.n, s.h, s.w, s.ic})
    throw ShapeError("[conv] {} reads [n,{},{},{}], but the gradient of {} is wanted", layer.name, s.h, s.w, s.ic,
                     x_shape.str());
  check_gradient(layer, s, d_y);
  if (layer.gradient_classes.empty())
    throw ShapeError("[conv] {} has no panels for the gradient of its input; prepare it with kForwardAndBackward",
                     layer.name);
  Tensor d_x(DType::bf16, x_shape, Tensor::round_stride(DType::bf16, s.ic));
  std::vector<float> inverse_fold;
  if (layer.quantizer != nullptr)
    for (float f : layer.quantizer->fold) inverse_fold.push_back(1.0f / f);
  const float* scale = inverse_fold.empty() ? nullptr : inverse_fold.data();
  const auto& ew = kernels::active().ew;
  for (size_t i = 0; i < layer.gradient_classes.size(); ++i) {
    const InputGradientClass& phase = layer.gradient_classes[i];
    Gather g = phase.gather;
    g.n = d_y.dim(0);
    // Grid point -> input pixel; a class without taps (stride larger than the kernel) has a zero gradient.
    const auto pixel = [&](int64_t point) {
      const int64_t j = point % g.gw, row = point / g.gw, y = row % g.gh * s.stride + phase.row_phase;
      return (row / g.gh * s.h + y) * s.w + j * s.stride + phase.column_phase;
    };
    if (g.taps.empty()) {
      parallel_for(g.n * g.gh, [&](int64_t row) {
        for (int64_t j = 0; j < g.gw; ++j) std::fill_n(d_x.row<bf16>(pixel(row * g.gw + j)), s.ic, bf16{});
      });
      continue;
    }
    const Bf16Source source(d_y, g);
    gather_gemm<float, bf16>(*layer.float_gemm, g, layer.backward[i], source,
                             [&](int64_t, int64_t first, int64_t rows, const float* c, int64_t ldc) {
                               if (s.stride == 1) {
                                 ew.scale_bf16_f32(c, ldc, rows, s.ic, scale, {d_x.row<bf16>(first), d_x.stride()},
                                                   kernels::Into::kOverwrite);
                                 return;
                               }
                               for (int64_t r = 0; r < rows; ++r)
                                 ew.scale_bf16_f32(c + r * ldc, ldc, 1, s.ic, scale,
                                                   {d_x.row<bf16>(pixel(first + r)), d_x.stride()},
                                                   kernels::Into::kOverwrite);
                             });
  }
  return d_x;
}

void packed_conv_backward_weights(const LayerWeights& layer, const Tensor& x, const Tensor& d_y,
                                  const Tensor& d_weights) {
  const Zone zone("conv backward, weights");
  const ConvShape s = shape_with_batch(layer, x);
  check_gradient(layer, s, d_y);
  const kernels::GemmFloat<bf16>& gemm = *layer.float_gemm;
  const Gather g = layer.row_folded ? row_folded_gather(s) : forward_gather(s);
  const int64_t k = layer.row_folded ? s.kw * s.ic : s.ic, taps = static_cast<int64_t>(g.taps.size());
  const int64_t rows_per_tap = round_up(k, gemm.mr), ld = round_up(s.oc, gemm.nr);
  const Tensor sum = Tensor::zeros(DType::f32, {taps * rows_per_tap, ld});

  const bool signed_input = layer.quantizer != nullptr && layer.quantizer->is_signed;
  const Tensor x_bf16 = x.dtype() == DType::bf16 ? x : signed_input ? signed_codes(x) : Tensor();
  // Codes without the shift: x_hat = code / s_c whatever the multiplier saw.
  const int64_t per = grid_rows_per_task(g), all = g.n * g.gh;
  const std::vector<Tap> one_tap(1);
  for (int64_t g0 = 0; g0 < all; g0 += per) {
    const int64_t g1 = std::min(all, g0 + per), first = g0 * g.gw, points = (g1 - g0) * g.gw;
    const Panels right = pack_panels(gemm, d_y.row<bf16>(first), one_tap, 0, d_y.stride(), 1, points, s.oc);
    Scratch scratch;
    const RowRange range = source_rows(g, g0, g1);
    if (x_bf16.defined()) {
      const Bf16Source source(x_bf16, g);
      accumulate_chunk(gemm, g, source(scratch, range), k, first, points, right, gemm.pack_a_transposed,
                       sum.data<float>(), rows_per_tap);
    } else {
      const CodeSource source(x, nullptr, g);
      accumulate_chunk(gemm, g, source(scratch, range), k, first, points, right, gemm.pack_a_transposed_u8,
                       sum.data<float>(), rows_per_tap);
    }
  }
  std::vector<float> inverse_input;
  if (layer.quantizer != nullptr)
    for (int64_t c = 0; c < k; ++c)
      inverse_input.push_back(1.0f / layer.quantizer->scale[static_cast<size_t>(c % s.ic)]);
  scale_transposed(sum.data<float>(), rows_per_tap, ld, taps, k, layer.scale.empty() ? nullptr : layer.scale.data(),
                   inverse_input, d_weights);
}

}  // namespace nibble
