// Ticks and ranges of the reports' axes.
#include "apps/report/axis.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace nibble::apps {
namespace {

AxisMap map_of(Scale scale, double low, double high) {
  return {scale, low, high, 0, 100};
}

TEST_CASE("axis: linear ticks are multiples of 1, 2 or 5 times a power of ten inside the range") {
  CHECK(ticks(map_of(Scale::kLinear, 0, 10), 6) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(ticks(map_of(Scale::kLinear, 68.3, 74.2), 7) == std::vector<double>{69, 70, 71, 72, 73, 74});
  CHECK(ticks(map_of(Scale::kLinear, -5, 5), 5) == std::vector<double>{-4, -2, 0, 2, 4});
  const std::vector<double> tenths = ticks(map_of(Scale::kLinear, 0, 0.31), 5);
  REQUIRE(tenths.size() == 4);
  CHECK(tenths[3] == doctest::Approx(0.3));
}

TEST_CASE("axis: logarithmic ticks are 1, 2, 5 of each decade, or whole decades when those are too many") {
  CHECK(ticks(map_of(Scale::kLog, 0.04, 3), 8) == std::vector<double>{0.05, 0.1, 0.2, 0.5, 1, 2});
  CHECK(ticks(map_of(Scale::kLog, 0.5, 2e4), 6) == std::vector<double>{1, 10, 100, 1000, 10000});
  for (const double t : ticks(map_of(Scale::kLog, 1e-9, 1e9), 6)) {
    const double decade = std::log10(t);
    CHECK(decade == doctest::Approx(std::round(decade)));
  }
}

TEST_CASE("axis: a logarithmic range of less than a decade still has three ticks") {
  CHECK(ticks(map_of(Scale::kLog, 1.1, 1.9), 8).size() >= 3);
  CHECK(ticks(map_of(Scale::kLog, 30, 44), 8).size() >= 3);
}

TEST_CASE("axis: there are between 2 and `most` ticks for ranges of every size, and all lie inside") {
  for (const Scale scale : {Scale::kLinear, Scale::kLog}) {
    for (const double low : {1e-90, 3e-5, 0.07, 1.0, 99.0, 12345.0, 1e60}) {
      for (const double factor : {1.0001, 1.3, 2.0, 9.0, 1234.0, 1e12}) {
        for (const int most : {5, 6, 8}) {
          CAPTURE(low);
          CAPTURE(factor);
          const AxisMap map = map_of(scale, low, low * factor);
          const std::vector<double> all = ticks(map, most);
          CHECK(all.size() >= 2);
          CHECK(all.size() <= static_cast<size_t>(most));
          for (const double t : all) {
            CHECK(map.at(t) >= -1e-3);
            CHECK(map.at(t) <= 100 + 1e-3);
          }
        }
      }
    }
  }
}

TEST_CASE("axis: the range holds every value with room to spare, and equal values do not collapse it") {
  for (const Scale scale : {Scale::kLinear, Scale::kLog}) {
    const AxisMap map = fit_axis({"", scale, {}, {}}, {0.25, 4, 1}, 0, 100);
    CHECK(map.low < 0.25);
    CHECK(map.high > 4);
    CHECK(map.at(0.25) > 0);
    CHECK(map.at(4) < 100);
    const AxisMap one = fit_axis({"", scale, {}, {}}, {7, 7}, 0, 100);
    CHECK(one.at(7) == doctest::Approx(50));
    CHECK(one.high > one.low);
  }
  const AxisMap fixed = fit_axis({"", Scale::kLinear, 0.0, 100.0}, {30, 60}, 200, 0);
  CHECK(fixed.at(0) == 200);
  CHECK(fixed.at(100) == 0);
}

TEST_CASE("axis: values that cannot be shown change nothing") {
  const double inf = std::numeric_limits<double>::infinity();
  const AxisMap map = fit_axis({"", Scale::kLog, {}, {}}, {-1, 0, std::nan(""), inf, 1e300, 2, 3}, 0, 100);
  CHECK(map.low > 1);
  CHECK(map.high < 4);
  CHECK_FALSE(map.shows(0));
  CHECK_FALSE(map.shows(-1));
  CHECK_FALSE(map.shows(std::nan("")));
  CHECK(map.shows(2.5));
  const AxisMap none = fit_axis({"", Scale::kLog, {}, {}}, {-1, std::nan("")}, 0, 100);
  CHECK(ticks(none, 5).size() >= 2);
}

TEST_CASE("axis: tick labels have no digits that say nothing") {
  CHECK(tick_label(0) == "0");
  CHECK(tick_label(0.1 + 0.2) == "0.3");
  CHECK(tick_label(70) == "70");
  CHECK(tick_label(25000) == "25,000");
  CHECK(tick_label(2e7) == "2e+07");
}

}  // namespace
}  // namespace nibble::apps
