#include "ops/mul.hpp"

#include "ops/float_op.hpp"

namespace nibble {

Tensor mul_forward(const Tensor& a, const Tensor& b) {
  require_f32("mul", "a", a, 0);
  require_f32("mul", "b", b, a.shape(), "a's dimensions");
  Tensor y(DType::f32, a.shape());
  const float *from_a = a.data<float>(), *from_b = b.data<float>();
  float* to = y.data<float>();
  parallel_blocks(y.size(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = from_a[i] * from_b[i];
  });
  return y;
}

Tensor mul_backward_a(const Tensor& d_y, const Tensor& b) {
  return mul_forward(d_y, b);
}

Tensor mul_backward_b(const Tensor& d_y, const Tensor& a) {
  return mul_forward(d_y, a);
}

Variable mul(Tape* tape, const Variable& a, const Variable& b) {
  return taped(
      tape, mul_forward(a.value(), b.value()),
      [a, b](const Tensor& d_y) {
        if (a.wants_grad()) a.accumulate(mul_backward_a(d_y, b.value()));
        if (b.wants_grad()) b.accumulate(mul_backward_b(d_y, a.value()));
      },
      a, b);
}

}  // namespace nibble
