// max_pool: values and gradients over windows and paddings, ties, NaN, errors.
#include "ops/max_pool.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

Doubles naive(const Doubles& x, const ConvShape& s) {
  Doubles y;
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t p = 0; p < s.oh(); ++p)
      for (int64_t q = 0; q < s.ow(); ++q)
        for (int64_t c = 0; c < s.ic; ++c) {
          double best = -1e300;
          for (int64_t r = p * s.stride - s.pad_before; r < p * s.stride - s.pad_before + s.kh; ++r)
            for (int64_t t = q * s.stride - s.pad_before; t < q * s.stride - s.pad_before + s.kw; ++t)
              if (r >= 0 && r < s.h && t >= 0 && t < s.w)
                best = std::max(best, x[static_cast<size_t>(((i * s.h + r) * s.w + t) * s.ic + c)]);
          y.push_back(best);
        }
  return y;
}

}  // namespace

TEST_CASE("max pool and its gradient are right over windows, strides and paddings") {
  struct Case {
    Shape x;
    PoolShape pool;
  };
  const Case cases[] = {
      {{2, 6, 8, 3}, {}},
      {{1, 7, 5, 2}, {}},
      {{1, 8, 8, 2}, {.window = 3, .stride = 2, .pad_before = 0, .pad_after = 1}},
      {{1, 5, 5, 3}, {.window = 2, .stride = 1, .pad_before = 0, .pad_after = 0}},
      {{1, 7, 7, 1}, {.window = 2, .stride = 3, .pad_before = 1, .pad_after = 0}},
      {{1, 1, 1, 5}, {}},
      {{1, 4, 4, 2}, {.window = 1, .stride = 1, .pad_before = 0, .pad_after = 0}},
  };
  for (const Case& c : cases) {
    const ConvShape s = max_pool_shape(c.x, c.pool);
    const GradcheckReport report =
        gradcheck({.arguments = {distinct_tensor(c.x, 1)},
                   .op = [&](Tape* t, const std::vector<Variable>& v) { return max_pool(t, v[0], c.pool); },
                   .reference = [&](const std::vector<Doubles>& x) { return naive(x[0], s); },
                   .roundings = 9});  // a pixel wins at most nine windows
    CHECK_MESSAGE(report.ok, c.x.str() << ": " << report.message);
  }
}

TEST_CASE("max pool never lets padding win, even when all values are negative") {
  const Tensor y = max_pool_forward(random_tensor({1, 3, 3, 2}, 1, -2.0f, -1.0f), {}).y;
  for (double v : to_doubles(y)) CHECK(v <= -1.0);
}

TEST_CASE("max pool gives the gradient of a tie to the first pixel in row-major order") {
  const Tensor x = Tensor::zeros(DType::f32, {1, 2, 2, 1});
  const MaxPooled pooled = max_pool_forward(x, {.window = 2, .stride = 2, .pad_before = 0, .pad_after = 0});
  Tensor g(DType::f32, {1, 1, 1, 1});
  *g.data<float>() = 3.0f;
  CHECK(to_doubles(max_pool_backward_x(g, pooled.winner, x.shape())) == Doubles{3, 0, 0, 0});
}

TEST_CASE("max pool lets a NaN win wherever it stands in the window") {
  for (int64_t at = 0; at < 4; ++at) {
    Tensor x = random_tensor({1, 2, 2, 1}, 1);
    x.data<float>()[at] = std::numeric_limits<float>::quiet_NaN();
    const MaxPooled pooled = max_pool_forward(x, {.window = 2, .stride = 2, .pad_before = 0, .pad_after = 0});
    CHECK(std::isnan(*pooled.y.data<float>()));
    CHECK(*pooled.winner.data<int32_t>() == at);
  }
}

TEST_CASE("max pool names operands that do not fit") {
  CHECK(error_of<ShapeError>([] {
          max_pool_shape({1, 8, 8, 1}, {.window = 2, .pad_before = 2, .pad_after = 0});
        }) == "[max_pool] padding 2 and 0 reach the window size 2, so a window could hold no pixel; use less");
  CHECK(error_of<ShapeError>([] {
          max_pool_shape({8, 8}, {});
        }) == "[max_pool] x has shape [8,8], but NHWC is needed; reshape it");
  CHECK(error_of<ShapeError>([] {
          max_pool_shape({1, 1 << 16, 1 << 16, 1}, {});
        }) == "[max_pool] a 65536x65536 image has more pixels than 2^31 - 1; cut it into parts");
  CHECK(error_of<DTypeError>([] {
          max_pool_forward(Tensor(DType::bf16, {1, 8, 8, 1}), {});
        }) == "[max_pool] x is bf16, but the generic ops compute in f32 only; convert it first");
  const MaxPooled pooled = max_pool_forward(random_tensor({1, 4, 4, 1}, 1), {});
  CHECK(error_of<ShapeError>([&] {
          max_pool_backward_x(random_tensor({1, 4, 4, 1}, 1), pooled.winner, {1, 4, 4, 1});
        }) ==
        "[max_pool] d_y has shape [1,4,4,1], but the pooled dimensions ask for [1,2,2,1]; "
        "pass a tensor of that shape");
  CHECK(error_of<ShapeError>([&] {
          max_pool_backward_x(pooled.y, pooled.winner, {1, 1, 1, 1});
        }).find("of images with 1; pass the shape that was pooled") != std::string::npos);
  CHECK(error_of<ShapeError>([&] {
          max_pool_backward_x(pooled.y, pooled.winner, {2, 4, 4, 1});
        }) ==
        "[max_pool] d_y is [1,2,2,1], but x is [2,4,4,1]: images and channels differ; pass the shape that was pooled");
}
