// Accuracies on the same images: what of their differences is chance, by the outcomes of each image.
#include "apps/report/paired_accuracy.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "apps/report/mean_difference.hpp"
#include "apps/report/statistics.hpp"
#include "apps/study/compare.hpp"
#include "tests/apps/report/small_study.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::point;

/// A point that was right on the images of 10,000 that `right` names.
template <typename Right>
PointResult with_outcomes(const std::string& precision, double width, uint64_t seed, Right right) {
  std::string outcomes(10000, '0');
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    if (!right(i)) continue;
    outcomes[static_cast<size_t>(i)] = '1';
    ++sum;
  }
  PointResult p = point(precision, width, sum / 100, seed);
  p.outcomes = {"digest", outcomes};
  return p;
}

double difference_error(const PointResult& a, const PointResult& b) {
  const std::vector<PointResult> points = {a, b};
  const std::vector<StudyGroup> groups = group_points(points);
  MeanDifference d(&StudyGroup::top1);
  d.add(groups[0], groups[1]);
  return d.error();
}

TEST_CASE("paired accuracy: two models differ by chance as far as they disagree (McNemar)") {
  // 7,000 and 6,900 right; they disagree on 500 images: 300 for one, 200 for the other.
  const PointResult a = with_outcomes("bf16", 1, 0, [](int i) { return i < 7000; });
  const PointResult b = with_outcomes("w8a8", 1, 0, [](int i) { return i < 6700 || (i >= 7000 && i < 7200); });
  const double n = 10000, exact = 100 * std::sqrt((300 + 200 - 100.0 * 100 / n) / n / n);
  const std::optional<double> variance = paired_variance({{&a, 1}, {&b, -1}});
  REQUIRE(variance);
  CHECK(std::sqrt(*variance) == doctest::Approx(exact).epsilon(0.01));
  CHECK(difference_error(a, b) == doctest::Approx(std::sqrt(*variance)));
  const double alone = std::hypot(binomial_error(70, 10000), binomial_error(69, 10000));
  CHECK(difference_error(a, b) < 0.4 * alone);
  PointResult other = b;
  other.outcomes.images = "others";
  CHECK(difference_error(a, other) == doctest::Approx(alone));
  other.outcomes = {};
  CHECK(difference_error(a, other) == doctest::Approx(alone));
}

TEST_CASE("paired accuracy: of models that are right independently of each other nothing is gained") {
  // Each right on 70 %: by the tens digit and by the units digit of the image.
  const PointResult a = with_outcomes("bf16", 1, 0, [](int i) { return i % 10 < 7; });
  const PointResult b = with_outcomes("w8a8", 1, 0, [](int i) { return i / 10 % 10 < 7; });
  CHECK(difference_error(a, b) == doctest::Approx(std::sqrt(2) * binomial_error(70, 10000)).epsilon(0.001));
}

TEST_CASE(
    "paired accuracy: a mean over models that are wrong on the same images is not better known for their number") {
  // Both of the second study gain on the same 200 images: to count them twice as independent would be 1.4 times too
  // sure.
  const auto worse = [](int i) { return i < 6000; };
  const auto better = [](int i) { return i < 6000 || (i >= 7000 && i < 7200); };
  const std::vector<PointResult> a = {with_outcomes("bf16", 1, 0, worse), with_outcomes("w8a8", 1, 0, worse)};
  const std::vector<PointResult> b = {with_outcomes("bf16", 1, 0, better), with_outcomes("w8a8", 1, 0, better)};
  const StudyComparison c(a, b);
  const MeanDifference all = c.mean_difference(&StudyGroup::top1);
  const MeanDifference one = c.difference(c.pairs().front(), &StudyGroup::top1);
  CHECK(all.is_paired());
  CHECK(all.value() == doctest::Approx(2));
  CHECK(all.error() == doctest::Approx(one.error()).epsilon(0.001));
  CHECK(one.error() == doctest::Approx(100 * std::sqrt((200 - 200 * 200 / 1e4) / 1e8)).epsilon(0.01));
}

TEST_CASE("paired accuracy: seeds, their spread, and the parts that have no validation images") {
  // Seeds of a model agree but for the first hundred images, which one or the other has right.
  const auto seed = [](const char* precision, uint64_t s, int from) {
    return with_outcomes(precision, 1, s, [=](int i) { return (i < 100 ? i % 2 == static_cast<int>(s) : i < from); });
  };
  const std::vector<PointResult> points = {seed("bf16", 0, 7000), seed("bf16", 1, 7050), seed("w8a8", 0, 6800),
                                           seed("w8a8", 1, 6870)};
  const std::vector<StudyGroup> groups = group_points(points);
  const auto of = [&](Estimate StudyGroup::*estimate) {
    MeanDifference d(estimate);
    d.add(groups[0], groups[1]);
    return d;
  };
  const std::optional<double> images =
      paired_variance({{&points[0], 0.5}, {&points[1], 0.5}, {&points[2], -0.5}, {&points[3], -0.5}});
  REQUIRE(images);
  const double seeds = std::hypot(groups[0].top1.seed_error, groups[1].top1.seed_error);
  CHECK(seeds > 0);
  CHECK(of(&StudyGroup::top1).error() == doctest::Approx(std::sqrt(*images + seeds * seeds)));
  CHECK(of(&StudyGroup::last_top1).is_paired());
  const MeanDifference train = of(&StudyGroup::train_top1), gap = of(&StudyGroup::gap);
  CHECK_FALSE(train.is_paired());
  CHECK(train.error() == doctest::Approx(std::hypot(groups[0].train_top1.error, groups[1].train_top1.error)));
  const double of_training = 2 * std::pow(binomial_error(90, 10000), 2);
  const double gap_seeds = std::hypot(groups[0].gap.seed_error, groups[1].gap.seed_error);
  CHECK(gap.error() == doctest::Approx(std::sqrt(*images + of_training + gap_seeds * gap_seeds)));
}

TEST_CASE("paired accuracy: images that one of them did not see take no part; too few images are no pairing") {
  PointResult a = with_outcomes("bf16", 1, 0, [](int i) { return i % 2 == 0; });
  PointResult b = with_outcomes("w8a8", 1, 0, [](int i) { return i % 2 == 0 && i % 100 != 0; });
  const double before = *paired_variance({{&a, 1}, {&b, -1}});
  for (size_t i = 0; i < 10000; i += 200) a.outcomes.right[i] = '-';  // half of those in which they differ
  CHECK(*paired_variance({{&a, 1}, {&b, -1}}) == doctest::Approx(before / 2).epsilon(0.05));
  a.outcomes.right.assign(10000, '-');
  CHECK_FALSE(paired_variance({{&a, 1}, {&b, -1}}));
  a.outcomes.right.assign(9999, '1');
  CHECK_FALSE(paired_variance({{&a, 1}, {&b, -1}}));
  CHECK_FALSE(paired_variance({}));
}

TEST_CASE("paired accuracy: models that agree on a few images are not taken for equal") {
  PointResult a = point("bf16", 1, 50), b = point("w8a8", 1, 50);
  for (PointResult* p : {&a, &b}) p->outcomes = {"digest", "0101010101"};
  CHECK(*paired_variance({{&a, 1}, {&b, -1}}) == doctest::Approx(1e4 * 2 / 90));
}

}  // namespace
}  // namespace nibble::apps
