// What the reports' charts draw, and that they draw it well-formed whatever they are given.
#include "apps/report/chart.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "apps/report/columns.hpp"
#include "tests/apps/report/xml_checker.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::count_of;
using testing::xml_facts;

Chart two_series() {
  Chart chart;
  chart.name = "accuracy against cost";
  chart.x = {"cost", Scale::kLog, {}, {}};
  chart.y = {"top-1 %", Scale::kLinear, {}, {}};
  for (const char* precision : {"bf16", "w4a4-fl8"}) {
    Series s{precision, look_of(precision), {}};
    for (const double x : {0.25, 1.0}) {
      ChartPoint p;
      p.x = precision[0] == 'b' ? x : x / 4;
      p.y = 60 + 5 * x;
      p.label = tick_label(x);
      p.tooltip = std::string(precision) + " x" + p.label;
      s.points.push_back(p);
    }
    chart.series.push_back(s);
  }
  return chart;
}

TEST_CASE("chart: each point is a mark with its tooltip, each series is named in the legend") {
  const std::string svg = draw(two_series());
  CHECK(xml_facts(svg).problem.empty());
  CHECK(count_of(svg, "class=\"mark\"") == 4 + 2);  // and one in the legend for each series
  CHECK(count_of(svg, "<title>w4a4-fl8 x0.25</title>") == 1);
  CHECK(count_of(svg, ">w4a4-fl8</text>") == 1);
  CHECK(count_of(svg, "aria-label=\"accuracy against cost\"") == 1);
}

TEST_CASE("chart: a label that finds no room next to its mark stands further away, at the end of a line") {
  // Marks side by side, 40 units apart, with error bars: labels as wide as two of these distances cannot all be near.
  Chart chart = two_series();
  chart.x = {"", Scale::kLinear, 0.0, 12.0};
  chart.y = {"", Scale::kLinear, 0.0, 100.0};
  chart.series[1].points = {};
  chart.series[0].points = {};
  for (int i = 1; i < 12; ++i) {
    ChartPoint p;
    p.x = i;
    p.y = 50 + i % 3;
    p.error = 6;
    p.label = "precision " + std::to_string(i);
    chart.series[0].points.push_back(p);
  }
  const auto labels = [&](const std::string& svg) { return count_of(svg, ">precision "); };
  const std::string crowded = draw(chart);
  CHECK(xml_facts(crowded).problem.empty());
  CHECK(labels(crowded) == 11);
  chart.series[0].points.resize(1);
  const std::string alone = draw(chart);
  CHECK(labels(alone) == 1);
  CHECK(count_of(alone, "class=\"axis\"") < count_of(crowded, "class=\"axis\""));  // the lines
}

TEST_CASE("chart: dominated points are hollow, error bars have the length of two standard errors") {
  Chart chart = two_series();
  chart.y = {"", Scale::kLinear, 0.0, 100.0};
  chart.series[0].points[0].hollow = true;
  chart.series[0].points[1].error = 10;
  const std::string svg = draw(chart);
  CHECK(count_of(svg, "class=\"mark hollow\"") == 1);
  REQUIRE(count_of(svg, "class=\"bar\"") == 1);
  // The plot is 360 - 44 - (30 + 20) = 266 units high for 100 points; the bar goes from 55 to 75.
  const std::string bar = svg.substr(svg.find("class=\"bar\""));
  const double low = std::stod(bar.substr(bar.find(' ', bar.find("d=")) + 1)),
               high = std::stod(bar.substr(bar.find('V') + 1));
  CHECK(low - high == doctest::Approx(0.2 * 266).epsilon(0.001));
}

TEST_CASE("chart: labels have their series' colour and air around them, a line without a name is thin") {
  Chart chart = two_series();
  const std::string labelled = draw(chart);
  CHECK(count_of(labelled, "class=\"label\"") == 4);
  CHECK(count_of(labelled, "<g class=\"s0\"><text") == 2);
  CHECK(count_of(labelled, "<g class=\"s3\"><text") == 2);
  CHECK(testing::has(drawing_style(), ".label{font-size:12px;fill:currentColor;stroke:var(--paper)"));
  for (Series& s : chart.series) s.line = true;
  const auto lines = [&](const char* css) { return count_of(draw(chart), std::string("class=\"") + css + "\""); };
  CHECK(lines("line") == 2 + 2);  // and in the legend
  CHECK(lines("thread") == 0);
  chart.series[1].named = false;
  CHECK(lines("line") == 1 + 1);
  CHECK(lines("thread") == 1);
}

TEST_CASE("chart: series of the same x are shifted apart, marks, bars and lines alike") {
  Chart chart = two_series();
  for (Series& s : chart.series)
    for (ChartPoint& p : s.points) {
      p.x = 1;
      p.error = 2;
      p.label.clear();
    }
  const auto bars = [&] {
    std::vector<double> all;
    const std::string svg = draw(chart);
    for (size_t at = svg.find("class=\"bar\" d=\"M"); at != std::string::npos;
         at = svg.find("class=\"bar\" d=\"M", at + 1))
      all.push_back(std::stod(svg.substr(at + 16)));
    return all;
  };
  CHECK(bars() == std::vector<double>(4, bars().front()));
  chart.series[1].shift = 9;
  const std::vector<double> apart = bars();
  REQUIRE(apart.size() == 4);
  CHECK(apart[2] - apart[0] == doctest::Approx(9));
  CHECK(apart[3] == apart[2]);
}

TEST_CASE("chart: the front is one line of steps through its points, on to the right edge") {
  Chart chart = two_series();
  CHECK(count_of(draw(chart), "class=\"front\"") == 0);
  chart.front = {chart.series[1].points[0], chart.series[1].points[1], chart.series[0].points[1]};
  const std::string svg = draw(chart);
  REQUIRE(count_of(svg, "class=\"front\"") == 1);
  const std::string front = svg.substr(svg.find("class=\"front\""));
  const std::string path = front.substr(0, front.find("/>"));
  CHECK(count_of(path, "M") == 1);
  CHECK(count_of(path, "V") == 2);
  CHECK(count_of(path, "H") == 3);
  CHECK(path.ends_with("H504\""));
}

TEST_CASE("chart: the inset is grey, named, and covers no mark") {
  Chart chart = two_series();
  auto inset = std::make_shared<Chart>(two_series());
  inset->name = "elsewhere";
  chart.inset = inset;
  // Points in every corner: the chart must make room.
  chart.series[0].points = {};
  for (const double x : {0.01, 0.1, 1.0, 10.0})
    for (const double y : {1.0, 2.0, 3.0}) {
      chart.series[0].points.emplace_back();
      chart.series[0].points.back().x = x;
      chart.series[0].points.back().y = y;
    }
  const std::string svg = draw(chart);
  CHECK(xml_facts(svg).problem.empty());
  CHECK(count_of(svg, "class=\"grey\"") == 1);
  CHECK(count_of(svg, ">elsewhere</text>") == 1);
  const std::string frame = svg.substr(svg.find("class=\"frame\""));
  const auto number = [&](const std::string& key) {
    return std::stod(frame.substr(frame.find(key + "=\"") + key.size() + 2));
  };
  const double x0 = number(" x"), y0 = number(" y"), x1 = x0 + number(" width"), y1 = y0 + number(" height");
  const std::string before = svg.substr(0, svg.find("class=\"grey\""));
  int seen = 0;
  for (size_t at = before.find("class=\"mark\" d=\"M"); at != std::string::npos;
       at = before.find("class=\"mark\" d=\"M", at + 1)) {
    const std::string path = before.substr(at + 17, 40);
    const double x = std::stod(path), y = std::stod(path.substr(path.find(' ')));
    CHECK_FALSE((x > x0 && x < x1 && y > y0 && y < y1));
    ++seen;
  }
  CHECK(seen > 12);
}

TEST_CASE("chart: hostile names and values give well-formed pictures") {
  Chart chart = two_series();
  const std::string hostile = "</svg><script>alert(1)</script>\"'&\x01\xFF" + std::string(5000, 'x');
  chart.name = chart.x.title = chart.y.title = hostile;
  chart.series[0].name = chart.series[0].points[0].label = chart.series[0].points[0].tooltip = hostile;
  const double inf = std::numeric_limits<double>::infinity();
  for (const double x : {-1.0, 0.0, inf, -inf, std::nan(""), 1e308, 1e-308}) {
    chart.series[0].points.emplace_back();
    chart.series[0].points.back().x = x;
    chart.series[0].points.back().y = x;
    chart.series[0].points.back().error = x;
  }
  for (const bool end_names : {false, true}) {
    chart.end_names = end_names;
    const std::string svg = draw(chart);
    CAPTURE(svg);
    CHECK(xml_facts(svg).problem.empty());
    CHECK(count_of(svg, "<script") == 0);
    CHECK(count_of(svg, "nan") == 0);
    CHECK(count_of(svg, "inf") == 0);
  }
}

TEST_CASE("chart: without a value to show it says so") {
  Chart chart = two_series();
  for (Series& s : chart.series)
    for (ChartPoint& p : s.points) p.y = std::nan("");
  CHECK(count_of(draw(chart), ">no data</text>") == 1);
  CHECK(count_of(draw(Chart{}), ">no data</text>") == 1);
}

TEST_CASE("chart: names at the lines' ends keep their distance") {
  Chart chart = two_series();
  chart.end_names = true;
  for (Series& s : chart.series) {
    s.line = true;
    s.points[1].x = 1;
    s.points[1].y = 65;  // all lines end at one place
  }
  const std::string svg = draw(chart);
  const auto y_of = [&](const std::string& name) {
    const std::string before = svg.substr(0, svg.find(">" + name + "</text>"));
    return std::stod(before.substr(before.rfind(" y=\"") + 4));
  };
  CHECK(std::abs(y_of("bf16") - y_of("w4a4-fl8")) >= 14);
}

TEST_CASE("chart: known precisions differ in colour and in mark") {
  const char* known[] = {"bf16", "w8a8", "w4a4", "w4a4-fl8"};
  for (const char* a : known)
    for (const char* b : known) {
      if (a == b) continue;
      CHECK(look_of(a).colour != look_of(b).colour);
      CHECK(look_of(a).mark != look_of(b).mark);
    }
  CHECK(look_of("w8a4").colour == look_of("w4a8").colour);
}

TEST_CASE("chart: a file of its own carries its style and a background and nothing from elsewhere") {
  const std::string file = standalone(draw(two_series()));
  const testing::XmlFacts facts = xml_facts(file);
  CHECK(facts.problem.empty());
  CHECK(facts.links.empty());
  CHECK(file.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"draw\""));
  CHECK(count_of(file, "prefers-color-scheme:dark") == 1);
  CHECK(count_of(file, "<rect class=\"paper\" width=\"100%\" height=\"100%\"/>") == 1);
}

TEST_CASE("chart: columns are as high as their values, on the axis that is given") {
  ColumnChart chart{
      "cost", "share", 10, {{"stem", "first", 5, 0}, {"layer1", "", 10, 1}, {"layer1", "", std::nan(""), 1}}};
  const std::string svg = draw(chart);
  CHECK(xml_facts(svg).problem.empty());
  CHECK(count_of(svg, "<rect") == 3);
  CHECK(count_of(svg, "height=\"70\"") == 1);  // half of 164 - 24
  CHECK(count_of(svg, "height=\"140\"") == 1);
  CHECK(count_of(svg, "height=\"0\"") == 1);
  CHECK(count_of(svg, "<title>first</title>") == 1);
  CHECK(count_of(svg, ">layer1</text>") == 1);
  CHECK(xml_facts(draw(ColumnChart{})).problem.empty());
}

TEST_CASE("chart: a strip of codes has one square per code up to 16, then neighbours together") {
  CHECK(count_of(code_strip(std::vector<int64_t>(16, 1), "codes"), "class=\"cell\"") == 16);
  const std::string wide = code_strip(std::vector<int64_t>(256, 1), "codes");
  CHECK(count_of(wide, "class=\"cell\"") == 16);
  CHECK(count_of(wide, "fill-opacity=\"0.25\"") == 16);  // the root of a sixteenth
  CHECK(count_of(code_strip({3, 1}, "codes"), "<title>75.0, 25.0 %</title>") == 1);
  CHECK(xml_facts(code_strip({}, "<\"&")).problem.empty());
  CHECK(xml_facts(code_strip({0, 0, -5}, "none")).problem.empty());
}

TEST_CASE("chart: a share's bar never leaves its cell") {
  CHECK(count_of(share_bar(0.25, 1), "width=\"25\"") == 1);
  CHECK(count_of(share_bar(7, 1), "width=\"100\"") == 1);
  CHECK(count_of(share_bar(std::nan(""), 1), "width=\"0\"") == 1);
}

}  // namespace
}  // namespace nibble::apps
