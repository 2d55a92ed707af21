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
