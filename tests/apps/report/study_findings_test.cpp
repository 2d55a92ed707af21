// The published findings put to the test by a study: verdicts, their errors, and what is compared with what.
#include "apps/report/study_findings.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "apps/report/statistics.hpp"
#include "tests/apps/report/small_study.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::has;
using testing::point;
using testing::small_study;

// Places of the findings.
constexpr size_t kBf16Cost = 0, kW8a8Cost = 1, kGap = 2, kEnds = 3, kWidth = 4;

TEST_CASE("study findings: the published findings hold where they were built in, and not where they were not") {
  std::vector<PointResult> points = small_study();
  std::vector<Finding> f = findings_of(group_points(points));
  REQUIRE(f.size() == 5);
  for (const size_t i : {kBf16Cost, kGap, kEnds}) CHECK_MESSAGE(f[i].verdict == Verdict::kHolds, f[i].evidence);
  CHECK(f[kW8a8Cost].verdict == Verdict::kNotTested);  // the cheaper 4-bit models are less accurate
  CHECK(f[kWidth].verdict == Verdict::kUndecided);     // one point more at equal width, with an error of 0.64
  for (PointResult& p : points) {
    if (p.precision == "w4a4-fl8") p.best.top1 -= 30;
    if (p.precision != "bf16") p.train_unaugmented.top1 = 100;
  }
  f = findings_of(group_points(points));
  for (const size_t i : {kBf16Cost, kGap, kEnds, kWidth})
    CHECK_MESSAGE(f[i].verdict == Verdict::kContradicted, f[i].evidence);
  f = findings_of(group_points({points[0]}));
  for (const Finding& finding : f) CHECK(finding.verdict == Verdict::kNotTested);
}

TEST_CASE("study findings: at equal cost means 80 to 100 %; a cheaper 4-bit model can confirm, but not contradict") {
  // Linear costs of resnet26: bf16 x0.5 0.295, w4a4-fl8 x1 0.263 (89 % of it), bf16 x1 1.
  std::vector<PointResult> points = {point("bf16", 1, 75), point("w4a4-fl8", 1, 71)};
  Finding f = findings_of(group_points(points))[kBf16Cost];
  CHECK(f.verdict == Verdict::kNotTested);
  CHECK(has(f.evidence,
            "no w4a4-fl8 model of 80 to 100 % of the linear cost of one in bf16. Compared with one bf16 model,"));
  points[1].best.top1 = 79;
  f = findings_of(group_points(points))[kBf16Cost];
  CHECK(f.verdict == Verdict::kHolds);
  CHECK(has(f.evidence, "the best that is cheaper still is more accurate in 1 case; the mean difference is +4.00"));
  points.push_back(point("bf16", 0.5, 82));
  f = findings_of(group_points(points))[kBf16Cost];
  CHECK(f.verdict == Verdict::kContradicted);
  CHECK(has(f.evidence, "more accurate in 0 cases; the mean difference is -3.00"));
  CHECK(has(f.evidence, "Another bf16 model has no w4a4-fl8 model of equal cost."));
  CHECK(findings_of(group_points({point("bf16", 0.5, 60), point("w4a4-fl8", 2, 71)}))[kBf16Cost].verdict ==
        Verdict::kNotTested);
}

TEST_CASE("study findings: the luckiest of several cheaper 4-bit models confirms nothing") {
  // All far below the cost of the bf16 model, one of them above it in accuracy.
  const std::vector<PointResult> several = {point("bf16", 2, 70), point("w4a4-fl8", 0.25, 68),
                                            point("w4a4-fl8", 0.5, 73)};
  CHECK(findings_of(group_points(several))[kBf16Cost].verdict == Verdict::kNotTested);
  CHECK(findings_of(group_points({several[0], several[2]}))[kBf16Cost].verdict == Verdict::kHolds);
}

TEST_CASE("study findings: 4 bits are compared with 8 at equal cost, too") {
  // Linear costs of resnet26: w8a8 x0.75 0.293, w4a4-fl8 x1 0.263 (90 % of it).
  std::vector<PointResult> points = {point("w8a8", 0.75, 70), point("w4a4-fl8", 1, 73), point("bf16", 1, 71)};
  Finding f = findings_of(group_points(points))[kW8a8Cost];
  CHECK(f.verdict == Verdict::kHolds);
  CHECK(has(f.claim, "beat w8a8 at equal cost"));
  CHECK(has(f.evidence,
            "Compared with one w8a8 model, the best w4a4-fl8 model of 80 to 100 % of its linear cost is "
            "more accurate in 1 case; the mean difference is +3.00"));
  points[1].best.top1 = 67;
  points.push_back(point("w8a8", 0.25, 60));
  f = findings_of(group_points(points))[kW8a8Cost];
  CHECK(f.verdict == Verdict::kContradicted);
  CHECK(has(f.evidence, "Another w8a8 model has no w4a4-fl8 model of equal cost."));
}

TEST_CASE("study findings: at equal width w4a4-fl8 is compared from 0.75 on, as published; the evidence has all") {
  std::vector<PointResult> points = {point("bf16", 0.5, 70), point("w4a4-fl8", 0.5, 60), point("bf16", 1, 70),
                                     point("w4a4-fl8", 1, 74), point("w8a8", 1, 73)};
  Finding f = findings_of(group_points(points))[kWidth];
  CHECK(f.verdict == Verdict::kHolds);
  CHECK(has(f.evidence, "At equal width w8a8 less bf16 is +3.00 points"));
  CHECK(has(f.evidence, "w4a4-fl8 less bf16 is -3.00 points"));
  CHECK(has(f.evidence, "over 2 widths."));
  CHECK(has(f.evidence, "From 0.75 on, w4a4-fl8 less bf16 is +4.00 points"));
  points[3].best.top1 = 66;
  CHECK(findings_of(group_points(points))[kWidth].verdict == Verdict::kContradicted);
  points[3].best.top1 = 70.5;
  CHECK(findings_of(group_points(points))[kWidth].verdict == Verdict::kUndecided);
  f = findings_of(group_points({points[0], points[1]}))[kWidth];
  CHECK(f.verdict == Verdict::kNotTested);
  CHECK(has(f.evidence, "-10.00 points"));
}

TEST_CASE("study findings: that fewer bits leave a smaller gap is one test of 8 and 4 bits together") {
  const auto verdict = [](double eight, double four) {
    std::vector<PointResult> points = {point("bf16", 1, 70), point("w8a8", 1, 70), point("w4a4", 1, 70)};
    const double gaps[] = {10, eight, four};
    for (size_t i = 0; i < 3; ++i) points[i].train_unaugmented.top1 = 70 + gaps[i];
    return findings_of(group_points(points))[kGap].verdict;
  };
  CHECK(verdict(5, 5) == Verdict::kHolds);
  CHECK(verdict(10, 5) == Verdict::kHolds);
  CHECK(verdict(10, 10) == Verdict::kUndecided);
  CHECK(verdict(15, 5) == Verdict::kUndecided);
  CHECK(verdict(15, 10) == Verdict::kContradicted);
}

TEST_CASE("study findings: a difference within two standard errors decides nothing") {
  // 100 images: each accuracy is known to about 4.9 points, their difference to 6.9.
  std::vector<PointResult> points = {point("w4a4-fl8", 1, 60), point("w4a4", 1, 50)};
  for (PointResult& p : points) p.last.images = 100;
  CHECK(findings_of(group_points(points))[kEnds].verdict == Verdict::kUndecided);
  points[0].best.top1 = 70;
  CHECK(findings_of(group_points(points))[kEnds].verdict == Verdict::kHolds);
}

TEST_CASE("study findings: an error that few seeds tell decides later") {
  CHECK(decisive_errors(0.5) == 12.706);
  CHECK(decisive_errors(1) == 12.706);
  CHECK(decisive_errors(4.9) == 2.776);
  CHECK(decisive_errors(30) == 2.042);
  CHECK(decisive_errors(60.9) == 2.042);
  CHECK(decisive_errors(61) == 2);
  CHECK(decisive_errors(std::numeric_limits<double>::infinity()) == 2);
  // Enough images that only the seeds count. One model of two seeds has a spread of 1 (72 and 72 + sqrt(2)): its mean
  // has an error of sqrt(1/2), the other's is 1, and their difference is known to sqrt(3/2) with one degree of freedom.
  const auto verdict = [](double difference, int more_seeds) {
    std::vector<PointResult> points = {point("w4a4-fl8", 1, 72), point("w4a4-fl8", 1, 72 + std::sqrt(2.0), 1)};
    for (int i = 0; i < more_seeds; ++i) {  // pairs of the same spread at widths that nothing is compared with
      points.push_back(point("w8a8", 1 + i, 72));
      points.push_back(point("w8a8", 1 + i, 72 + std::sqrt(2.0), 1));
    }
    points.push_back(point("w4a4", 1, 72 + std::sqrt(0.5) - difference));
    for (PointResult& p : points) p.last.images = 1'000'000'000;
    return findings_of(group_points(points))[kEnds].verdict;
  };
  const double error = std::sqrt(1.5);
  CHECK(verdict(12 * error, 0) == Verdict::kUndecided);
  CHECK(verdict(13 * error, 0) == Verdict::kHolds);
  CHECK(verdict(2.7 * error, 3) == Verdict::kUndecided);  // four degrees
  CHECK(verdict(2.8 * error, 3) == Verdict::kHolds);
  CHECK(verdict(-2.8 * error, 3) == Verdict::kContradicted);
}

TEST_CASE("study findings: a model compared with several counts its error for each of them") {
  // Both bf16 models meet the same cheaper w4a4-fl8 model: (71 - 70 + 71 - 60) / 2, error sqrt((2 e)^2 + e^2 + e^2)
  // / 2.
  std::vector<PointResult> points = {point("bf16", 1, 70), point("bf16", 2, 60), point("w4a4-fl8", 1, 71)};
  const Finding f = findings_of(group_points(points))[kBf16Cost];
  const double a = 2 * std::sqrt(0.71 * 0.29), b = std::sqrt(0.7 * 0.3), c = std::sqrt(0.6 * 0.4);
  CHECK(has(f.evidence, fmt::format("+6.00 points (standard error {:.2f}, of the images alone)",
                                    std::sqrt(a * a + b * b + c * c) / 2)));
}

}  // namespace
}  // namespace nibble::apps
