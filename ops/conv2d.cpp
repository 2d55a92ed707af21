#include "ops/conv2d.hpp"

#include "ops/float_op.hpp"
#include "ops/gather_gemm.hpp"
#include "ops/matmul.hpp"

namespace nibble {

namespace {

/// The rows of a dense tensor as they lie, and a row of zeros for taps outside.
struct DenseRows {
  const Tensor& x;
  int64_t row_pixels;  // pixels of one source row
  std::vector<float> zeros;

  DenseRows(const Tensor& tensor, const Gather& g)
      : x(tensor), row_pixels(g.sw), zeros(static_cast<size_t>(round_up(tensor.stride(), 64)), 0.0f) {}
  SourceRows<float> operator()(Scratch&, RowRange range) const {
    return {.data = x.row<float>(range.begin * row_pixels),
            .first_row = range.begin,
            .stride = x.stride(),
            .pad = zeros.data()};
  }
};

Shape output_shape(const ConvShape& s) {
  return {s.n, s.oh(), s.ow(), s.oc};
}

}  // namespace

ConvShape conv2d_shape(const Shape& x, const Shape& w, const Conv2dArgs& args) {
  if (x.rank() != 4 || w.rank() != 4 || x[3] != w[3])
    throw ShapeError(
        "[conv2d] x is {} and w is {}, but NHWC and OHWI with equal last dimensions are needed; "
        "transpose or slice one",
        x.str(), w.str());
  const ConvShape s{.n = x[0],
                    .h = x[1],
                    .w = x[2],
                    .ic = x[3],
                    .oc = w[0],
                    .kh = w[1],
                    .kw = w[2],
                    .stride = args.stride,
                    .pad_before = args.pad_before,
                    .pad_after = args.pad_after};
  s.check();
  return s;
}

Tensor conv2d_forward(const Tensor& x, const Tensor& w, const Conv2dArgs& args) {
  require_f32("conv2d", "x", x, 4);
  require_f32("conv2d", "w", w, 4);
  const ConvShape s = conv2d_shape(x.shape(), w.shape(), args);
  const auto& gemm = kernels::active().f32_gemm;
  const Gather g = forward_gather(s);
  const Panels panels = pack_panels(
      gemm, PanelSource<float>{.data = w.data<float>(), .tap_stride = s.ic, .k_stride = 1, .n_stride = s.k()}, g.taps,
      s.ic, s.oc);
  Tensor y(DType::f32, output_shape(s));
  gather_gemm<float, float>(gemm, g, panels, DenseRows(x, g),
                            [&](int64_t, int64_t first, int64_t rows, const float* c, int64_t ldc) {
                              for (int64_t r = 0; r < rows; ++r)
                                std::copy_n(c + r * ldc, s.oc, y.row<float>(first + r));
                            });
  return y;
}

Tensor conv2d_backward_x(const Tensor& d_y, const Tensor& w, const Shape& x, const Conv2dArgs& args) {
  const ConvShape s = conv2d_shape(x, w.shape(), args);
  require_f32("conv2d", "d_y", d_y, output_shape(s), "x, w and the arguments");
  const auto& gemm = kernels::active().f32_gemm;
  Tensor d_x = Tensor::zeros(DType::f32, x);
  for (const InputGradientClass& phase : input_gradient_classes(s)) {
    const Gather& g = phase.gather;
    if (g.taps.empty()) continue;  // no output pixel read these input pixels
    const Panels panels = pack_panels(
        gemm, PanelSource<float>{.data = w.data<float>(), .tap_stride = s.ic, .k_stride = s.k(), .n_stride = 1}, g.taps,
        s.oc, s.ic);
    gather_gemm<float, float>(gemm, g, panels, DenseRows(d_y, g),
                              [&](int64_t, int64_t first, int64_t rows, const float* c, int64_t ldc) {
                                for (int64_t r = 0; r < rows; ++r) {
                                  const int64_t point = first + r, row = point / g.gw;
                                  const int64_t i = row % g.gh * s.stride + phase.row_phase;
                                  const int64_t j = point % g.gw * s.stride + phase.column_phase;
                                  std::copy_n(c + r * ldc, s.ic, d_x.row<float>((row / g.gh * s.h + i) * s.w + j));
                                }
                              });
  }
  return d_x;
}

Tensor conv2d_backward_w(const Tensor& d_y, const Tensor& x, const Shape& w, const Conv2dArgs& args) {
  require_f32("conv2d", "x", x, 4);
  const ConvShape s = conv2d_shape(x.shape(), w, args);
  require_f32("conv2d", "d_y", d_y, output_shape(s), "x, w and the arguments");
  Tensor d_w = Tensor::zeros(DType::f32, w);
  const int64_t points = s.out_pixels();
  if (points == 0) return d_w;
  const auto& gemm = kernels::active().f32_gemm;
  const Panels right = pack_right(matrix_of(d_y));
  const Gather g = forward_gather(s);
  const DenseRows source(x, g);
  Scratch shared;
  const SourceRows<float> rows_from = source(shared, {0, s.n * s.h});
  // Left operand of one tap: column = output pixel, row = input channel, so the product is d_w transposed.
  const int64_t block = round_up(kBlockRows, gemm.mr), blocks = ceil_div(s.ic, block);
  parallel_for(s.taps() * blocks, [&](int64_t job) {
    const int64_t tap = job / blocks, c0 = job % blocks * block, channels = std::min(block, s.ic - c0);
    Gather one = g;
    one.taps = {g.taps[static_cast<size_t>(tap)]};
    Scratch scratch;
    const float** pointers = scratch.get<const float*>(static_cast<size_t>(kChunkK + gemm.kr));
    float* c = scratch.get<float>(static_cast<size_t>(round_up(channels, gemm.mr) * right.padded_columns()));
    const auto left = [&](int64_t m0, int m, int64_t k0, int k, void* panel) {
      point_rows(one, rows_from, k0, k, pointers);
      for (int i = 0; i < k; ++i) pointers[i] += m0;
      gemm.pack_a_transposed(pointers, k, m, panel);
    };
    multiply_block(left, right, c0, channels, c);
    for (int64_t o = 0; o < s.oc; ++o)
      for (int64_t i = 0; i < channels; ++i)
        d_w.data<float>()[(o * s.taps() + tap) * s.ic + c0 + i] = c[i * right.padded_columns() + o];
  });
  return d_w;
}

Variable conv2d(Tape* tape, const Variable& x, const Variable& w, const Conv2dArgs& args) {
  return taped(
      tape, conv2d_forward(x.value(), w.value(), args),
      [x, w, args](const Tensor& d_y) {
        if (x.wants_grad()) x.accumulate(conv2d_backward_x(d_y, w.value(), x.shape(), args));
        if (w.wants_grad()) w.accumulate(conv2d_backward_w(d_y, x.value(), w.shape(), args));
      },
      x, w);
}

}  // namespace nibble
