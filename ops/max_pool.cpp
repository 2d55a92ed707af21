#include "ops/max_pool.hpp"

#include <limits>

#include "ops/float_op.hpp"

namespace nibble {

namespace {

/// One window: best value and its pixel for each of the channels.
void pool_window(const float* image, const ConvShape& s, int64_t y0, int64_t x0, float* best, int32_t* winner) {
  bool first = true;
  for (int64_t y = std::max<int64_t>(0, y0); y < std::min(s.h, y0 + s.kh); ++y) {
    for (int64_t x = std::max<int64_t>(0, x0); x < std::min(s.w, x0 + s.kw); ++x) {
      const int64_t pixel = y * s.w + x;
      const float* from = image + pixel * s.ic;
      for (int64_t c = 0; c < s.ic; ++c) {
        // "not <=" lets a NaN in; the second test keeps the first NaN.
        if (!first && (from[c] <= best[c] || best[c] != best[c])) continue;
        best[c] = from[c];
        winner[c] = static_cast<int32_t>(pixel);
      }
      first = false;
    }
  }
}

}  // namespace

ConvShape max_pool_shape(const Shape& x, const PoolShape& pool) {
  if (x.rank() != 4) throw ShapeError("[max_pool] x has shape {}, but NHWC is needed; reshape it", x.str());
  const ConvShape s{.n = x[0],
                    .h = x[1],
                    .w = x[2],
                    .ic = x[3],
                    .oc = x[3],
                    .kh = pool.window,
                    .kw = pool.window,
                    .stride = pool.stride,
                    .pad_before = pool.pad_before,
                    .pad_after = pool.pad_after};
  s.check();
  pool.require_pads_below_window();
  if (s.h * s.w > std::numeric_limits<int32_t>::max())
    throw ShapeError("[max_pool] a {}x{} image has more pixels than 2^31 - 1; cut it into parts", s.h, s.w);
  return s;
}

MaxPooled max_pool_forward(const Tensor& x, const PoolShape& pool) {
  require_f32("max_pool", "x", x, 4);
  const ConvShape s = max_pool_shape(x.shape(), pool);
  const Shape out{s.n, s.oh(), s.ow(), s.ic};
  MaxPooled pooled{Tensor(DType::f32, out), Tensor(DType::s32, out)};
  parallel_for(s.n, [&](int64_t i) {
    for (int64_t p = 0; p < s.oh(); ++p) {
      for (int64_t q = 0; q < s.ow(); ++q) {
        const int64_t row = (i * s.oh() + p) * s.ow() + q;
        pool_window(x.row<float>(i * s.h * s.w), s, p * s.stride - s.pad_before, q * s.stride - s.pad_before,
                    pooled.y.row<float>(row), pooled.winner.row<int32_t>(row));
      }
    }
  });
  return pooled;
}

Tensor max_pool_backward_x(const Tensor& d_y, const Tensor& winner, const Shape& x) {
  require_f32("max_pool", "d_y", d_y, winner.shape(), "the pooled dimensions");
  if (x.rank() != 4 || d_y.shape().rank() != 4 || x[0] != d_y.dim(0) || x[3] != d_y.dim(3))
    throw ShapeError("[max_pool] d_y is {}, but x is {}: images and channels differ; pass the shape that was pooled",
                     d_y.shape().str(), x.str());
  Tensor d_x = Tensor::zeros(DType::f32, x);
  const int64_t windows = d_y.dim(1) * d_y.dim(2), pixels = x[1] * x[2], channels = x[3];
  parallel_for(x[0], [&](int64_t i) {
    float* image = d_x.row<float>(i * pixels);
    for (int64_t row = i * windows; row < (i + 1) * windows; ++row) {
      const float* g = d_y.row<float>(row);
      const int32_t* won = winner.row<int32_t>(row);
      for (int64_t c = 0; c < channels; ++c) {
        if (won[c] < 0 || won[c] >= pixels)
          throw ShapeError("[max_pool] a winner is pixel {} of images with {}; pass the shape that was pooled", won[c],
                           pixels);
        image[won[c] * channels + c] += g[c];
      }
    }
  });
  return d_x;
}

Variable max_pool(Tape* tape, const Variable& x, const PoolShape& pool) {
  const MaxPooled pooled = max_pool_forward(x.value(), pool);
  return taped(
      tape, pooled.y,
      [x, winner = pooled.winner](const Tensor& d_y) { x.accumulate(max_pool_backward_x(d_y, winner, x.shape())); }, x);
}

}  // namespace nibble
