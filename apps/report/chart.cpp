#include "apps/report/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "apps/report/label_places.hpp"

namespace nibble::apps {

namespace {

constexpr size_t kLongestLabel = 36;
constexpr double kTextSize = 14;  // px
constexpr double kRow = 20;       // of the legend
constexpr double kInsetWidth = 218, kInsetHeight = 142;
constexpr int kNobody = -1;  // owns the front's steps

/// In a wide sans-serif face (DejaVu Sans), rounded up: a mean over all letters cut the end off "w8a8".
double text_width(const std::string& text) {
  double ems = 0;
  for (const char c : cut_short(text, kLongestLabel)) {
    const std::string_view wide = "mwMW%", narrow = "fijlrtI.,:;-()' ";
    ems += wide.find(c) != wide.npos ? 0.98 : narrow.find(c) != narrow.npos ? 0.42 : 0.66;
  }
  return kTextSize * ems;
}

std::string colour_class(const Look& look) {
  return "s" + std::to_string(look.colour);
}

/// One pair of axes and what is drawn between them: the chart itself or, inside it, the inset.
class Plot {
 public:
  Plot(Xml& svg, const Chart& chart, const Box& area, bool is_inset)
      : svg_(svg), chart_(chart), area_(area), is_inset_(is_inset), places_(area) {
    std::vector<double> xs, ys;
    for (const Series& s : chart.series) {
      for (const ChartPoint& p : s.points) {
        xs.push_back(p.x);
        ys.insert(ys.end(), {p.y - std::abs(p.error), p.y + std::abs(p.error)});
      }
    }
    x_ = fit_axis(chart.x, xs, area.x0, area.x1);
    y_ = fit_axis(chart.y, ys, area.y1, area.y0);
    occupy_marks();
  }

  bool empty() const {
    return std::none_of(chart_.series.begin(), chart_.series.end(), [&](const Series& s) {
      return std::any_of(s.points.begin(), s.points.end(), [&](const ChartPoint& p) { return shown(p); });
    });
  }

  /// A corner that has room for the inset, if there is one.
  std::optional<Box> place_inset() {
    const double gap = 8;
    const double left = area_.x0 + gap + 4, right = area_.x1 - gap - kInsetWidth;
    const double top = area_.y0 + gap, bottom = area_.y1 - gap - kInsetHeight;
    for (const auto& [x, y] : {std::pair{right, bottom}, {left, top}, {right, top}, {left, bottom}}) {
      const Box box{x, y, x + kInsetWidth, y + kInsetHeight};
      if (!places_.free(box)) continue;
      places_.take(box);
      return box;
    }
    return std::nullopt;
  }

  void draw_axes() {
    for (const double t : ticks(x_, area_.x1 - area_.x0 < 300 ? 5 : 8)) {
      line("grid", x_.at(t), area_.y0, x_.at(t), area_.y1);
      text(x_.at(t), area_.y1 + (is_inset_ ? 12 : 16), "middle", quiet(), tick_label(t));
    }
    for (const double t : ticks(y_, is_inset_ ? 5 : 7)) {
      line("grid", area_.x0, y_.at(t), area_.x1, y_.at(t));
      text(area_.x0 - 5, y_.at(t) + 4, "end", quiet(), tick_label(t));
    }
    line("axis", area_.x0, area_.y1, area_.x1, area_.y1);
    const double middle = (area_.x0 + area_.x1) / 2;
    if (is_inset_) return;
    text(middle, area_.y1 + 36, "middle", "", cut_short(chart_.x.title, 64));
    text(4, area_.y0 - 9, "start", "", cut_short(chart_.y.title, 64));
  }

  void draw_guides() {
    for (const Guide& g : chart_.guides) {
      if (!x_.shows(g.x)) continue;
      const double x = x_.at(g.x), width = text_width(g.words) * 0.85;
      const bool right = x + 6 + width < area_.x1;
      svg_.leaf("path", {{"class", "axis"},
                         {"stroke-dasharray", "4 3"},
                         {"d", fmt::format("M{} {}V{}", coordinate(x), coordinate(area_.y0), coordinate(area_.y1))}});
      text(x + (right ? 5 : -5), area_.y1 - 7, right ? "start" : "end", "quiet small",
           cut_short(g.words, kLongestLabel));
    }
  }

  void draw_front() {
    std::string path;
    double last_x = 0, last_y = 0;
    for (const ChartPoint& p : chart_.front) {
      if (!shown(p)) continue;
      if (!path.empty()) places_.avoid({last_x, last_y, x_.at(p.x), last_y}, kNobody);
      last_x = x_.at(p.x);
      const std::string x = coordinate(x_.at(p.x)), y = coordinate(y_.at(p.y));
      path += path.empty() ? "M" + x + " " + y : "H" + x + "V" + y;
      last_y = y_.at(p.y);
    }
    if (path.empty()) return;
    path += "H" + coordinate(area_.x1);
    places_.avoid({last_x, last_y, area_.x1, last_y}, kNobody);
    svg_.leaf("path", {{"class", "front"}, {"d", path}});
  }

  void draw_series() {
    for (const Series& s : chart_.series) {
      svg_.open("g", {{"class", colour_class(s.look)}});
      draw_path(s);
      for (size_t i = 0; i < s.points.size(); ++i) draw_point(s, i);
      svg_.close();
    }
  }

  /// In the colour of their series. Where no place is left, the tooltip still says it.
  void draw_labels() {
    std::vector<LabelledMark> marks;
    std::vector<const ChartPoint*> points;
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      const Series& s = chart_.series[i];
      for (const ChartPoint& p : s.points) {
        if (p.label.empty() || !shown(p)) continue;
        marks.push_back({x_of(s, p), y_.at(p.y), reach(p), text_width(p.label) * 0.85, static_cast<int>(i)});
        points.push_back(&p);
      }
    }
    const std::vector<std::optional<LabelPlace>> found = places_.place(marks);
    for (size_t i = 0; i < found.size(); ++i) {
      if (!found[i]) continue;
      svg_.open("g", {{"class", colour_class(chart_.series[static_cast<size_t>(marks[i].owner)].look)}});
      if (const auto& l = found[i]->leader) line("axis", l->x0, l->y0, l->x1, l->y1);
      const Box& box = found[i]->box;
      text((box.x0 + box.x1) / 2, box.y1 - 2, "middle", "label", cut_short(points[i]->label, kLongestLabel));
      svg_.close();
    }
  }

  /// Names after the lines' ends, pushed apart until they do not overlap.
  void draw_end_names() {
    std::vector<std::pair<double, const Series*>> names;
    for (const Series& s : chart_.series) {
      const auto last = std::find_if(s.points.rbegin(), s.points.rend(), [&](const ChartPoint& p) { return shown(p); });
      if (s.named && last != s.points.rend()) names.emplace_back(y_.at(last->y), &s);
    }
    std::stable_sort(names.begin(), names.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const double step = 16;
    double lowest = area_.y0 + 4;
    for (auto& [y, s] : names) lowest = (y = std::max(y, lowest)) + step;
    double highest = area_.y1;
    for (auto n = names.rbegin(); n != names.rend(); ++n) highest = (n->first = std::min(n->first, highest)) - step;
    for (const auto& [y, s] : names) {
      svg_.open("g", {{"class", colour_class(s->look)}});
      draw_mark(svg_, s->look.mark, {.x = area_.x1 + 10, .y = y, .radius = 3.5});
      svg_.close();
      text(area_.x1 + 19, y + 4, "start", "", cut_short(s->name, kLongestLabel));
    }
  }

  const Box& area() const { return area_; }

  void text(double x, double y, const char* anchor, const std::string& css, const std::string& words) {
    svg_.element("text", {{"x", coordinate(x)}, {"y", coordinate(y)}, {"text-anchor", anchor}, {"class", css}}, words);
  }

 private:
  std::string quiet() const { return is_inset_ ? "quiet small" : "quiet"; }
  bool shown(const ChartPoint& p) const { return x_.shows(p.x) && y_.shows(p.y); }
  double x_of(const Series& s, const ChartPoint& p) const { return x_.at(p.x) + s.shift; }
  double reach(const ChartPoint& p) const { return std::abs(y_.at(p.y) - y_.at(p.y + std::abs(p.error))); }

  void occupy_marks() {
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      const Series& s = chart_.series[i];
      const ChartPoint* previous = nullptr;
      for (const ChartPoint& p : s.points) {
        if (!shown(p)) continue;
        places_.take_mark(x_of(s, p), y_.at(p.y), reach(p));
        if (previous != nullptr) join(s, static_cast<int>(i), *previous, p);
        previous = &p;
      }
    }
  }
  /// Between two marks of a series: a thread labels may cross, or a line that nothing covers.
  void join(const Series& s, int owner, const ChartPoint& a, const ChartPoint& b) {
    const double x0 = x_of(s, a), y0 = y_.at(a.y), x1 = x_of(s, b), y1 = y_.at(b.y);
    if (!s.line) return places_.avoid({x0, y0, x1, y1}, owner);
    constexpr int kPieces = 12;
    for (int i = 1; i < kPieces; ++i) {
      const double t = static_cast<double>(i) / kPieces;
      const double x = x0 * (1 - t) + x1 * t, y = y0 * (1 - t) + y1 * t;
      places_.take({x - 3, y - 3, x + 3, y + 3});
    }
  }

  void line(const char* css, double x1, double y1, double x2, double y2) {
    svg_.leaf("path",
              {{"class", css},
               {"d", fmt::format("M{} {}L{} {}", coordinate(x1), coordinate(y1), coordinate(x2), coordinate(y2))}});
  }

  void draw_path(const Series& s) {
    std::string path;
    for (const ChartPoint& p : s.points)
      if (shown(p)) path += (path.empty() ? "M" : "L") + coordinate(x_of(s, p)) + " " + coordinate(y_.at(p.y));
    if (path.find('L') == std::string::npos) return;
    svg_.leaf("path",
              {{"class", s.line && s.named ? "line" : "thread"}, {"stroke-dasharray", s.look.dashes}, {"d", path}});
  }

  /// A line carries marks at about five places only: more would hide it.
  void draw_point(const Series& s, size_t i) {
    const ChartPoint& p = s.points[i];
    if (!shown(p)) return;
    const size_t n = s.points.size(), every = s.line ? std::max<size_t>(1, n / 5) : 1;
    if (s.line && (!s.named || (n - 1 - i) % every != 0)) return;
    const double x = x_of(s, p), y = y_.at(p.y);
    if (p.error > 0) {
      const std::string low = coordinate(y_.at(p.y - p.error)), high = coordinate(y_.at(p.y + p.error));
      svg_.leaf("path",
                {{"class", "bar"},
                 {"d", fmt::format("M{0} {1}V{2}M{3} {1}h6M{3} {2}h6", coordinate(x), low, high, coordinate(x - 3))}});
    }
    const double radius = is_inset_ ? 2.2 : s.line ? 3.2 : 4.6;
    draw_mark(svg_, s.look.mark, {.x = x, .y = y, .radius = radius, .hollow = p.hollow, .tooltip = p.tooltip});
  }

  Xml& svg_;
  const Chart& chart_;
  Box area_;
  bool is_inset_;
  AxisMap x_, y_;
  LabelPlaces places_;
};

/// Rows of the legend, filled from the left; returns their number, and draws them when `svg` is given.
int legend(const Chart& chart, Xml* svg) {
  double x = 4;
  int row = 0;
  for (const Series& s : chart.series) {
    if (!s.named || chart.end_names) continue;
    const std::string name = cut_short(s.name, kLongestLabel);
    const double width = 40 + text_width(name) + 14;
    if (x > 4 && x + width > chart.width) {
      x = 4;
      ++row;
    }
    if (svg != nullptr) {
      const double y = 12 + kRow * row;
      svg->open("g", {{"class", colour_class(s.look)}});
      svg->leaf("path", {{"class", s.line ? "line" : "thread"},
                         {"stroke-dasharray", s.look.dashes},
                         {"d", fmt::format("M{} {}h30", coordinate(x), coordinate(y))}});
      draw_mark(*svg, s.look.mark, {.x = x + 15, .y = y});
      svg->close();
      svg->element("text", {{"x", coordinate(x + 36)}, {"y", coordinate(y + 4)}}, name);
    }
    x += width;
  }
  return x > 4 ? row + 1 : row;
}

double end_room(const Chart& chart) {
  double widest = 0;
  for (const Series& s : chart.series)
    if (chart.end_names && s.named) widest = std::max(widest, text_width(s.name));
  return widest > 0 ? widest + 24 : 16;
}

void draw_inset(Xml& svg, const Chart& chart, const Box& box) {
  svg.open("g", {{"class", "grey"}});
  svg.leaf("rect", {{"class", "frame"},
                    {"x", coordinate(box.x0)},
                    {"y", coordinate(box.y0)},
                    {"width", coordinate(box.x1 - box.x0)},
                    {"height", coordinate(box.y1 - box.y0)},
                    {"rx", "4"}});
  Plot plot(svg, chart, {box.x0 + 28, box.y0 + 24, box.x1 - 8, box.y1 - 18}, /*is_inset=*/true);
  plot.text(box.x0 + 8, box.y0 + 15, "start", "quiet small", cut_short(chart.name, kLongestLabel));
  plot.draw_axes();
  plot.draw_series();
  svg.close();
}

}  // namespace

ChartPoint plain_mark(double x, double y, const std::string& tooltip) {
  ChartPoint p;
  p.x = x;
  p.y = y;
  p.tooltip = tooltip;
  return p;
}

std::string draw(const Chart& chart) {
  Xml svg;
  const double top = 30 + kRow * legend(chart, nullptr), bottom = chart.height - 44;
  Plot plot(svg, chart, {50, top, chart.width - end_room(chart), bottom}, /*is_inset=*/false);
  std::optional<Box> inset;
  double height = chart.height;
  if (chart.inset != nullptr && !plot.empty()) {
    inset = plot.place_inset();
    if (!inset) {  // below everything, as wide as the plot
      inset = Box{50, chart.height + 4, plot.area().x1, chart.height + 4 + kInsetHeight};
      height = inset->y1 + 4;
    }
  }
  svg.open("svg", {{"class", "draw"},
                   {"viewBox", fmt::format("0 0 {} {}", coordinate(chart.width), coordinate(height))},
                   {"role", "img"},
                   {"aria-label", chart.name}});
  legend(chart, &svg);
  plot.draw_axes();
  if (plot.empty()) plot.text(chart.width / 2, (top + bottom) / 2, "middle", "quiet", "no data");
  plot.draw_guides();
  plot.draw_front();
  plot.draw_series();
  plot.draw_labels();
  if (chart.end_names) plot.draw_end_names();
  if (inset) draw_inset(svg, *chart.inset, *inset);
  return svg.close().finish();
}

}  // namespace nibble::apps
