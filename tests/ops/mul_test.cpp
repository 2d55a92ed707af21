// mul: values, gradients, errors.
#include "ops/mul.hpp"

#include <doctest/doctest.h>

#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

TEST_CASE("mul gives the product, and each side's gradient is scaled by the other side") {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 5}, Shape{2, 3, 3, 5}}) {
    const GradcheckReport report =
        gradcheck({.arguments = {random_tensor(shape, 1), random_tensor(shape, 2)},
                   .op = [](Tape* t, const std::vector<Variable>& v) { return mul(t, v[0], v[1]); },
                   .reference =
                       [](const std::vector<Doubles>& x) {
                         Doubles y = x[0];
                         for (size_t i = 0; i < y.size(); ++i) y[i] *= x[1][i];
                         return y;
                       },
                   .roundings = 4});
    CHECK_MESSAGE(report.ok, report.message);
  }
}

TEST_CASE("mul of a variable with itself has the gradient 2x") {
  const GradcheckReport report =
      gradcheck({.arguments = {random_tensor({9}, 3)},
                 .op = [](Tape* t, const std::vector<Variable>& v) { return mul(t, v[0], v[0]); },
                 .reference =
                     [](const std::vector<Doubles>& x) {
                       Doubles y = x[0];
                       for (double& v : y) v *= v;
                       return y;
                     },
                 .roundings = 4});
  CHECK_MESSAGE(report.ok, report.message);
}

TEST_CASE("mul names the shape that does not fit") {
  CHECK(error_of<ShapeError>([&] { mul_forward(random_tensor({4}, 1), random_tensor({5}, 1)); }) ==
        "[mul] b has shape [5], but a's dimensions ask for [4]; pass a tensor of that shape");
  CHECK(error_of<DTypeError>([&] { mul_forward(Tensor(DType::s8, {4}), random_tensor({4}, 1)); }) ==
        "[mul] a is s8, but the generic ops compute in f32 only; convert it first");
}
