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

bool hands_over_rows(const LayerWeights& layer) {
  return layer.gradient_classes.size() == 1 && !layer.gradient_classes.front().gather.taps.empty();
}

namespace {

/// x = bf16(x + before) for some rows.
void add_rows(const Tensor& before, int64_t first, int64_t rows, kernels::Rows<bf16> x) {
  kernels::active().ew.add_bf16({before.row<bf16>(first), before.stride()}, {x.data, x.stride}, rows,
                                before.shape().back(), x);
}

/// The product of one class of input pixels: `to(task, grid point)` is where the gradient of a point goes, and it and
/// the points behind it in its grid row are `to.stride` elements apart (`to.whole`: those of the next rows, too).
template <typename Target>
void multiply_class(const LayerWeights& layer, size_t i, const Tensor& d_y, const std::vector<float>& inverse_fold,
                    Target& to) {
  Gather g = layer.gradient_classes[i].gather;
  g.n = d_y.dim(0);
  const auto& ew = kernels::active().ew;
  const Bf16Source source(d_y, g);
  const auto epilogue = [&](int64_t task, int64_t first, int64_t rows, int64_t column, int64_t n, const float* c,
                            int64_t ldc) {
    const float* factor = inverse_fold.empty() ? nullptr : inverse_fold.data() + column;
    for (int64_t run; rows > 0; rows -= run, first += run, c += run * ldc) {
      run = to.whole ? rows : std::min(rows, g.gw - first % g.gw);
      ew.scale_bf16_f32(c, ldc, run, n, factor, {to(task, first) + column, to.stride}, kernels::Into::kOverwrite);
    }
  };
  if (layer.float_gemm->run_strided != nullptr)
    plane_gemm<float, bf16>(*layer.float_gemm, {g, layer.backward_layouts[i], layer.backward[i], cut_by_shape(g)},
                            source, epilogue, to);
  else
    gather_gemm<float, bf16>(
        *layer.float_gemm, g, layer.backward[i], source,
        [&](int64_t task, int64_t first, int64_t rows, const float* c, int64_t ldc) {
          epilogue(task, first, rows, 0, layer.shape.ic, c, ldc);
        },
        to);
}

/// Rows of the gradient in scratch, from there to the next stage.
struct HandedOver {
  const Tensor& before;
  GradientStage& next;
  int64_t width, channels;                // points of a grid row
  std::vector<kernels::Rows<bf16>> rows;  // per task: its first row
  std::vector<int64_t> first;
  static constexpr bool whole = true;
  int64_t stride = Tensor::round_stride(DType::bf16, channels);

  bf16* operator()(int64_t task, int64_t point) const {
    const size_t t = static_cast<size_t>(task);
    return rows[t].data + (point - first[t]) * stride;
  }
  void begin(Scratch& scratch, int64_t task, int64_t g0, int64_t g1) {
    const size_t t = static_cast<size_t>(task);
    rows[t] = {scratch.get<bf16>(static_cast<size_t>((g1 - g0) * width * stride)), stride};
    first[t] = g0 * width;
  }
  void end(int64_t task, int64_t g0, int64_t g1) const {
    const int64_t at = g0 * width, count = (g1 - g0) * width;
    const kernels::Rows<bf16> mine = rows[static_cast<size_t>(task)];
    if (before.defined()) add_rows(before, at, count, mine);
    next.take(task, {mine.data, mine.stride}, at, count);
  }
};

/// Rows of the gradient where they stay.
struct Stored {
  const Tensor& before;
  const Tensor& d_x;
  int64_t width;
  static constexpr bool whole = true;
  int64_t stride = d_x.stride();

  bf16* operator()(int64_t, int64_t point) const { return d_x.row<bf16>(point); }
  void begin(Scratch&, int64_t, int64_t, int64_t) const {}
  void end(int64_t, int64_t g0, int64_t g1) const {
    if (before.defined()) add_rows(before, g0 * width, (g1 - g0) * width, {d_x.row<bf16>(g0 * width), d_x.stride()});
  }
};

/// Every stride-th pixel of every stride-th row.
struct Scattered : NothingMore {
  const Tensor& d_x;
  const ConvShape& s;
  const InputGradientClass& phase;
  static constexpr bool whole = false;
  int64_t stride;

  Scattered(const Tensor& gradient, const ConvShape& shape, const InputGradientClass& pixels)
      : d_x(gradient), s(shape), phase(pixels), stride(shape.stride * gradient.stride()) {}
  bf16* operator()(int64_t, int64_t point) const {
    const Gather& g = phase.gather;
    const int64_t j = point % g.gw, row = point / g.gw, y = row % g.gh * s.stride + phase.row_phase;
    return d_x.row<bf16>((row / g.gh * s.h + y) * s.w + j * s.stride + phase.column_phase);
  }
  /// A class without taps (stride larger than the kernel).
  void clear() const {
    const Gather& g = phase.gather;
    parallel_for(d_x.dim(0) * g.gh, [&](int64_t row) {
      for (int64_t j = 0; j < g.gw; ++j) std::fill_n((*this)(0, row * g.gw + j), s.ic, bf16{});
    });
  }
};

/// The gradient of a strided convolution, class by class.
void multiply_classes(const LayerWeights& layer, const Tensor& d_y, const std::vector<float>& inverse_fold,
                      const Tensor& before, const Tensor& d_x) {
  for (size_t i = 0; i < layer.gradient_classes.size(); ++i) {
    Scattered to(d_x, layer.shape, layer.gradient_classes[i]);
    if (layer.gradient_classes[i].gather.taps.empty())
      to.clear();
    else
      multiply_class(layer, i, d_y, inverse_fold, to);
  }
  if (!before.defined()) return;
  const Zone zone("conv backward, add");
  constexpr int64_t kRows = 64;
  const int64_t rows = d_x.rows();
  parallel_for((rows + kRows - 1) / kRows, [&](int64_t block) {
    const int64_t first = block * kRows;
    add_rows(before, first, std::min(kRows, rows - first), {d_x.row<bf16>(first), d_x.stride()});
  });
}

}  // namespace

Tensor packed_conv_backward_input(const LayerWeights& layer, const Tensor& d_y, const Shape& x_shape,
                                  const Tensor& before, GradientStage* next) {
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
  if (before.defined() && (before.shape() != x_shape || before.dtype() != DType::bf16))
    throw ShapeError("[conv] gradient {} does not add to {} {}", x_shape.str(), name_of(before.dtype()),
                     before.shape().str());
  if (next != nullptr && !hands_over_rows(layer))
    throw UsageError("[conv] {} makes its input's gradient in several passes; only the whole of it can be taken",
                     layer.name);
  const Tensor d_x = next == nullptr ? Tensor(DType::bf16, x_shape, Tensor::round_stride(DType::bf16, s.ic)) : Tensor();
  zone.count([&] {
    int64_t bytes = stored_bytes(d_y) + stored_bytes(d_x);
    for (const Panels& p : layer.backward) bytes += stored_bytes(p.storage);
    return ZoneWork{.macs = s.macs(), .unit = MacUnit::kBf16, .bytes = bytes};
  });
  std::vector<float> inverse_fold;
  if (layer.quantizer != nullptr)
    for (float f : layer.quantizer->fold) inverse_fold.push_back(1.0f / f);
  if (next != nullptr) {
    Gather g = layer.gradient_classes.front().gather;
    g.n = s.n;
    const size_t tasks = static_cast<size_t>(task_count(g));
    next->begin(task_count(g));
    HandedOver to{before, *next, s.w, s.ic, std::vector<kernels::Rows<bf16>>(tasks), std::vector<int64_t>(tasks)};
    multiply_class(layer, 0, d_y, inverse_fold, to);
  } else if (hands_over_rows(layer)) {
    Stored to{before, d_x, s.w};
    multiply_class(layer, 0, d_y, inverse_fold, to);
  } else {
    multiply_classes(layer, d_y, inverse_fold, before, d_x);
  }
  return d_x;
}

}  // namespace nibble
