// average_pool: values, order of the sum, gradient, errors.
#include "ops/average_pool.hpp"

#include <doctest/doctest.h>

#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

TEST_CASE("average pool and its gradient are right") {
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{3, 4, 4, 5}, Shape{2, 7, 3, 17}}) {
    const int64_t n = shape[0], pixels = shape[1] * shape[2], channels = shape[3];
    const GradcheckReport report =
        gradcheck({.arguments = {random_tensor(shape, 1)},
                   .op = [](Tape* t, const std::vector<Variable>& v) { return average_pool(t, v[0]); },
                   .reference =
                       [=](const std::vector<Doubles>& x) {
                         Doubles y(static_cast<size_t>(n * channels));
                         for (int64_t i = 0; i < n * pixels * channels; ++i)
                           y[static_cast<size_t>(i / (pixels * channels) * channels + i % channels)] +=
                               x[0][static_cast<size_t>(i)] / static_cast<double>(pixels);
                         return y;
                       },
                   .roundings = static_cast<double>(pixels) + 2});
    CHECK_MESSAGE(report.ok, shape.str() << ": " << report.message);
  }
}

TEST_CASE("average pool adds the pixels in row-major order in f32 and multiplies once") {
  const Tensor x = random_tensor({2, 7, 7, 3}, 1), y = average_pool_forward(x);
  CHECK(y.shape() == Shape{2, 3});
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      float sum = 0;
      for (int64_t p = 0; p < 49; ++p) sum += x.row<float>(i * 49 + p)[c];
      CHECK(y.row<float>(i)[c] == sum * (1.0f / 49.0f));
    }
  }
}

TEST_CASE("average pool names operands that do not fit") {
  CHECK(error_of<ShapeError>([] {
          average_pool_forward(Tensor(DType::f32, {2, 0, 3, 1}));
        }) == "[average_pool] x is [2,0,3,1], so an image has no pixel to average; pass at least one");
  CHECK(error_of<ShapeError>([] {
          average_pool_forward(random_tensor({2, 3}, 1));
        }) == "[average_pool] x has shape [2,3], but its rank must be 4; reshape it");
  CHECK(error_of<ShapeError>([] {
          average_pool_backward_x(random_tensor({2, 4}, 1), {2, 3, 3, 5});
        }) ==
        "[average_pool] d_y has shape [2,4], but x's images and channels ask for [2,5]; "
        "pass a tensor of that shape");
  CHECK(error_of<DTypeError>([] {
          average_pool_forward(Tensor(DType::u8, {1, 2, 2, 3}));
        }) == "[average_pool] x is u8, but the generic ops compute in f32 only; convert it first");
  CHECK(error_of<ShapeError>([] {
          average_pool_backward_x(random_tensor({2, 4}, 1), {2, 4});
        }) == "[average_pool] x has shape [2,4], but its rank must be 4; reshape it");
}
