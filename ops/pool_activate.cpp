#include "ops/pool_activate.hpp"

#include "ops/activation_codes.hpp"
#include "ops/row_blocks.hpp"

namespace nibble {

namespace {

constexpr int64_t kLargestWindow = PoolShape::kLargestWindow, kMostTaps = PoolShape::kMostTaps;

/// Packs, quantizes or measures what a pool produced.
Activated finish(Tape* tape, const Tensor& pooled, const PoolActivateArgs& args) {
  const int64_t c = pooled.shape().back();
  if (args.channel_max != nullptr) {
    const int64_t tasks = row_tasks(pooled.rows());
    const Tensor maxima = Tensor::zeros(DType::f32, {tasks, c});  // of what ReLU leaves
    row_blocks(pooled.rows(), [&](int64_t task, int64_t first, int64_t rows) {
      float* const largest = maxima.row<float>(task);
      for (int64_t r = first; r < first + rows; ++r)
        for (int64_t i = 0; i < c; ++i) largest[i] = std::max(largest[i], to_float(pooled.row<bf16>(r)[i]));
    });
    merge_maxima(maxima, tasks, c, args.channel_max);
  }
  const Grad grad = tape != nullptr ? Grad::kWanted : Grad::kNone;
  Activated out;
  out.z = Variable(pooled, grad);
  if (args.quantizer != nullptr) {
    const Tensor codes = quantize_tensor(pooled, *args.quantizer);
    out.codes = Variable(args.dequantize ? dequantize_tensor(codes, *args.quantizer) : codes, grad);
  }
  return out;
}

Tensor pooled_gradient(const Activated& out, const ActivationQuantizer* quantizer) {
  return combine_gradients(out.z.value(), out.codes.defined() ? out.codes.grad() : Tensor(), out.z.grad(), quantizer);
}

/// Gradient of the input of a max pool: every input pixel collects from the windows in which it was the first largest.
class MaxPoolGradient {
 public:
  MaxPoolGradient(Tensor d_pooled, const Tensor& arg, const Shape& shape, const PoolShape& pool)
      : d_pooled_(std::move(d_pooled)),
        arg_(arg),
        shape_(shape),
        h_(shape[1]),
        w_(shape[2]),
        c_(shape[3]),
        pool_(pool) {}

  const Shape& shape() const { return shape_; }

  /// Of `count` pixels from `first` on.
  void rows(int64_t first, int64_t count, kernels::Rows<bf16> d_z) const {
    const auto& ew = kernels::active().ew;
    const int64_t oh = d_pooled_.dim(1), ow = d_pooled_.dim(2);
    for (int64_t pixel = first; pixel < first + count; ++pixel) {
      const int64_t image = pixel / w_ / h_, y = pixel / w_ % h_, x = pixel % w_;
      const bf16* g[kMostTaps];
      const uint8_t* winner[kMostTaps];
      uint8_t place[kMostTaps];
      int windows = 0;
      for (int64_t oy = first_window(y); oy <= std::min(oh - 1, last_window(y)); ++oy) {
        for (int64_t ox = first_window(x); ox <= std::min(ow - 1, last_window(x)); ++ox) {
          const int64_t at = (image * oh + oy) * ow + ox;
          g[windows] = d_pooled_.row<bf16>(at);
          winner[windows] = arg_.row<uint8_t>(at);
          place[windows++] = static_cast<uint8_t>((y - pool_.begin(oy)) * pool_.window + x - pool_.begin(ox));
        }
      }
      ew.max_rows_backward_bf16(g, winner, place, windows, c_, d_z.data + (pixel - first) * d_z.stride);
    }
  }

  /// Of what it reads.
  int64_t bytes() const { return stored_bytes(d_pooled_) + stored_bytes(arg_); }

 private:
  /// The windows along one side that hold pixel p.
  int64_t first_window(int64_t p) const {
    return std::max<int64_t>(0, (p + pool_.pad_before - pool_.window + pool_.stride) / pool_.stride);
  }
  int64_t last_window(int64_t p) const { return (p + pool_.pad_before) / pool_.stride; }

  Tensor d_pooled_, arg_;
  Shape shape_;
  int64_t h_, w_, c_;
  PoolShape pool_;
};

/// Where the gradient of z goes: to the next stage, a few pixels at a time, or to z as a whole.
void max_pool_backward(const MaxPoolGradient& gradient, const Variable& z, GradientStage* next) {
  Zone zone("max pool backward");
  const Shape& shape = gradient.shape();  // z itself may have been dropped
  const int64_t c = shape.back(), pixels = shape.rows(), stride = Tensor::round_stride(DType::bf16, c);
  zone.count([&] {  // what is handed over is not written
    return ZoneWork{.bytes = gradient.bytes() + (next == nullptr ? pixels * stride * int64_t{sizeof(bf16)} : 0)};
  });
  if (next == nullptr) {
    const Tensor d_z(DType::bf16, shape, stride);
    row_blocks(pixels, [&](int64_t, int64_t first, int64_t count) {
      gradient.rows(first, count, {d_z.row<bf16>(first), stride});
    });
    z.accumulate(d_z);
    return;
  }
  next->begin(row_tasks(pixels));
  row_blocks(pixels, [&](int64_t task, int64_t first, int64_t count) {
    Scratch scratch;
    const kernels::Rows<bf16> block{scratch.get<bf16>(static_cast<size_t>(count * stride)), stride};
    gradient.rows(first, count, block);
    next->take(task, {block.data, block.stride}, first, count);
  });
}

}  // namespace

Activated max_pool_activate(Tape* tape, const Variable& z, const PoolShape& pool, const PoolActivateArgs& args,
                            std::shared_ptr<GradientStage> next) {
  Zone zone("max pool");
  const Tensor& x = z.value();
  const int64_t n = x.dim(0), h = x.dim(1), w = x.dim(2), c = x.dim(3);
  if (pool.window > kLargestWindow)
    throw UnsupportedError("[max_pool] a window of {}x{} is larger than the {}x{} that this pool has; use max_pool",
                           pool.window, pool.window, kLargestWindow, kLargestWindow);
  pool.require_pads_below_window();
  if (!pool.fits(h) || !pool.fits(w))
    throw ShapeError("[max_pool] the {}x{} window does not fit the padded {}x{} image", pool.window, pool.window, h, w);
  const int64_t oh = pool.out(h), ow = pool.out(w);
  const Tensor pooled(DType::bf16, {n, oh, ow, c}, Tensor::round_stride(DType::bf16, c));
  const Tensor arg = tape != nullptr ? Tensor(DType::u8, {n, oh, ow, c}) : Tensor();
  zone.count([&] { return ZoneWork{.bytes = stored_bytes(x) + stored_bytes(pooled) + stored_bytes(arg)}; });
  const std::vector<bf16> outside(static_cast<size_t>(c), bf16{0xff80});  // -inf never wins
  parallel_for(n * oh, [&](int64_t row) {
    const int64_t image = row / oh, oy = row % oh;
    for (int64_t ox = 0; ox < ow; ++ox) {
      const bf16* taps[kMostTaps];
      int count = 0;
      for (int64_t y = pool.begin(oy); y < pool.begin(oy) + pool.window; ++y) {
        for (int64_t xx = pool.begin(ox); xx < pool.begin(ox) + pool.window; ++xx) {
          const bool inside = y >= 0 && y < h && xx >= 0 && xx < w;
          taps[count++] = inside ? x.row<bf16>((image * h + y) * w + xx) : outside.data();
        }
      }
      const int64_t at = row * ow + ox;
      kernels::active().ew.max_rows_bf16(taps, count, c, pooled.row<bf16>(at),
                                         arg.defined() ? arg.row<uint8_t>(at) : nullptr);
    }
  });
  const Activated out = finish(tape, pooled, args);
  if (tape != nullptr) {
    tape->record([z, out, arg, pool, quantizer = args.quantizer, shape = x.shape(), next = std::move(next)] {
      max_pool_backward({pooled_gradient(out, quantizer), arg, shape, pool}, z, next.get());
    });
  }
  return out;
}

void average_pixels(kernels::Rows<const bf16> z, int64_t pixels, int64_t channels, bf16* mean) {
  const float inverse = 1.0f / static_cast<float>(pixels);
  Scratch scratch;
  float* sum = scratch.get<float>(static_cast<size_t>(channels));
  kernels::active().ew.sum_rows_bf16(z, pixels, channels, sum);
  for (int64_t c = 0; c < channels; ++c) mean[c] = to_bf16(sum[c] * inverse);
}

Activated average_pool_activate(Tape* tape, const Variable& z, const PoolActivateArgs& args) {
  Zone zone("average pool");
  const Tensor& x = z.value();
  const int64_t n = x.dim(0), pixels = x.dim(1) * x.dim(2), c = x.dim(3);
  const Tensor pooled(DType::bf16, {n, 1, 1, c}, Tensor::round_stride(DType::bf16, c));
  zone.count([&] { return ZoneWork{.bytes = stored_bytes(x) + stored_bytes(pooled)}; });
  parallel_for(n, [&](int64_t i) {
    average_pixels({x.row<bf16>(i * pixels), x.stride()}, pixels, c, pooled.row<bf16>(i));
  });
  const Activated out = finish(tape, pooled, args);
  if (tape != nullptr) {
    // mean over pixels  =>  every pixel gets d / pixels
    tape->record([z, out, quantizer = args.quantizer, pixels, shape = x.shape()] {
      const float inverse = 1.0f / static_cast<float>(pixels);
      Zone backward("average pool backward");
      const Tensor d = pooled_gradient(out, quantizer);
      const int64_t channels = shape[3];
      const Tensor d_z(DType::bf16, shape, Tensor::round_stride(DType::bf16, channels));
      backward.count([&] { return ZoneWork{.bytes = stored_bytes(d) + stored_bytes(d_z)}; });
      parallel_for(shape[0], [&](int64_t i) {
        for (int64_t k = 0; k < channels; ++k)
          d_z.row<bf16>(i * pixels)[k] = to_bf16(to_float(d.row<bf16>(i)[k]) * inverse);
        for (int64_t p = 1; p < pixels; ++p)
          std::copy_n(d_z.row<bf16>(i * pixels), channels, d_z.row<bf16>(i * pixels + p));
      });
      z.accumulate(d_z);
    });
  }
  return out;
}

}  // namespace nibble
