// Accuracies on the same images: what of their differences is chance, by the outcomes of each image.
#include "apps/report/paired_accuracy.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "apps/report/mean_difference.hpp"
#include "apps/report/statistics.hpp"
#include "apps/study/compare.hpp"
#include "engine/rng.hpp"
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

double raw(const PointResult& a, const PointResult& b) {
  return *paired_variance({{&a, 1}, {&b, -1}});
}

TEST_CASE("paired accuracy: two models differ by chance as far as they disagree (McNemar)") {
  // 7,000 and 6,900 right; they disagree on 500 images: 300 for one, 200 for the other.
  const PointResult a = with_outcomes("bf16", 1, 0, [](int i) { return i < 7000; });
  PointResult b = with_outcomes("w8a8", 1, 0, [](int i) { return i < 6700 || (i >= 7000 && i < 7200); });
  const double n = 10000, exact = 100 * std::sqrt((300 + 200 - 100.0 * 100 / n) / n / n);
  CHECK(std::sqrt(raw(a, b)) == doctest::Approx(exact).epsilon(0.01));
  CHECK(std::sqrt(raw(a, b)) < 0.4 * std::hypot(binomial_error(70, 10000), binomial_error(69, 10000)));
  CHECK(*paired_variance({{&a, 3}, {&b, -3}}) == doctest::Approx(9 * raw(a, b)));
  b.outcomes.images = "others";
  CHECK_FALSE(paired_variance({{&a, 1}, {&b, -1}}));
  b.outcomes = {};
  CHECK_FALSE(paired_variance({{&a, 1}, {&b, -1}}));
}

TEST_CASE("paired accuracy: of models that are right independently of each other nothing is gained") {
  // Each right on 70 %: by the tens digit and by the units digit of the image.
  const PointResult a = with_outcomes("bf16", 1, 0, [](int i) { return i % 10 < 7; });
  const PointResult b = with_outcomes("w8a8", 1, 0, [](int i) { return i / 10 % 10 < 7; });
  CHECK(std::sqrt(raw(a, b)) == doctest::Approx(std::sqrt(2) * binomial_error(70, 10000)).epsilon(0.001));
}

TEST_CASE("paired accuracy: images that one of them did not see take no part; too few images are no pairing") {
  // They differ on 200 images, all right for a.
  PointResult a = with_outcomes("bf16", 1, 0, [](int i) { return i % 2 == 0; });
  const PointResult b = with_outcomes("w8a8", 1, 0, [](int i) { return i % 2 == 0 && i % 50 != 0; });
  const double before = raw(a, b);
  for (size_t i = 0; i < 10000; i += 100) a.outcomes.right[i] = '-';  // half of those
  CHECK(raw(a, b) == doctest::Approx(before / 2).epsilon(0.05));
  for (size_t i = 2; i < 10000; i += 100) a.outcomes.right[i] = '-';  // and images that both have right
  CHECK(raw(a, b) == doctest::Approx(before / 2).epsilon(0.05));
  a.outcomes.right.assign(10000, '-');
  CHECK_FALSE(paired_variance({{&a, 1}, {&b, -1}}));
  a.outcomes.right.assign(9999, '1');
  CHECK_FALSE(paired_variance({{&a, 1}, {&b, -1}}));
  CHECK_FALSE(paired_variance({}));
}

TEST_CASE("paired accuracy: models that agree on a few images are not taken for equal, however many points they are") {
  PointResult a = point("bf16", 1, 50), b = point("w8a8", 1, 50);
  for (PointResult* p : {&a, &b}) p->outcomes = {"digest", "0101010101"};
  CHECK(raw(a, b) == doctest::Approx(1e4 * 2 / 90));
  const double half = 0.5;
  CHECK(*paired_variance({{&a, half}, {&a, half}, {&b, -half}, {&b, -half}}) == doctest::Approx(1e4 * 2 / 90));
}

TEST_CASE("paired accuracy: what one image does over seeds") {
  const auto seeds = [](const std::vector<std::string>& right) {
    std::vector<PointResult> all;
    for (const std::string& r : right) {
      all.push_back(point("bf16", 1, 50, all.size()));
      all.back().outcomes = {"digest", r};
    }
    std::vector<const PointResult*> points;
    for (const PointResult& p : all) points.push_back(&p);
    return variance_over_points(points);
  };
  CHECK(seeds({"1100", "1100"}) == 0);
  CHECK(seeds({"1100", "1010"}) == doctest::Approx(0.25));    // two of four images, a variance of a half each
  CHECK(seeds({"1100-", "10101"}) == doctest::Approx(0.25));  // the fifth was not seen by both
  CHECK(seeds({"11", "10", "10"}) == doctest::Approx(1.0 / 6));
}

/// Studies as models of one accuracy make them: images differ in difficulty, a seed moves all images by a little and
/// each by itself.
class Simulation {
 public:
  Simulation(uint32_t study, int images) : rng_(7, rng_purpose::kTest, study) {
    for (int i = 0; i < images; ++i) difficulty_.push_back(rng_.normal());
  }
  PointResult train(const std::string& precision, double width, uint64_t seed) {
    const float shift = 0.02f * rng_.normal();  // 0.7 points, as in the studies of bench/results
    PointResult p = point(precision, width, 0, seed);
    double right = 0;
    p.outcomes.images = "digest";
    for (const float d : difficulty_) {
      const bool is_right = d + shift + 0.6f * rng_.normal() > -0.2f;
      p.outcomes.right += is_right ? '1' : '0';
      right += is_right;
    }
    p.last.images = std::ssize(difficulty_);
    p.last.top1 = p.best.top1 = 100 * right / static_cast<double>(difficulty_.size());
    return p;
  }

 private:
  Rng rng_;
  std::vector<float> difficulty_;
};

struct Spread {
  double value = 0, error = 0;  // standard deviation of the differences; root mean square of their claimed errors
  int decided = 0;
};

/// Of two recipes that do not differ, `models` widths of `seeds` seeds each, in `studies` studies.
Spread spread_of(int studies, int models, uint64_t seeds) {
  Spread s;
  for (int study = 0; study < studies; ++study) {
    Simulation simulation(static_cast<uint32_t>(study), 500);
    std::vector<PointResult> a, b;
    for (int m = 0; m < models; ++m)
      for (uint64_t seed = 0; seed < seeds; ++seed)
        for (auto* of : {&a, &b}) of->push_back(simulation.train("bf16", 1 + m, seed));
    const StudyComparison c(a, b);
    CHECK(c.pairing() == (seeds > 1 ? Pairing::kPaired : Pairing::kSeedsUnknown));
    const MeanDifference d = c.mean_difference(&StudyGroup::last_top1);
    s.value += d.value() * d.value() / studies;
    s.error += d.error() * d.error() / studies;
    s.decided += d.decided();
  }
  return {std::sqrt(s.value), std::sqrt(s.error), s.decided};
}

TEST_CASE("paired accuracy: the claimed errors are those that simulated studies have, for one model and for many") {
  for (const auto& of : {std::pair{1, uint64_t{3}}, {6, uint64_t{2}}, {6, uint64_t{3}}}) {
    CAPTURE(of.first);   // models
    CAPTURE(of.second);  // seeds of each
    const Spread s = spread_of(300, of.first, of.second);
    CHECK(s.error > 0.9 * s.value);
    CHECK(s.error < 1.25 * s.value);
    CHECK(s.decided <= 18);  // 6 % of studies without a difference
  }
}

TEST_CASE("paired accuracy: without a second seed images alone decide nothing that seeds might undo") {
  const Spread s = spread_of(300, 1, 1);
  CHECK(s.error > s.value);
  CHECK(s.decided <= 15);
}

TEST_CASE("paired accuracy: the parts of an error, seeds known and not, and what has no validation images") {
  Simulation simulation(1, 2000);
  std::vector<PointResult> points;
  for (const char* precision : {"bf16", "w8a8"})
    for (uint64_t seed = 0; seed < 2; ++seed) points.push_back(simulation.train(precision, 1, seed));
  const std::vector<StudyGroup> groups = group_points(points);
  const StudyGroup &bf16 = groups[0], &w8a8 = groups[1];
  const auto of = [&](Estimate StudyGroup::*estimate, Pairing pairing = Pairing::kPaired) {
    MeanDifference d(estimate, pairing);
    d.add(bf16, w8a8);
    return d;
  };
  CHECK(pairing_of({&bf16, &w8a8}) == Pairing::kPaired);
  const double images =
      *paired_variance({{&points[0], 0.5}, {&points[1], 0.5}, {&points[2], -0.5}, {&points[3], -0.5}});
  const double flips =
      (variance_over_points({&points[0], &points[1]}) + variance_over_points({&points[2], &points[3]})) / 2;
  CHECK(bf16.outcome_variance == doctest::Approx(flips));
  const double by_seeds = 1e4 * 2 * flips / 2 / 2000;
  const auto total = [&](const Estimate& a, const Estimate& b) {
    const double seeds = a.seed_error * a.seed_error + b.seed_error * b.seed_error;
    return std::max(images, images - by_seeds + seeds);
  };
  CHECK(of(&StudyGroup::top1).error() == doctest::Approx(std::sqrt(total(bf16.top1, w8a8.top1))));
  CHECK(of(&StudyGroup::top1, Pairing::kOtherImages).error() ==
        doctest::Approx(std::hypot(bf16.top1.error, w8a8.top1.error)));
  CHECK(of(&StudyGroup::last_top1).is_paired());
  const MeanDifference train = of(&StudyGroup::train_top1);
  CHECK_FALSE(train.is_paired());
  CHECK(train.error() == doctest::Approx(std::hypot(bf16.train_top1.error, w8a8.train_top1.error)));
  const double training = 2 * std::pow(binomial_error(90, 10000), 2);
  CHECK(of(&StudyGroup::gap).error() == doctest::Approx(std::sqrt(total(bf16.gap, w8a8.gap) + training)));
  // Two pairs meet the same training images: their part does not become smaller.
  MeanDifference twice(&StudyGroup::gap, Pairing::kPaired);
  twice.add(bf16, w8a8);
  twice.add(bf16, w8a8);
  CHECK(twice.error() == doctest::Approx(of(&StudyGroup::gap).error()).epsilon(0.001));
}

TEST_CASE("paired accuracy: why errors are not taken image by image") {
  Simulation simulation(1, 100);
  std::vector<PointResult> points;
  for (uint64_t seed = 0; seed < 3; ++seed) points.push_back(simulation.train("bf16", 1, seed));
  const auto pairing = [](const std::vector<PointResult>& of) {
    const std::vector<StudyGroup> groups = group_points(of);
    std::vector<const StudyGroup*> all;
    for (const StudyGroup& g : groups) all.push_back(&g);
    return pairing_of(all);
  };
  CHECK(pairing(points) == Pairing::kPaired);
  CHECK(pairing({points[0]}) == Pairing::kSeedsUnknown);
  std::vector<PointResult> other = points;
  other[1].outcomes.images = "others";
  CHECK(pairing(other) == Pairing::kOtherImages);
  for (PointResult& p : other) p.outcomes.images.clear();
  CHECK(pairing(other) == Pairing::kOtherImages);  // two that are not known are not the same
  other[1].outcomes = {};
  CHECK(pairing(other) == Pairing::kOutcomesMissing);
  for (const Pairing p : {Pairing::kPaired, Pairing::kOtherImages, Pairing::kOutcomesMissing, Pairing::kSeedsUnknown})
    CHECK(meaning_of(p).size() > 50);
}

}  // namespace
}  // namespace nibble::apps
