// Accuracy, loss and hash of an evaluation against plain definitions.
#include "nn/runtime/evaluation.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "engine/error.hpp"
#include "engine/rng.hpp"
#include "ops/softmax_cross_entropy.hpp"
#include "tests/host_float_mode.hpp"
#include "tests/near.hpp"

namespace nibble {
namespace {

Tensor rows(std::initializer_list<std::initializer_list<float>> values) {
  const Tensor t(DType::f32, {static_cast<int64_t>(values.size()), static_cast<int64_t>(values.begin()->size())});
  float* to = t.data<float>();
  for (const auto& row : values) to = std::copy(row.begin(), row.end(), to);
  return t;
}

Tensor random_logits(int64_t n, int64_t classes) {
  const Tensor t(DType::f32, {n, classes});
  Rng rng(4, rng_purpose::kTest);
  for (int64_t i = 0; i < t.size(); ++i) t.data<float>()[i] = 4.0f * rng.normal();
  return t;
}

Tensor part_of(const Tensor& t, int64_t first, int64_t count) {
  const Tensor p(DType::f32, {count, t.dim(1)});
  std::memcpy(p.raw(), t.row<float>(first), p.bytes());
  return p;
}

TEST_CASE("evaluation: top-1 and top-5 rank like a stable sort, so ties go to the lower index") {
  Evaluation e;
  const std::vector<int32_t> labels = {0, 1, 5, 4, 2};
  e.add(rows({{1, 1, 0, 0, 0, 0},      // tie of 0 and 1: rank 0 for label 0
              {1, 1, 0, 0, 0, 0},      // rank 1 for label 1
              {0, 0, 0, 0, 0, 0},      // rank 5 for label 5: outside the top five
              {0, 0, 0, 0, 0, 0},      // rank 4 for label 4
              {-3, -2, 7, 1, 0, 2}}),  // rank 0
        labels);
  const EvaluationResult r = e.result();
  CHECK(r.images == 5);
  CHECK(r.top1 == 2);
  CHECK(e.right() == std::vector<bool>{true, false, false, false, true});
  CHECK(r.top5 == 4);
  CHECK(r.top1_percent() == doctest::Approx(40.0));
  CHECK(r.top5_percent() == doctest::Approx(80.0));
}

TEST_CASE("evaluation: by class, with the class that images were most often taken for, of equals the lowest") {
  const float nan = std::nanf("");
  Evaluation e;
  const auto taken_for = [&](int label, int other) {  // an image of `label` whose largest logit is that of `other`
    Tensor t(DType::f32, {1, 4});
    for (int c = 0; c < 4; ++c) t.data<float>()[c] = c == other ? 1.0f : 0.0f;
    e.add(t, std::vector<int32_t>{label});
  };
  for (const int other : {0, 0, 3, 2, 3, 2}) taken_for(0, other);
  taken_for(1, 1);
  for (const int other : {0, 1, 1}) taken_for(2, other);
  e.add(rows({{nan, 0, 0, 0}}), std::vector<int32_t>{1});
  const std::vector<ClassResult> all = e.by_class();
  REQUIRE(all.size() == 4);
  const auto check = [&](size_t at, int64_t images, int64_t top1, int64_t other, int64_t times) {
    INFO("class " << at);
    CHECK(all[at].images == images);
    CHECK(all[at].top1 == top1);
    CHECK(all[at].taken_for == other);
    CHECK(all[at].times == times);
  };
  check(0, 6, 2, 2, 2);
  check(1, 2, 1, -1, 0);
  check(2, 3, 0, 1, 2);
  check(3, 0, 0, -1, 0);
  CHECK(all[0].top1_percent() == doctest::Approx(100.0 / 3));
  CHECK(all[3].top1_percent() == 0);
  int64_t images = 0, top1 = 0;
  for (const ClassResult& c : all) {
    images += c.images;
    top1 += c.top1;
  }
  CHECK(images == e.result().images);
  CHECK(top1 == e.result().top1);
}

TEST_CASE("evaluation: logits that are not finite are right about nothing and make the loss not a number") {
  const float nan = std::nanf(""), inf = HUGE_VALF;
  const std::vector<std::vector<float>> wrong = {{nan, nan, nan}, {1, nan, 0}, {nan, 1, 0}};
  for (const std::vector<float>& row : wrong) {
    Evaluation e;
    const Tensor t(DType::f32, {1, 3});
    std::copy(row.begin(), row.end(), t.data<float>());
    e.add(t, std::vector<int32_t>{0});
    CHECK(e.result().top1 == 0);
    CHECK(e.right() == std::vector<bool>{false});
    CHECK(e.result().top5 == 0);
    CHECK_FALSE(std::isfinite(e.result().loss));
  }
  Evaluation e;
  e.add(rows({{inf, 0, 0}}), std::vector<int32_t>{0});
  CHECK(e.result().top1 == 1);  // it does rank first
  CHECK_FALSE(std::isfinite(e.result().loss));
}

TEST_CASE("evaluation: counts and mean loss of random logits equal a sort and a double reference") {
  const int64_t n = 200, classes = 17;
  const Tensor logits = random_logits(n, classes);
  std::vector<int32_t> labels;
  int64_t top1 = 0, top5 = 0;
  double loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    labels.push_back(static_cast<int32_t>(i * 7 % classes));
    const float* row = logits.row<float>(i);
    std::vector<int32_t> order(static_cast<size_t>(classes));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    const auto rank = std::find(order.begin(), order.end(), labels.back()) - order.begin();
    top1 += rank < 1;
    top5 += rank < 5;
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(static_cast<double>(row[c]));
    loss += std::log(sum) - static_cast<double>(row[labels.back()]);
  }
  Evaluation e;
  e.add(logits, labels);
  CHECK(e.result().top1 == top1);
  CHECK(e.result().top5 == top5);
  CHECK(e.result().loss == doctest::Approx(loss / static_cast<double>(n)).epsilon(1e-5));
}

#if defined(__x86_64__)
TEST_CASE("evaluation: the caller's float mode changes no bit of a loss or a probability") {
  const int64_t n = 64, classes = 11;
  const Tensor logits = random_logits(n, classes);
  const std::vector<int32_t> labels(static_cast<size_t>(n), 3);
  const auto evaluate = [&] {
    Evaluation e;
    e.add(logits, labels);
    std::vector<float> probabilities(static_cast<size_t>(classes));
    softmax_row(logits.row<float>(0), classes, probabilities.data());
    return std::pair(e.result().loss, probabilities);
  };
  const auto expected = evaluate();
  const testing::HostFloatMode mode;
  CHECK(evaluate() == expected);
  CHECK(testing::HostFloatMode::in_force());
}
#endif

TEST_CASE("evaluation: nothing depends on how the images were cut into batches, but everything on their order") {
  const int64_t n = 30;
  const Tensor logits = random_logits(n, 9);
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>(i % 9));
  const auto in_batches = [&](int64_t batch) {
    Evaluation e;
    for (int64_t i = 0; i < n; i += batch) {
      const int64_t count = std::min(batch, n - i);
      e.add(part_of(logits, i, count), std::span(labels).subspan(static_cast<size_t>(i), static_cast<size_t>(count)));
    }
    return e.result();
  };
  const EvaluationResult whole = in_batches(n);
  for (int64_t batch : {1, 7, 29}) {
    const EvaluationResult r = in_batches(batch);
    CHECK(r.logits_sha256 == whole.logits_sha256);
    CHECK(r.loss == whole.loss);
    CHECK(r.top1 == whole.top1);
  }
  Evaluation turned;
  turned.add(part_of(logits, 1, n - 1), std::span(labels).subspan(1));
  turned.add(part_of(logits, 0, 1), std::span(labels).first(1));
  CHECK(turned.result().logits_sha256 != whole.logits_sha256);
}

TEST_CASE("evaluation: the hash is SHA-256 over the little-endian bytes of the logits") {
  Evaluation e;
  const std::vector<int32_t> label = {0};
  e.add(rows({{0.0f, 0.0f}}), label);
  // SHA-256 of eight zero bytes.
  CHECK(e.result().logits_sha256 == "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc");
  Evaluation other;
  other.add(rows({{1.0f, -2.5f}}), label);
  // Python: hashlib.sha256(struct.pack("<2f", 1.0, -2.5)).hexdigest().
  CHECK(other.result().logits_sha256 == "48943f7a0ea247f8e3c9386d0c5822fe181d323a9289980426638cc4e72a43e1");
}

TEST_CASE("evaluation: no image gives zeros, not a division by zero") {
  const EvaluationResult r = Evaluation().result();
  CHECK(r.images == 0);
  CHECK(r.loss == 0.0);
  CHECK(r.top1_percent() == 0.0);
}

TEST_CASE("evaluation: logits of any size give a finite loss") {
  Evaluation e;
  const std::vector<int32_t> labels = {1, 0};
  e.add(rows({{3e38f, -3e38f}, {-1000.0f, 1000.0f}}), labels);
  // 6e38 and 2,000; in float the first is infinite.
  CHECK(e.result().loss == testing::relative((6e38 + 2000) / 2, 1e-6));
}

TEST_CASE("evaluation: labels outside the classes and of another number are refused") {
  Evaluation e;
  const std::vector<int32_t> high = {2}, low = {-1}, two = {0, 0};
  CHECK_THROWS_WITH_AS(e.add(rows({{1, 2}}), high), doctest::Contains("label 2"), DataError);
  CHECK_THROWS_WITH_AS(e.add(rows({{1, 2}}), low), doctest::Contains("label -1"), DataError);
  CHECK_THROWS_AS(e.add(rows({{1, 2}}), two), ShapeError);
}

TEST_CASE("softmax_row: probabilities sum to one and follow exp, for large logits too") {
  const float logits[] = {1000.0f, 999.0f, 0.0f};
  float p[3];
  softmax_row(logits, 3, p);
  CHECK(p[0] + p[1] + p[2] == doctest::Approx(1.0).epsilon(1e-6));
  CHECK(p[1] / p[0] == doctest::Approx(std::exp(-1.0)).epsilon(1e-6));
  CHECK(p[2] == 0.0f);
}

}  // namespace
}  // namespace nibble
