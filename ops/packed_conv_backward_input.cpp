// Gradient of the packed convolution's input: bf16 products with fp32 sums (DESIGN 2.4).
#include "ops/packed_conv.hpp"
#include "ops/packed_source.hpp"
#include "ops/plane_gemm.hpp"

namespace nibble {

std::vector<float> y_gradient_scale(const LayerWeights& layer) {
  std::vector<float> inverse;
  for (float s : layer.scale) inverse.push_back(1.0f / s);
  return inverse;
}

Tensor packed_conv_backward_input(const LayerWeights& layer, const Tensor& d_y, const Shape& x_shape) {
  Zone zone("conv backward, input", layer.name);
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
  zone.count([&] {
    int64_t bytes = stored_bytes(d_y) + stored_bytes(d_x);
    for (const Panels& p : layer.backward) bytes += stored_bytes(p.storage);
    return ZoneWork{.macs = s.macs(), .unit = MacUnit::kBf16, .bytes = bytes};
  });
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
    // Neighbours of a grid row are `stride` pixels apart in d_x, so a run that leaves the row is cut.
    const auto epilogue = [&](int64_t, int64_t first, int64_t rows, int64_t column, int64_t n, const float* c,
                              int64_t ldc) {
      const float* factor = scale == nullptr ? nullptr : scale + column;
      for (int64_t run; rows > 0; rows -= run, first += run, c += run * ldc) {
        run = s.stride == 1 ? rows : std::min(rows, g.gw - first % g.gw);
        ew.scale_bf16_f32(c, ldc, run, n, factor, {d_x.row<bf16>(pixel(first)) + column, s.stride * d_x.stride()},
                          kernels::Into::kOverwrite);
      }
    };
    if (layer.float_gemm->run_strided != nullptr)
      plane_gemm<float, bf16>(*layer.float_gemm, {g, layer.backward_layouts[i], layer.backward[i], cut_by_shape(g)},
                              source, epilogue);
    else
      gather_gemm<float, bf16>(*layer.float_gemm, g, layer.backward[i], source,
                               [&](int64_t task, int64_t first, int64_t rows, const float* c, int64_t ldc) {
                                 epilogue(task, first, rows, 0, s.ic, c, ldc);
                               });
  }
  return d_x;
}

}  // namespace nibble
