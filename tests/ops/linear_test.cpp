// linear: values and gradients of x, w and bias, errors.
#include "ops/linear.hpp"

#include <doctest/doctest.h>

#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

struct LinearSize {
  int64_t n, in, out;
};

Doubles naive(const std::vector<Doubles>& x, LinearSize s) {
  Doubles y;
  for (int64_t i = 0; i < s.n; ++i) {
    for (int64_t o = 0; o < s.out; ++o) {
      double sum = x[2][static_cast<size_t>(o)];
      for (int64_t c = 0; c < s.in; ++c)
        sum += x[0][static_cast<size_t>(i * s.in + c)] * x[1][static_cast<size_t>(o * s.in + c)];
      y.push_back(sum);
    }
  }
  return y;
}

}  // namespace

TEST_CASE("linear and the gradients of x, w and bias are right at odd sizes") {
  for (const LinearSize s : {LinearSize{1, 1, 1}, LinearSize{3, 7, 5}, LinearSize{9, 4, 17}, LinearSize{2, 33, 10}}) {
    const GradcheckReport report = gradcheck(
        {.arguments = {random_tensor({s.n, s.in}, 1), random_tensor({s.out, s.in}, 2), random_tensor({s.out}, 3)},
         .op = [](Tape* t, const std::vector<Variable>& v) { return linear(t, v[0], v[1], v[2]); },
         .reference = [s](const std::vector<Doubles>& x) { return naive(x, s); },
         .roundings = 2.0 * static_cast<double>(std::max({s.n, s.in, s.out})) + 1});
    CHECK_MESSAGE(report.ok, "n in out " << s.n << " " << s.in << " " << s.out << ": " << report.message);
  }
}

TEST_CASE("linear names operands that do not fit") {
  const Tensor x = random_tensor({2, 3}, 1), w = random_tensor({4, 3}, 1), bias = random_tensor({4}, 1);
  CHECK(error_of<ShapeError>([&] {
          linear_forward(x, random_tensor({3, 4}, 1), bias);
        }) == "[linear] x is [2,3] and w is [3,4], but both must have the same number of columns; w is [out, in]");
  CHECK(error_of<ShapeError>([&] { linear_forward(x, w, random_tensor({3}, 1)); }) ==
        "[linear] bias has shape [3], but w's rows ask for [4]; pass a tensor of that shape");
  CHECK(error_of<ShapeError>([&] {
          linear_forward(random_tensor({2, 1, 1, 3}, 1), w, bias);
        }) == "[linear] x has shape [2,1,1,3], but its rank must be 2; reshape it");
  CHECK(error_of<DTypeError>([&] {
          linear_forward(x, Tensor(DType::s8, {4, 3}), bias);
        }) == "[linear] w is s8, but the generic ops compute in f32 only; convert it first");
  CHECK(error_of<ShapeError>([&] {
          linear_backward_x(random_tensor({2, 3}, 1), w);
        }) == "[linear] d_y has shape [2,3], but w's rows ask for [2,4]; pass a tensor of that shape");
  CHECK(error_of<ShapeError>([&] {
          linear_backward_w(random_tensor({3, 4}, 1), x);
        }) == "[linear] d_y has shape [3,4], but x's rows ask for [2,4]; pass a tensor of that shape");
}
