#include "apps/report/study_charts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "nn/study/published_points.hpp"

namespace nibble::apps {

namespace {

constexpr size_t kSmallCurveSamples = 60;  // of a training curve in a small picture

ChartPoint point_of(const StudyGroup& group, double x) {
  ChartPoint p = plain_mark(x, group.top1.value);
  p.error = group.top1.error;
  p.label = fmt::format("x{:g}", group.width);
  p.tooltip = describe(group);
  return p;
}

/// One series per precision, in the order of the groups, each ascending in width.
template <typename X>
std::vector<Series> series_of(const std::vector<StudyGroup>& groups, X x) {
  std::vector<Series> all;
  for (const StudyGroup& g : groups) {
    if (all.empty() || all.back().name != g.precision) all.push_back({g.precision, look_of(g.precision), {}});
    all.back().points.push_back(point_of(g, x(g)));
  }
  return all;
}

template <typename Points>
Chart curves(const std::vector<StudyGroup>& groups, double width, const std::string& name, const std::string& y_title,
             Points points) {
  Chart chart;
  chart.name = fmt::format("{} by epoch at width {:g}", name, width);
  chart.x.title = "epoch";
  chart.y.title = y_title;
  chart.end_names = true;
  chart.height = 300;
  for (const StudyGroup& g : groups) {
    if (g.width != width) continue;
    for (const PointResult* p : g.points)
      chart.series.push_back({g.precision, look_of(g.precision), points(*p), true, p == g.points.front()});
  }
  return chart;
}

}  // namespace

std::vector<double> widths_of(const std::vector<StudyGroup>& groups) {
  std::set<double> widths;
  for (const StudyGroup& g : groups) widths.insert(g.width);
  return {widths.begin(), widths.end()};
}

std::string describe(const StudyGroup& g) {
  std::string text = fmt::format("{}: top-1 {} % (standard error {}, {} seed{}), linear cost {}", g.name(),
                                 decimal(g.top1.value, 2), decimal(g.top1.error, 2), g.points.size(),
                                 g.points.size() == 1 ? "" : "s", decimal(g.first().ratio.linear, 3));
  if (g.first().served_bytes > 0)
    text += fmt::format(", {} MB", decimal(static_cast<double>(g.first().served_bytes) * 1e-6, 2));
  if (g.latency_ms > 0) text += fmt::format(", {} ms", decimal(g.latency_ms, 2));
  return text;
}

Chart cost_chart(const std::vector<StudyGroup>& groups, const CostKind& cost) {
  Chart chart;
  chart.name = fmt::format("top-1 accuracy against {}", cost.title);
  chart.x = {cost.title, Scale::kLog, {}, {}};
  chart.y.title = "top-1 %";
  chart.series = series_of(groups, [&](const StudyGroup& g) { return cost.of(g); });
  const std::vector<const StudyGroup*> front = front_of(groups, cost);
  for (const StudyGroup* g : front) chart.front.push_back(plain_mark(cost.of(*g), g->top1.value));
  size_t i = 0;
  for (Series& s : chart.series) {
    for (ChartPoint& p : s.points) {
      const StudyGroup* group = &groups[i++];
      p.hollow = std::find(front.begin(), front.end(), group) == front.end();
      if (p.hollow) p.tooltip += ", dominated";
    }
  }
  chart.inset = published_chart(cost);
  return chart;
}

Chart width_chart(const std::vector<StudyGroup>& groups) {
  Chart chart;
  chart.name = "top-1 accuracy against width";
  chart.x.title = "width (filter multiplier)";
  chart.y.title = "top-1 %";
  chart.series = series_of(groups, [](const StudyGroup& g) { return g.width; });
  constexpr double kApart = 9;  // of the error bars of one width
  double shift = -kApart / 2 * static_cast<double>(chart.series.size() - 1);
  for (Series& s : chart.series) {
    for (ChartPoint& p : s.points) p.label.clear();
    s.shift = shift;
    shift += kApart;
  }
  return chart;
}

std::shared_ptr<const Chart> published_chart(const CostKind& cost) {
  const std::string_view key = cost.key;
  double CostRatio::*ratio = key == "linear"      ? &CostRatio::linear
                             : key == "quadratic" ? &CostRatio::quadratic
                             : key == "memory"    ? &CostRatio::memory
                                                  : nullptr;
  if (ratio == nullptr) return nullptr;
  auto chart = std::make_shared<Chart>();
  chart->name = "the paper: ResNet-50, ImageNet";
  chart->x.scale = Scale::kLog;
  for (const PublishedPoint& p : published_points()) {
    if (p.width < 0.5 || p.width > 2) continue;  // as in the published figures
    if (chart->series.empty() || chart->series.back().name != p.precision)
      chart->series.push_back({p.precision, look_of(p.precision), {}});
    chart->series.back().points.push_back(plain_mark(published_cost(p).*ratio, p.top1));
  }
  return chart;
}

Chart accuracy_curves(const std::vector<StudyGroup>& groups, double width) {
  return curves(groups, width, "validation accuracy", "top-1 % on validation images", [](const PointResult& p) {
    std::vector<ChartPoint> points;
    for (const EvalSample& s : p.curves.evaluations) {
      points.push_back(plain_mark(s.epoch, s.top1));
      points.back().tooltip = fmt::format("{}, epoch {}: {} %", p.name, decimal(s.epoch, 1), decimal(s.top1, 2));
    }
    return points;
  });
}

Chart loss_curves(const std::vector<StudyGroup>& groups, double width) {
  return curves(groups, width, "training loss", "cross entropy of training batches", [](const PointResult& p) {
    std::vector<ChartPoint> points;
    for (const TrainSample& s : thinned(p.curves.train, kSmallCurveSamples)) {
      points.push_back(plain_mark(s.epoch, s.loss));
      points.back().tooltip = fmt::format("{}, epoch {}: {}", p.name, decimal(s.epoch, 1), decimal(s.loss, 3));
    }
    return points;
  });
}

}  // namespace nibble::apps
