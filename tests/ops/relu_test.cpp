// relu: values, gradients, the point zero, NaN.
#include "ops/relu.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

TEST_CASE("relu keeps what is positive, and its gradient passes there only") {
  for (const Shape& shape : {Shape{1}, Shape{8}, Shape{2, 5, 3, 7}}) {
    const GradcheckReport report =
        gradcheck({.arguments = {distinct_tensor(shape, 1)},
                   .op = [](Tape* t, const std::vector<Variable>& v) { return relu(t, v[0]); },
                   .reference =
                       [](const std::vector<Doubles>& x) {
                         Doubles y = x[0];
                         for (double& v : y) v = std::max(v, 0.0);
                         return y;
                       },
                   .roundings = 1});
    CHECK_MESSAGE(report.ok, report.message);
  }
}

TEST_CASE("relu of either zero is +0 with derivative 0, and NaN stays NaN") {
  Tensor x(DType::f32, {4}), g(DType::f32, {4});
  const float values[] = {0.0f, -0.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  std::copy_n(values, 4, x.data<float>());
  std::fill_n(g.data<float>(), 4, 1.0f);
  const Tensor y = relu_forward(x), d_x = relu_backward_x(g, y);
  CHECK(std::bit_cast<uint32_t>(y.data<float>()[0]) == 0u);
  CHECK(std::bit_cast<uint32_t>(y.data<float>()[1]) == 0u);
  CHECK(std::isnan(y.data<float>()[2]));
  CHECK(y.data<float>()[3] == values[3]);
  CHECK(d_x.data<float>()[0] == 0.0f);
  CHECK(d_x.data<float>()[1] == 0.0f);
  CHECK(d_x.data<float>()[2] == 1.0f);
  CHECK(d_x.data<float>()[3] == 1.0f);
}

TEST_CASE("relu names the operand that does not fit") {
  CHECK(error_of<DTypeError>([] { relu_forward(Tensor(DType::u8, {4})); }) ==
        "[relu] x is u8, but the generic ops compute in f32 only; convert it first");
  CHECK(error_of<ShapeError>([] { relu_backward_x(random_tensor({3}, 1), random_tensor({4}, 1)); }) ==
        "[relu] d_y has shape [3], but y's dimensions ask for [4]; pass a tensor of that shape");
}
