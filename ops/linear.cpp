#include "ops/linear.hpp"

#include "ops/float_op.hpp"
#include "ops/matmul.hpp"

namespace nibble {

Tensor linear_forward(const Tensor& x, const Tensor& w, const Tensor& bias) {
  require_f32("linear", "x", x, 2);
  require_f32("linear", "w", w, 2);
  if (x.dim(1) != w.dim(1))
    throw ShapeError("[linear] x is {} and w is {}, but both must have the same number of columns; w is [out, in]",
                     x.shape().str(), w.shape().str());
  require_f32("linear", "bias", bias, {w.dim(0)}, "w's rows");
  Tensor y(DType::f32, {x.dim(0), w.dim(0)});
  multiply(matrix_of(x), matrix_of(w).transposed(), y.data<float>(), y.stride());
  const float* b = bias.data<float>();
  for (int64_t i = 0; i < y.dim(0); ++i) {
    float* row = y.row<float>(i);
    for (int64_t o = 0; o < y.dim(1); ++o) row[o] += b[o];
  }
  return y;
}

Tensor linear_backward_x(const Tensor& d_y, const Tensor& w) {
  require_f32("linear", "w", w, 2);
  require_f32("linear", "d_y", d_y, {d_y.dim(0), w.dim(0)}, "w's rows");
  Tensor d_x(DType::f32, {d_y.dim(0), w.dim(1)});
  multiply(matrix_of(d_y), matrix_of(w), d_x.data<float>(), d_x.stride());
  return d_x;
}

Tensor linear_backward_w(const Tensor& d_y, const Tensor& x) {
  require_f32("linear", "x", x, 2);
  require_f32("linear", "d_y", d_y, {x.dim(0), d_y.shape().back()}, "x's rows");
  Tensor d_w(DType::f32, {d_y.dim(1), x.dim(1)});
  multiply(matrix_of(d_y).transposed(), matrix_of(x), d_w.data<float>(), d_w.stride());
  return d_w;
}

Tensor linear_backward_bias(const Tensor& d_y) {
  require_f32("linear", "d_y", d_y, 2);
  Tensor d_bias(DType::f32, {d_y.dim(1)});
  for (int64_t o = 0; o < d_y.dim(1); ++o) {
    double sum = 0;
    for (int64_t i = 0; i < d_y.dim(0); ++i) sum += static_cast<double>(d_y.row<float>(i)[o]);
    d_bias.data<float>()[o] = static_cast<float>(sum);
  }
  return d_bias;
}

Variable linear(Tape* tape, const Variable& x, const Variable& w, const Variable& bias) {
  return taped(
      tape, linear_forward(x.value(), w.value(), bias.value()),
      [x, w, bias](const Tensor& d_y) {
        if (x.wants_grad()) x.accumulate(linear_backward_x(d_y, w.value()));
        if (w.wants_grad()) w.accumulate(linear_backward_w(d_y, x.value()));
        if (bias.wants_grad()) bias.accumulate(linear_backward_bias(d_y));
      },
      x, w, bias);
}

}  // namespace nibble
