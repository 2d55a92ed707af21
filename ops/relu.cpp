#include "ops/relu.hpp"

#include "ops/float_op.hpp"

namespace nibble {

Tensor relu_forward(const Tensor& x) {
  require_f32("relu", "x", x, 0);
  Tensor y(DType::f32, x.shape());
  const float* from = x.data<float>();
  float* to = y.data<float>();
  parallel_blocks(y.size(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = from[i] <= 0.0f ? 0.0f : from[i];
  });
  return y;
}

Tensor relu_backward_x(const Tensor& d_y, const Tensor& y) {
  require_f32("relu", "d_y", d_y, y.shape(), "y's dimensions");
  Tensor d_x(DType::f32, y.shape());
  const float *from = d_y.data<float>(), *mask = y.data<float>();
  float* to = d_x.data<float>();
  parallel_blocks(d_x.size(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = mask[i] <= 0.0f ? 0.0f : from[i];
  });
  return d_x;
}

Variable relu(Tape* tape, const Variable& x) {
  const Tensor y = relu_forward(x.value());
  return taped(
      tape, y, [x, y](const Tensor& d_y) { x.accumulate(relu_backward_x(d_y, y)); }, x);
}

}  // namespace nibble
