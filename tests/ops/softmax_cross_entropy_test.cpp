// softmax_cross_entropy: value, gradient, smoothing, top-1 and top-5, extreme logits, errors.
#include "ops/softmax_cross_entropy.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

std::vector<int32_t> some_labels(int64_t n, int64_t classes, uint32_t seed) {
  Rng rng(seed, rng_purpose::kTest);
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>(rng.below(static_cast<uint32_t>(classes))));
  return labels;
}

Labels view(const std::vector<int32_t>& labels) {
  return std::span<const int32_t>(labels);
}

/// From the definition: targets, libm's exp and log.
double naive(const Doubles& x, const std::vector<int32_t>& labels, double smoothing) {
  const size_t n = labels.size(), classes = x.size() / n;
  double loss = 0;
  for (size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (size_t j = 0; j < classes; ++j) sum += std::exp(x[i * classes + j]);
    for (size_t j = 0; j < classes; ++j) {
      const double target =
          smoothing / static_cast<double>(classes) + (static_cast<size_t>(labels[i]) == j ? 1.0 - smoothing : 0.0);
      loss -= target * (x[i * classes + j] - std::log(sum)) / static_cast<double>(n);
    }
  }
  return loss;
}

TopCounts counts_of(std::initializer_list<float> row, int32_t label) {
  Tensor logits(DType::f32, {1, static_cast<int64_t>(row.size())});
  std::copy(row.begin(), row.end(), logits.data<float>());
  return softmax_cross_entropy_forward(logits, view({label}), {}).counts;
}

float loss_of(std::initializer_list<float> row, int32_t label) {
  Tensor logits(DType::f32, {1, static_cast<int64_t>(row.size())});
  std::copy(row.begin(), row.end(), logits.data<float>());
  return *softmax_cross_entropy_forward(logits, view({label}), {}).loss.data<float>();
}

}  // namespace

TEST_CASE("softmax cross entropy and its gradient are right, with and without label smoothing") {
  for (const Shape& shape : {Shape{1, 1}, Shape{1, 2}, Shape{7, 10}, Shape{3, 33}}) {
    for (float smoothing : {0.0f, 0.1f, 0.5f}) {
      const std::vector<int32_t> labels = some_labels(shape[0], shape[1], 5);
      const GradcheckReport report = gradcheck(
          {.arguments = {random_tensor(shape, 1, -3.0f, 3.0f)},
           .op =
               [&](Tape* t, const std::vector<Variable>& v) {
                 return softmax_cross_entropy(t, v[0], view(labels), {.label_smoothing = smoothing}).loss;
               },
           .reference =
               [&](const std::vector<Doubles>& x) {
                 return Doubles{naive(x[0], labels, static_cast<double>(smoothing))};
               },
           // exp_exact is good to 3e-7 = 5 roundings, log_exact to 1e-6 = 17 of a loss of order 1; the rest is in
           // double. One class gives loss 0 with derivative 0, so its allowance is 0: that result is exact.
           .roundings = 32});
      CHECK_MESSAGE(report.ok, shape.str() << " smoothing " << smoothing << ": " << report.message);
    }
  }
}

TEST_CASE("softmax cross entropy of equal logits is log(classes), smoothed or not") {
  const Tensor logits = Tensor::zeros(DType::f32, {2, 10});
  for (float smoothing : {0.0f, 0.1f}) {
    const SoftmaxCrossEntropy out = softmax_cross_entropy_forward(logits, view({3, 9}), {.label_smoothing = smoothing});
    CHECK(std::abs(static_cast<double>(*out.loss.data<float>()) - std::log(10.0)) < 2e-6);
    for (double p : to_doubles(out.probabilities)) CHECK(p == static_cast<double>(0.1f));
  }
}

TEST_CASE("softmax cross entropy gives the same loss and gradient for 32-bit and 64-bit labels") {
  const std::vector<int32_t> narrow = some_labels(9, 6, 1);
  const std::vector<int64_t> wide(narrow.begin(), narrow.end());
  const Tensor x = random_tensor({9, 6}, 2);
  const SoftmaxCrossEntropyArgs args{.label_smoothing = 0.1f};
  const Variable a(x, Grad::kWanted), b(x, Grad::kWanted);
  Tape tape_a, tape_b;
  const TapedLoss loss_a = softmax_cross_entropy(&tape_a, a, std::span<const int32_t>(narrow), args);
  const TapedLoss loss_b = softmax_cross_entropy(&tape_b, b, std::span<const int64_t>(wide), args);
  tape_a.backward(loss_a.loss);
  tape_b.backward(loss_b.loss);
  CHECK(same_bits(loss_a.loss.value(), loss_b.loss.value()));
  CHECK(same_bits(a.grad(), b.grad()));
  CHECK(loss_a.counts.top1 == loss_b.counts.top1);
  CHECK(loss_a.counts.top5 == loss_b.counts.top5);
}

TEST_CASE("softmax cross entropy: every row of the gradient adds up to zero") {
  const std::vector<int32_t> labels = some_labels(5, 100, 1);
  const Variable x(random_tensor({5, 100}, 2, -4.0f, 4.0f), Grad::kWanted);
  Tape tape;
  tape.backward(softmax_cross_entropy(&tape, x, view(labels), {.label_smoothing = 0.1f}).loss);
  for (int64_t i = 0; i < 5; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < 100; ++j) sum += static_cast<double>(x.grad().row<float>(i)[j]);
    CHECK(std::abs(sum) < 2.0 / 5.0 * 3 * 0x1p-24);  // sum |g| <= 2/5, at most three roundings each
  }
}

TEST_CASE("softmax cross entropy ranks labels, the lower class first among equal logits") {
  CHECK(counts_of({1, 3, 2}, 1).top1 == 1);
  CHECK(counts_of({1, 3, 2}, 2).top1 == 0);
  CHECK(counts_of({3, 3, 2}, 0).top1 == 1);
  CHECK(counts_of({3, 3, 2}, 1).top1 == 0);
  CHECK(counts_of({9, 8, 7, 6, 5, 4}, 4).top5 == 1);
  CHECK(counts_of({9, 8, 7, 6, 5, 4}, 5).top5 == 0);
  CHECK(counts_of({5, 5, 5, 5, 5, 5}, 4).top5 == 1);
  CHECK(counts_of({5, 5, 5, 5, 5, 5}, 5).top5 == 0);
  CHECK(counts_of({1, 2}, 0).top5 == 1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(counts_of({1, nan}, 0).top5 == 0);
  CHECK(counts_of({nan, 1}, 1).top1 == 0);
}

TEST_CASE("softmax cross entropy stays finite for large logits and becomes NaN for non-finite ones") {
  CHECK(loss_of({1e30f, 0}, 0) == 0.0f);
  CHECK(loss_of({1e30f, 0}, 1) == 1e30f);
  CHECK(loss_of({-200, -300}, 1) == 100.0f);
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(loss_of({nan, 0}, 0)));
  CHECK(std::isnan(loss_of({0, nan}, 0)));
  CHECK(std::isnan(loss_of({inf, 0}, 0)));
  CHECK(std::isnan(loss_of({-inf, -inf}, 0)));
}

TEST_CASE("softmax cross entropy names what does not fit") {
  const Tensor x = random_tensor({2, 10}, 1);
  CHECK(error_of<ShapeError>([&] { softmax_cross_entropy_forward(x, view({1}), {}); }) ==
        "[softmax_cross_entropy] 1 labels came with 2 rows of logits; pass one label per row");
  CHECK(error_of<DataError>([&] {
          softmax_cross_entropy_forward(x, view({1, 10}), {});
        }) ==
        "[softmax_cross_entropy] label 10 of row 1 is not one of the 10 classes of the logits; "
        "build the model with the data set's number of classes");
  CHECK(error_of<DataError>([&] {
          softmax_cross_entropy_forward(x, view({-1, 0}), {});
        }) ==
        "[softmax_cross_entropy] label -1 of row 0 is not one of the 10 classes of the logits; "
        "build the model with the data set's number of classes");
  CHECK(error_of<UsageError>([&] {
          softmax_cross_entropy_forward(x, view({1, 2}), {.label_smoothing = 1.0f});
        }) == "[softmax_cross_entropy] label smoothing is 1, but it must be at least 0 and below 1; change it");
  CHECK(error_of<ShapeError>([&] {
          softmax_cross_entropy_forward(Tensor(DType::f32, {0, 10}), view({}), {});
        }) == "[softmax_cross_entropy] logits are [0,10], and the mean of nothing is not a loss; pass a batch");
  CHECK(error_of<DTypeError>([&] {
          softmax_cross_entropy_forward(Tensor(DType::bf16, {2, 10}), view({1, 2}), {});
        }) == "[softmax_cross_entropy] logits is bf16, but the generic ops compute in f32 only; convert it first");
}
