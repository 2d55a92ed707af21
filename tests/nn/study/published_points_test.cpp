// The published results: complete, at the published costs, and true to what was concluded from them.
#include "nn/study/published_points.hpp"

#include <doctest/doctest.h>

#include <map>
#include <string>

namespace {

using namespace nibble;

const PublishedPoint& point(const std::string& precision, double width) {
  for (const PublishedPoint& p : published_points())
    if (precision == p.precision && width == p.width) return p;
  FAIL("no such point");
  return published_points().front();
}

}  // namespace

TEST_CASE("there are 38 published points, nine widths of each precision and two more of bf16") {
  std::map<std::string, int> count;
  for (const PublishedPoint& p : published_points()) ++count[p.precision];
  CHECK(count == std::map<std::string, int>{{"bf16", 11}, {"w8a8", 9}, {"w4a4-fl8", 9}, {"w4a4", 9}});
  CHECK(point("w4a4-fl8", 1).top1 == 77.088);
  CHECK(point("bf16", 1).top1 == 76.654);
}

TEST_CASE("the figures of each precision add up as they did when they were copied") {
  struct Sums {
    double top1 = 0, train_top1 = 0, train_loss = 0, eval_loss = 0;
  };
  std::map<std::string, Sums> sums;
  for (const PublishedPoint& p : published_points()) {
    Sums& s = sums[p.precision];
    s.top1 += p.top1;
    s.train_top1 += p.train_top1;
    s.train_loss += p.train_loss;
    s.eval_loss += p.eval_loss;
  }
  const auto check = [&](const char* precision, const Sums& expected) {
    CAPTURE(precision);
    CHECK(sums[precision].top1 == doctest::Approx(expected.top1).epsilon(1e-7));
    CHECK(sums[precision].train_top1 == doctest::Approx(expected.train_top1).epsilon(1e-7));
    CHECK(sums[precision].train_loss == doctest::Approx(expected.train_loss).epsilon(1e-6));
    CHECK(sums[precision].eval_loss == doctest::Approx(expected.eval_loss).epsilon(1e-6));
  };
  check("bf16", {837.228, 758.71, 5.8276, 8.9276});
  check("w8a8", {692.816, 743.67, 6.5311, 8.2009});
  check("w4a4-fl8", {689.347, 733.08, 6.9719, 8.3335});
  check("w4a4", {683.328, 721.94, 7.4685, 8.5705});
}

TEST_CASE("published points have the published costs") {
  const CostRatio fl8 = published_cost(point("w4a4-fl8", 1));
  CHECK(fl8.linear == doctest::Approx(0.257340).epsilon(1e-5));
  CHECK(fl8.quadratic == doctest::Approx(0.068005).epsilon(1e-5));
  CHECK(fl8.memory == doctest::Approx(0.270168).epsilon(1e-5));
  CHECK(published_cost(point("bf16", 1)).linear == 1);
  CHECK(published_cost(point("w4a4-fl8", 0.75)).linear == doctest::Approx(0.152).epsilon(0.005));
}

TEST_CASE("the published gap between training and evaluation shrinks with the bits") {
  const auto gap = [](const char* precision) {
    const PublishedPoint& p = point(precision, 1);
    return p.eval_loss - p.train_loss;
  };
  CHECK(gap("bf16") == doctest::Approx(0.3412));
  CHECK(gap("w8a8") == doctest::Approx(0.1581));
  CHECK(gap("w4a4-fl8") == doctest::Approx(0.1266));
  CHECK(gap("w4a4") == doctest::Approx(0.0979));
}
