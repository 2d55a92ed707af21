#include "apps/report/columns.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/report/axis.hpp"
#include "apps/report/svg.hpp"

namespace nibble::apps {

namespace {

constexpr double kWidth = 520, kHeight = 190;
constexpr double kLeft = 46, kRight = 516, kTop = 24, kBottom = 164;

double amount(double value) {
  return std::isfinite(value) && value > 0 ? value : 0;
}

void draw_grid(Xml& svg, const AxisMap& y) {
  for (const double t : ticks(y, 5)) {
    const std::string at = coordinate(y.at(t));
    svg.leaf("path", {{"class", "grid"}, {"d", fmt::format("M{} {}H{}", coordinate(kLeft), at, coordinate(kRight))}});
    svg.element(
        "text",
        {{"class", "quiet"}, {"x", coordinate(kLeft - 5)}, {"y", coordinate(y.at(t) + 4)}, {"text-anchor", "end"}},
        tick_label(t));
  }
}

/// A line under each group that is wide enough to be named.
void draw_groups(Xml& svg, const std::vector<Column>& columns, double step) {
  for (size_t first = 0; first < columns.size();) {
    size_t last = first;
    while (last < columns.size() && columns[last].group == columns[first].group) ++last;
    const double x0 = kLeft + step * static_cast<double>(first), x1 = kLeft + step * static_cast<double>(last);
    svg.leaf("path",
             {{"class", "axis"},
              {"d", fmt::format("M{} {}H{}", coordinate(x0 + 1), coordinate(kBottom + 4), coordinate(x1 - 1))}});
    const std::string name = cut_short(columns[first].group, 16);
    if (7.0 * static_cast<double>(name.size()) <= x1 - x0)
      svg.element("text",
                  {{"class", "quiet"},
                   {"x", coordinate((x0 + x1) / 2)},
                   {"y", coordinate(kBottom + 19)},
                   {"text-anchor", "middle"}},
                  name);
    first = last;
  }
}

}  // namespace

std::string draw(const ColumnChart& chart) {
  Xml svg;
  svg.open("svg", {{"class", "draw"},
                   {"viewBox", fmt::format("0 0 {} {}", coordinate(kWidth), coordinate(kHeight))},
                   {"role", "img"},
                   {"aria-label", chart.name}});
  svg.element("text", {{"x", "4"}, {"y", "13"}}, cut_short(chart.y_title, 64));
  double highest = amount(chart.highest);
  for (const Column& c : chart.columns) highest = std::max(highest, amount(c.value));
  const Axis axis{.low = 0, .high = highest > 0 ? highest : 1};
  const AxisMap y = fit_axis(axis, {0, *axis.high}, kBottom, kTop);
  draw_grid(svg, y);
  const double step = (kRight - kLeft) / static_cast<double>(std::max<size_t>(chart.columns.size(), 1));
  for (size_t i = 0; i < chart.columns.size(); ++i) {
    const Column& c = chart.columns[i];
    const double top = y.at(std::min(amount(c.value), y.high));
    svg.open("rect", {{"class", "fill s" + std::to_string(c.colour)},
                      {"x", coordinate(kLeft + step * (static_cast<double>(i) + 0.1))},
                      {"y", coordinate(top)},
                      {"width", coordinate(0.8 * step)},
                      {"height", coordinate(kBottom - top)}});
    if (!c.tooltip.empty()) svg.element("title", {}, c.tooltip);
    svg.close();
  }
  draw_groups(svg, chart.columns, step);
  return svg.close().finish();
}

std::string code_strip(const std::vector<int64_t>& counts, const std::string& name) {
  constexpr size_t kMost = 16;
  const size_t cells = std::min(counts.size(), kMost);
  std::vector<double> sums(cells, 0);
  double total = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double n = amount(static_cast<double>(counts[i]));
    sums[i * cells / counts.size()] += n;
    total += n;
  }
  Xml svg;
  svg.open("svg", {{"class", "draw strip s0"}, {"viewBox", "0 0 160 14"}, {"role", "img"}, {"aria-label", name}});
  std::string shares;
  for (size_t i = 0; i < cells; ++i) {
    const double share = total > 0 ? sums[i] / total : 0;
    // The root, so that a code of 1 % is still visible next to one of 60 %.
    svg.leaf("path", {{"class", "cell"},
                      {"d", fmt::format("M{}.5 1h9v12h-9z", 10 * i)},
                      {"fill-opacity", coordinate(std::sqrt(share))}});
    shares += (i > 0 ? ", " : "") + decimal(100 * share, 1);
  }
  svg.element("title", {}, shares + " %");
  return svg.close().finish();
}

std::string share_bar(double share, int colour) {
  const double width = 100 * std::clamp(amount(share), 0.0, 1.0);
  Xml svg;
  svg.open("svg", {{"class", "draw sharebar s" + std::to_string(colour)},
                   {"viewBox", "0 0 100 10"},
                   {"preserveAspectRatio", "none"},
                   {"aria-hidden", "true"}});
  svg.leaf("rect", {{"class", "fill"}, {"width", coordinate(width)}, {"height", "10"}});
  return svg.close().finish();
}

}  // namespace nibble::apps
