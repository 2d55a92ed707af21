#include "ops/average_pool.hpp"

#include "ops/float_op.hpp"

namespace nibble {

Tensor average_pool_forward(const Tensor& x) {
  require_f32("average_pool", "x", x, 4);
  const int64_t pixels = x.dim(1) * x.dim(2), channels = x.dim(3);
  if (pixels == 0)
    throw ShapeError("[average_pool] x is {}, so an image has no pixel to average; pass at least one", x.shape().str());
  const float scale = 1.0f / static_cast<float>(pixels);
  Tensor y = Tensor::zeros(DType::f32, {x.dim(0), channels});
  parallel_for(x.dim(0), [&](int64_t i) {
    float* to = y.row<float>(i);
    for (int64_t p = 0; p < pixels; ++p) {
      const float* from = x.row<float>(i * pixels + p);
      for (int64_t c = 0; c < channels; ++c) to[c] += from[c];
    }
    for (int64_t c = 0; c < channels; ++c) to[c] *= scale;
  });
  return y;
}

Tensor average_pool_backward_x(const Tensor& d_y, const Shape& x) {
  if (x.rank() != 4) throw ShapeError("[average_pool] x has shape {}, but its rank must be 4; reshape it", x.str());
  require_f32("average_pool", "d_y", d_y, {x[0], x[3]}, "x's images and channels");
  const int64_t pixels = x[1] * x[2], channels = x[3];
  const float scale = 1.0f / static_cast<float>(pixels);
  Tensor d_x(DType::f32, x);
  parallel_for(x[0], [&](int64_t i) {
    const float* g = d_y.row<float>(i);
    for (int64_t p = 0; p < pixels; ++p) {
      float* to = d_x.row<float>(i * pixels + p);
      for (int64_t c = 0; c < channels; ++c) to[c] = g[c] * scale;
    }
  });
  return d_x;
}

Variable average_pool(Tape* tape, const Variable& x) {
  return taped(
      tape, average_pool_forward(x.value()),
      [x](const Tensor& d_y) { x.accumulate(average_pool_backward_x(d_y, x.shape())); }, x);
}

}  // namespace nibble
