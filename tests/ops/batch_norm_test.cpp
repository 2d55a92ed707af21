// batch_norm: statistics, values and gradients with batch and with given statistics, errors.
#include "ops/batch_norm.hpp"

#include <doctest/doctest.h>

#include "engine/parallel.hpp"
#include "ops/float_op.hpp"
#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

constexpr double kEpsilon = 1e-5f;

/// x [rows, c], gamma [c], beta [c]; statistics of the batch unless given.
Doubles naive(const std::vector<Doubles>& x, const BatchStatistics* given) {
  const size_t channels = x[1].size(), rows = x[0].size() / channels;
  Doubles y(x[0].size());
  for (size_t c = 0; c < channels; ++c) {
    double mean = 0, variance = 0;
    for (size_t r = 0; r < rows; ++r) mean += x[0][r * channels + c] / static_cast<double>(rows);
    for (size_t r = 0; r < rows; ++r) {
      const double d = x[0][r * channels + c] - mean;
      variance += d * d / static_cast<double>(rows);
    }
    if (given != nullptr) {
      mean = static_cast<double>(given->mean[c]);
      variance = static_cast<double>(given->variance[c]);
    }
    for (size_t r = 0; r < rows; ++r)
      y[r * channels + c] = (x[0][r * channels + c] - mean) / std::sqrt(variance + kEpsilon) * x[1][c] + x[2][c];
  }
  return y;
}

GradcheckReport check(const Shape& shape, const BatchStatistics* given) {
  const Shape channels{shape.back()};
  return gradcheck(
      {.arguments = {random_tensor(shape, 1, -1.0f, 2.0f), random_tensor(channels, 2, 0.5f, 1.5f),
                     random_tensor(channels, 3)},
       .op = [given](Tape* t,
                     const std::vector<Variable>& v) { return batch_norm(t, v[0], v[1], v[2], {.given = given}); },
       .reference = [given](const std::vector<Doubles>& x) { return naive(x, given); },
       // Each factor of d_x is a chain of at most 16 roundings (mean, variance, + epsilon, sqrt, division,
       // gamma, both means, xhat, two products, two differences); the sums themselves run in double.
       .roundings = 16});
}

}  // namespace

TEST_CASE("batch norm and its gradients are right with the statistics of the batch") {
  for (const Shape& shape : {Shape{5, 3}, Shape{2, 3, 3, 7}, Shape{1, 5, 4, 17}, Shape{33, 2}}) {
    const GradcheckReport report = check(shape, nullptr);
    CHECK_MESSAGE(report.ok, shape.str() << ": " << report.message);
  }
}

TEST_CASE("batch norm treats given statistics as constants") {
  const BatchStatistics given{{0.25f, -0.5f, 1.0f}, {0.5f, 2.0f, 0.01f}};
  const GradcheckReport report = check({2, 3, 2, 3}, &given);
  CHECK_MESSAGE(report.ok, report.message);
}

TEST_CASE("batch norm hands out the mean and the biased variance it used") {
  Tensor x(DType::f32, {4, 2});
  const float values[] = {1, 10, 2, 10, 3, 10, 6, 10};
  std::copy_n(values, 8, x.data<float>());
  Tensor gamma(DType::f32, {2}), beta(DType::f32, {2});
  std::fill_n(gamma.data<float>(), 2, 1.0f);
  std::fill_n(beta.data<float>(), 2, 0.5f);
  BatchStatistics used;
  const Variable y = batch_norm(nullptr, Variable(x), Variable(gamma), Variable(beta), {.used = &used});
  CHECK(used.mean == std::vector<float>{3.0f, 10.0f});
  CHECK(used.variance == std::vector<float>{3.5f, 0.0f});  // (4 + 1 + 0 + 9) / 4, not / 3
  CHECK(y.value().row<float>(0)[1] == 0.5f);               // a constant channel gives beta, not NaN
}

TEST_CASE("batch norm sums in double, so a large mean does not swallow the variance") {
  // 1000 +- 1/8 in turn: E[x^2] - E[x]^2 in f32 would lose all of 1/64 = 0.015625 (ulp of 1e6 is 1/16).
  Tensor x(DType::f32, {4096, 1});
  for (int64_t i = 0; i < 4096; ++i) x.data<float>()[i] = 1000.0f + (i % 2 == 0 ? 0.125f : -0.125f);
  const BatchStatistics s = batch_statistics(x);
  CHECK(s.mean[0] == 1000.0f);
  CHECK(s.variance[0] == 0.015625f);
}

TEST_CASE("batch norm gives the same bits with any number of threads") {
  const Tensor x = random_tensor({5000, 37}, 1), gamma = random_tensor({37}, 2), beta = random_tensor({37}, 3);
  const int before = threads();
  const auto run = [&](int count) {
    set_threads(count);
    const BatchStatistics s = batch_statistics(x);
    const BatchNormSums sums = batch_norm_backward_gamma_beta(x, x, s, 1e-5f);
    return std::vector<Tensor>{batch_norm_forward(x, gamma, beta, s, 1e-5f), sums.d_gamma, sums.d_beta,
                               batch_norm_backward_x(x, x, gamma, s, 1e-5f, &sums)};
  };
  const std::vector<Tensor> one = run(1), two = run(2), three = run(3);
  set_threads(before);
  for (size_t i = 0; i < one.size(); ++i) {
    CHECK(same_bits(one[i], two[i]));
    CHECK(same_bits(one[i], three[i]));
  }
}

TEST_CASE("batch norm names operands that do not fit") {
  const Tensor x = random_tensor({4, 3}, 1), gamma = random_tensor({3}, 1), beta = random_tensor({3}, 1);
  const BatchStatistics short_one{{0.0f, 0.0f}, {1.0f, 1.0f}}, good{{0, 0, 0}, {1, 1, 1}};
  CHECK(error_of<ShapeError>([&] { batch_norm_forward(x, gamma, beta, short_one, 1e-5f); }) ==
        "[batch_norm] x has 3 channels, but the statistics hold 2 means and 2 variances; use those of this layer");
  CHECK(error_of<ShapeError>([&] { batch_norm_forward(x, random_tensor({4}, 1), beta, good, 1e-5f); }) ==
        "[batch_norm] gamma has shape [4], but x's channels ask for [3]; pass a tensor of that shape");
  CHECK(error_of<ShapeError>([&] {
          batch_statistics(Tensor(DType::f32, {0, 3}));
        }) == "[batch_norm] x is [0,3], so a channel has no value to average; pass at least one row");
  CHECK(error_of<DTypeError>([&] {
          batch_statistics(Tensor(DType::bf16, {2, 3}));
        }) == "[batch_norm] x is bf16, but the generic ops compute in f32 only; convert it first");
}
