// Gradient of the packed convolution's input: bf16 products with fp32 sums, for some 3x3 layers fewer ones in fp32, by
// Winograd (METHOD.md section 9).
#include "ops/packed_conv.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/gather_gemm.hpp"
#include "ops/image_gemm.hpp"
#include "ops/packed_conv_chunks.hpp"
#include "ops/packed_source.hpp"
#include "ops/plane_gemm.hpp"
#include "ops/winograd.hpp"

namespace nibble {

std::vector<float> y_gradient_scale(const LayerWeights& layer) {
  std::vector<float> inverse;
  for (float s : layer.scale) inverse.push_back(1.0f / s);
  return inverse;
}

bool hands_over_rows(const LayerWeights& layer) {
  const ConvShape& s = layer.shape;
  const bool single = s.kh == 1 && s.kw == 1 && s.pad_before == 0 && s.pad_after == 0;
  // One of 1x1 pixels, with pads and a stride, may have none with taps.
  return single || (layer.input_gradient.size() == 1 && !layer.input_gradient.front().pixels.gather.taps.empty());
}

namespace {

/// x = bf16(x + before) for some rows.
void add_rows(const Tensor& before, int64_t first, int64_t rows, kernels::Rows<bf16> x) {
  kernels::active().ew.add_bf16({before.row<bf16>(first), before.stride()}, {x.data, x.stride}, rows,
                                before.shape().back(), x);
}

/// The product of one class of input pixels: `to(task, grid point)` is where the gradient of a point goes (to.into),
/// and it and the points after it in its grid row are `to.stride` elements apart (`to.whole`: those of the next rows,
/// too), images `to.image_stride`. Where it streams (to.store), its end() publishes.
template <typename Source, typename Target>
void multiply_rows(const LayerWeights& layer, const LayerWeights::GradientOperand& operand, const Gather& g,
                   const PlaneCut& cut, const Source& source, const std::vector<float>& inverse_fold, Target& to) {
  const auto& ew = kernels::active().ew;
  const auto epilogue = [&](int64_t task, int64_t first, int64_t rows, int64_t column, int64_t n, const float* c,
                            int64_t ldc) {
    const float* factor = inverse_fold.empty() ? nullptr : inverse_fold.data() + column;
    for (int64_t run; rows > 0; rows -= run, first += run, c += run * ldc) {
      run = to.whole ? rows : std::min(rows, g.gw - first % g.gw);
      ew.scale_bf16_f32(c, ldc, run, n, factor, {to(task, first) + column, to.stride}, to.into, to.store);
    }
  };
  if (layer.gradient_gemm != nullptr)
    winograd::gather_gemm(*layer.gradient_gemm, {g, layer.gradient_edge}, operand.panels, source, epilogue, to);
  else if (layer.float_gemm->run_strided != nullptr && images_innermost(g))
    image_gemm<float, bf16>(
        *layer.float_gemm, g, operand.panels, source,
        [&](int64_t task, int64_t first, int64_t images, int64_t column, int64_t n, const float* c, int64_t ldc) {
          const float* factor = inverse_fold.empty() ? nullptr : inverse_fold.data() + column;
          ew.scale_bf16_f32(c, ldc, images, n, factor, {to(task, first) + column, to.image_stride}, to.into, to.store);
        },
        to);
  else if (layer.float_gemm->run_strided != nullptr)
    plane_gemm<float, bf16>(*layer.float_gemm, {g, operand.layout, operand.panels, cut}, source, epilogue, to);
  else
    gather_gemm<float, bf16>(
        *layer.float_gemm, g, operand.panels, source,
        [&](int64_t task, int64_t first, int64_t rows, const float* c, int64_t ldc) {
          epilogue(task, first, rows, 0, layer.shape.ic, c, ldc);
        },
        to);
}

template <typename Target>
void multiply_class(const LayerWeights& layer, const LayerWeights::GradientOperand& operand, const Tensor& d_y,
                    const std::vector<float>& inverse_fold, Target& to) {
  Gather g = operand.pixels.gather;
  g.n = d_y.dim(0);
  multiply_rows(layer, operand, g, cut_by_shape(g), Bf16Source(d_y, g), inverse_fold, to);
}

/// Input pixel of a grid point.
int64_t pixel_of(const ConvShape& s, const InputGradientClass& phase, int64_t point) {
  const Gather& g = phase.gather;
  const int64_t j = point % g.gw, row = point / g.gw, y = row % g.gh * s.stride + phase.row_phase;
  return (row / g.gh * s.h + y) * s.w + j * s.stride + phase.column_phase;
}

/// The pixels of every task's rows, in scratch, on their way to the next stage.
class TaskPixels {
 public:
  TaskPixels(GradientStage& next, int64_t channels, int64_t tasks)
      : next_(next), stride_(Tensor::round_stride(DType::bf16, channels)), parts_(static_cast<size_t>(tasks)) {
    next.begin(tasks);
  }
  int64_t stride() const { return stride_; }
  /// Pixels [first, end) of the task, which the caller fills.
  kernels::Rows<bf16> reserve(Scratch& scratch, int64_t task, int64_t first, int64_t end) {
    bf16* const rows = scratch.get<bf16>(static_cast<size_t>((end - first) * stride_));
    parts_[static_cast<size_t>(task)] = {rows, first, end};
    return {rows, stride_};
  }
  bf16* pixel(int64_t task, int64_t at) const {
    const Part& part = parts_[static_cast<size_t>(task)];
    return part.rows + (at - part.first) * stride_;
  }
  /// On behalf of one or several tasks of `pixels` pixels each, of which `task` is the first.
  void hand_over(int64_t task, int64_t pixels) const {
    const Part& part = parts_[static_cast<size_t>(task)];
    for (int64_t at = part.first; at < part.end; at += pixels)
      next_.take(task++, {part.rows + (at - part.first) * stride_, stride_}, at, std::min(pixels, part.end - at));
  }

 private:
  struct Part {
    bf16* rows = nullptr;
    int64_t first = 0, end = 0;
  };
  GradientStage& next_;
  int64_t stride_;
  std::vector<Part> parts_;
};

/// Handed over: all pixels are grid points.
struct HandedOver {
  const Tensor& before;
  int64_t width, task_rows;  // of the map; grid rows of a task
  TaskPixels pixels;
  int64_t image_stride;
  static constexpr bool whole = true;
  static constexpr kernels::Into into = kernels::Into::kOverwrite;
  static constexpr kernels::Store store = kernels::Store::kCached;
  int64_t stride = pixels.stride();

  HandedOver(const Tensor& earlier, const Gather& g, TaskPixels&& rows)
      : before(earlier),
        width(g.gw),
        task_rows(grid_rows_per_task(g)),
        pixels(std::move(rows)),
        image_stride(g.gh * g.gw * pixels.stride()) {}

  bf16* operator()(int64_t task, int64_t point) const { return pixels.pixel(task, point); }
  void begin(Scratch& scratch, int64_t task, int64_t g0, int64_t g1) {
    pixels.reserve(scratch, task, g0 * width, g1 * width);
  }
  void end(int64_t task, int64_t g0, int64_t g1) const {
    if (before.defined())
      add_rows(before, g0 * width, (g1 - g0) * width, {pixels.pixel(task, g0 * width), pixels.stride()});
    pixels.hand_over(task, task_rows * width);
  }
};

/// Handed over by a strided 1x1 layer: what was there before, or zero; the product is added to the pixels it reads.
struct HandedOverAround {
  const Tensor& before;
  const ConvShape& s;
  const InputGradientClass& phase;
  TaskPixels pixels;
  static constexpr bool whole = false;
  static constexpr kernels::Into into = kernels::Into::kAccumulate;
  static constexpr kernels::Store store = kernels::Store::kCached;
  int64_t stride = s.stride * pixels.stride(), image_stride = s.h * s.w * pixels.stride();

  bf16* operator()(int64_t task, int64_t point) const { return pixels.pixel(task, pixel_of(s, phase, point)); }
  /// First pixel of the input rows that belong to a grid row.
  int64_t first_pixel(int64_t grid_row) const {
    const int64_t gh = phase.gather.gh;
    return (grid_row / gh * s.h + grid_row % gh * s.stride) * s.w;
  }
  void begin(Scratch& scratch, int64_t task, int64_t g0, int64_t g1) {
    const int64_t first = first_pixel(g0), last = first_pixel(g1);
    const kernels::Rows<bf16> rows = pixels.reserve(scratch, task, first, last);
    if (!before.defined()) {
      std::fill_n(rows.data, (last - first) * rows.stride, bf16{});
    } else if (before.stride() == rows.stride) {
      std::memcpy(rows.data, before.row<bf16>(first), static_cast<size_t>((last - first) * rows.stride) * sizeof(bf16));
    } else {
      for (int64_t p = first; p < last; ++p)
        std::copy_n(before.row<bf16>(p), s.ic, rows.data + (p - first) * rows.stride);
    }
  }
  void end(int64_t task, int64_t g0, int64_t g1) const { pixels.hand_over(task, first_pixel(g1) - first_pixel(g0)); }
};

/// Rows of the gradient where they stay.
struct Stored {
  const Tensor& before;
  const Tensor& d_x;
  int64_t width = d_x.dim(2);
  static constexpr bool whole = true;
  static constexpr kernels::Into into = kernels::Into::kOverwrite;
  int64_t stride = d_x.stride(), image_stride = d_x.dim(1) * width * stride;
  // What was there before is added at the end of each task, which reads it again.
  kernels::Store store = before.defined() ? kernels::Store::kCached : store_of(d_x);

  bf16* operator()(int64_t, int64_t point) const { return d_x.row<bf16>(point); }
  void begin(Scratch&, int64_t, int64_t, int64_t) const {}
  void end(int64_t, int64_t g0, int64_t g1) const {
    if (before.defined()) add_rows(before, g0 * width, (g1 - g0) * width, {d_x.row<bf16>(g0 * width), d_x.stride()});
    kernels::active().ew.publish();
  }
};

/// Every stride-th pixel of every stride-th row.
struct Scattered {
  const Tensor& d_x;
  const ConvShape& s;
  const InputGradientClass& phase;
  static constexpr bool whole = false;
  static constexpr kernels::Into into = kernels::Into::kOverwrite;
  int64_t stride, image_stride;
  kernels::Store store = store_of(d_x);

  Scattered(const Tensor& gradient, const ConvShape& shape, const InputGradientClass& pixels)
      : d_x(gradient),
        s(shape),
        phase(pixels),
        stride(shape.stride * gradient.stride()),
        image_stride(shape.h * shape.w * gradient.stride()) {}
  bf16* operator()(int64_t, int64_t point) const { return d_x.row<bf16>(pixel_of(s, phase, point)); }
  void begin(Scratch&, int64_t, int64_t, int64_t) const {}
  void end(int64_t, int64_t, int64_t) const { kernels::active().ew.publish(); }
  /// A class without taps (stride larger than the kernel).
  void clear() const {
    const Gather& g = phase.gather;
    parallel_for(d_x.dim(0) * g.gh, [&](int64_t row) {
      for (int64_t j = 0; j < g.gw; ++j) std::fill_n((*this)(0, row * g.gw + j), s.ic, bf16{});
    });
  }
};

/// Of the only class with taps of a layer that hands over rows.
const LayerWeights::GradientOperand& operand_with_taps(const LayerWeights& layer) {
  return *std::find_if(layer.input_gradient.begin(), layer.input_gradient.end(),
                       [](const LayerWeights::GradientOperand& o) { return !o.pixels.gather.taps.empty(); });
}

/// The gradient of a strided convolution, class by class.
void multiply_classes(const LayerWeights& layer, const Tensor& d_y, const std::vector<float>& inverse_fold,
                      const Tensor& before, const Tensor& d_x) {
  for (const LayerWeights::GradientOperand& operand : layer.input_gradient) {
    Scattered to(d_x, layer.shape, operand.pixels);
    if (operand.pixels.gather.taps.empty())
      to.clear();
    else
      multiply_class(layer, operand, d_y, inverse_fold, to);
  }
  if (!before.defined()) return;
  Zone zone("conv backward, add");
  zone.count([&] { return ZoneWork{.bytes = 2 * stored_bytes(d_x) + stored_bytes(before)}; });
  constexpr int64_t kRows = 64;
  const int64_t rows = d_x.rows();
  parallel_for(ceil_div(rows, kRows), [&](int64_t block) {
    const int64_t first = block * kRows;
    add_rows(before, first, std::min(kRows, rows - first), {d_x.row<bf16>(first), d_x.stride()});
  });
}

void check_before(const Tensor& before, const Shape& x_shape) {
  if (before.defined() && (before.shape() != x_shape || before.dtype() != DType::bf16))
    throw ShapeError("[conv] gradient {} does not add to {} {}", x_shape.str(), name_of(before.dtype()),
                     before.shape().str());
}

std::vector<float> inverse_fold_of(const LayerWeights& layer) {
  std::vector<float> inverse;
  if (layer.quantizer != nullptr)
    for (float f : layer.quantizer->fold) inverse.push_back(1.0f / f);
  return inverse;
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
  if (layer.input_gradient.empty())
    throw ShapeError("[conv] {} has no panels for the gradient of its input; prepare it with kForwardAndBackward",
                     layer.name);
  check_before(before, x_shape);
  if (next != nullptr && !hands_over_rows(layer))
    throw UsageError("[conv] {} makes its input's gradient in several passes; only the whole of it can be taken",
                     layer.name);
  const Tensor d_x = next == nullptr ? Tensor(DType::bf16, x_shape, Tensor::round_stride(DType::bf16, s.ic)) : Tensor();
  zone.count([&] {
    int64_t bytes = stored_bytes(d_y) + stored_bytes(d_x);
    if (next != nullptr || s.stride == 1) bytes += stored_bytes(before);  // otherwise it is added in a zone of its own
    for (const LayerWeights::GradientOperand& o : layer.input_gradient) bytes += stored_bytes(o.panels.storage);
    return ZoneWork{.macs = s.macs(), .unit = MacUnit::kBf16, .bytes = bytes};
  });
  const std::vector<float> inverse_fold = inverse_fold_of(layer);
  if (next != nullptr) {
    const LayerWeights::GradientOperand& operand = operand_with_taps(layer);
    Gather g = operand.pixels.gather;
    g.n = s.n;
    TaskPixels pixels(*next, s.ic, task_count(g));
    if (s.stride == 1) {
      HandedOver to(before, g, std::move(pixels));
      multiply_class(layer, operand, d_y, inverse_fold, to);
    } else {
      HandedOverAround to{before, s, operand.pixels, std::move(pixels)};
      multiply_class(layer, operand, d_y, inverse_fold, to);
    }
  } else if (s.stride == 1) {
    Stored to{before, d_x};
    multiply_class(layer, layer.input_gradient.front(), d_y, inverse_fold, to);
  } else {
    multiply_classes(layer, d_y, inverse_fold, before, d_x);
  }
  return d_x;
}

struct InputGradientChunks::Impl {
  const LayerWeights& layer;
  Gather gather;
  std::vector<float> inverse_fold;
  Tensor before, d_x;
  std::vector<bf16> pad;  // no tap is outside, but a few rows are copied into planes with rims
  std::unique_ptr<HandedOver> handed_over;
};

InputGradientChunks::InputGradientChunks(const LayerWeights& layer, const ConvShape& s, const Tensor& before,
                                         GradientStage* next) {
  check_before(before, {s.n, s.h, s.w, s.ic});
  impl_.reset(new Impl{.layer = layer,
                       .gather = layer.input_gradient.front().pixels.gather,
                       .inverse_fold = inverse_fold_of(layer),
                       .before = before,
                       .d_x = {},
                       .pad = std::vector<bf16>(static_cast<size_t>(Tensor::round_stride(DType::bf16, s.oc))),
                       .handed_over = nullptr});
  Impl& i = *impl_;
  i.gather.n = s.n;
  if (next != nullptr)
    i.handed_over.reset(new HandedOver(i.before, i.gather, TaskPixels(*next, s.ic, task_count(i.gather))));
  else
    i.d_x = Tensor(DType::bf16, {s.n, s.h, s.w, s.ic}, Tensor::round_stride(DType::bf16, s.ic));
}
InputGradientChunks::~InputGradientChunks() = default;

void InputGradientChunks::add(int64_t g0, int64_t g1, kernels::Rows<const bf16> d_y) const {
  const Impl& i = *impl_;
  Zone zone("conv backward, input", i.layer.name);
  const int64_t points = (g1 - g0) * i.gather.gw, ic = i.layer.shape.ic, oc = i.layer.shape.oc;
  zone.count([&] {
    int64_t bytes = points * (oc + (i.d_x.defined() ? ic : 0)) * int64_t{sizeof(bf16)};
    if (i.before.defined()) bytes += points * static_cast<int64_t>(i.before.row_bytes());
    if (g0 == 0)  // once a gradient
      for (const LayerWeights::GradientOperand& o : i.layer.input_gradient) bytes += stored_bytes(o.panels.storage);
    return ZoneWork{.macs = points * ic * oc, .unit = MacUnit::kBf16, .bytes = bytes};
  });
  const int64_t per = grid_rows_per_task(i.gather);
  const PlaneCut cut{.row_begin = g0,
                     .row_end = g1,
                     .row_parts = ceil_div(g1 - g0, per),
                     .rows_per_part = per,
                     .first_task = g0 / per};
  const auto source = [&](Scratch&, RowRange range) {
    return SourceRows<bf16>{.data = d_y.data + (range.begin - g0) * i.gather.gw * d_y.stride,
                            .first_row = range.begin,
                            .stride = d_y.stride,
                            .pad = i.pad.data()};
  };
  if (i.handed_over != nullptr) {
    multiply_rows(i.layer, i.layer.input_gradient.front(), i.gather, cut, source, i.inverse_fold, *i.handed_over);
  } else {
    Stored to{i.before, i.d_x};
    multiply_rows(i.layer, i.layer.input_gradient.front(), i.gather, cut, source, i.inverse_fold, to);
  }
}

Tensor InputGradientChunks::d_x() const {
  return impl_->d_x;
}

}  // namespace nibble
