#include "apps/report/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

namespace nibble::apps {

namespace {

constexpr size_t kLongestLabel = 36;
constexpr double kTextSize = 14;  // px
constexpr double kRow = 20;       // of the legend
constexpr double kInsetWidth = 218, kInsetHeight = 142;

struct Box {
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  bool meets(const Box& b) const { return x0 < b.x1 && b.x0 < x1 && y0 < b.y1 && b.y0 < y1; }
  bool holds(double x, double y) const { return x > x0 && x < x1 && y > y0 && y < y1; }
  bool inside(const Box& b) const { return x0 >= b.x0 && x1 <= b.x1 && y0 >= b.y0 && y1 <= b.y1; }
};

/// In a wide sans-serif face (DejaVu Sans), rounded up: a mean over all letters cut the end off "w8a8".
double text_width(const std::string& text) {
  double ems = 0;
  for (const char c : shortened(text, kLongestLabel)) {
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
      : svg_(svg), chart_(chart), area_(area), is_inset_(is_inset) {
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
      if (free(box)) return taken_.emplace_back(box);
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
    text(middle, area_.y1 + 36, "middle", "", shortened(chart_.x.title, 64));
    text(4, area_.y0 - 9, "start", "", shortened(chart_.y.title, 64));
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
           shortened(g.words, kLongestLabel));
    }
  }

  void draw_front() {
    std::string path;
    double last_x = 0, last_y = 0;
    for (const ChartPoint& p : chart_.front) {
      if (!shown(p)) continue;
      if (!path.empty()) steps_.push_back({last_x, last_y - 3, x_.at(p.x), last_y + 3});
      last_x = x_.at(p.x);
      const std::string x = coordinate(x_.at(p.x)), y = coordinate(y_.at(p.y));
      path += path.empty() ? "M" + x + " " + y : "H" + x + "V" + y;
      last_y = y_.at(p.y);
    }
    if (path.empty()) return;
    path += "H" + coordinate(area_.x1);
    steps_.push_back({last_x, last_y - 3, area_.x1, last_y + 3});
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

  /// Labels next to their marks, where nothing else is; with no such place, further away, at the end of a thin line.
  /// Where even that is taken, the tooltip still says it.
  void draw_labels() {
    std::vector<const ChartPoint*> crowded;
    for (const Series& s : chart_.series)
      for (const ChartPoint& p : s.points)
        if (!p.label.empty() && shown(p) && !place_label(p, /*on_front=*/false) && !place_label(p, /*on_front=*/true))
          crowded.push_back(&p);
    for (const ChartPoint* p : crowded) place_far_label(*p);
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
      text(area_.x1 + 19, y + 4, "start", "", shortened(s->name, kLongestLabel));
    }
  }

  const Box& area() const { return area_; }

  void text(double x, double y, const char* anchor, const std::string& css, const std::string& words) {
    svg_.element("text", {{"x", coordinate(x)}, {"y", coordinate(y)}, {"text-anchor", anchor}, {"class", css}}, words);
  }

 private:
  std::string quiet() const { return is_inset_ ? "quiet small" : "quiet"; }
  bool shown(const ChartPoint& p) const { return x_.shows(p.x) && y_.shows(p.y); }
  bool free(const Box& box) const {
    return std::none_of(taken_.begin(), taken_.end(), [&](const Box& t) { return t.meets(box); });
  }

  /// Marks, error bars and the threads between marks, as boxes that nothing else may cover.
  void occupy_marks() {
    for (const Series& s : chart_.series) {
      const ChartPoint* previous = nullptr;
      for (const ChartPoint& p : s.points) {
        if (!shown(p)) continue;
        occupy(p);
        if (previous != nullptr && s.line) occupy_between(*previous, p);
        previous = &p;
      }
    }
  }
  void occupy(const ChartPoint& p) {
    const double x = x_.at(p.x), y = y_.at(p.y), up = std::abs(y - y_.at(p.y + std::abs(p.error)));
    taken_.push_back({x - 6, y - 6, x + 6, y + 6});
    if (up > 6) taken_.push_back({x - 2, y - up, x + 2, y + up});
  }
  void occupy_between(const ChartPoint& a, const ChartPoint& b) {
    constexpr int kPieces = 12;
    for (int i = 1; i < kPieces; ++i) {
      const double t = static_cast<double>(i) / kPieces;
      const double x = x_.at(a.x) * (1 - t) + x_.at(b.x) * t, y = y_.at(a.y) * (1 - t) + y_.at(b.y) * t;
      taken_.push_back({x - 3, y - 3, x + 3, y + 3});
    }
  }

  /// Writes the label in the first of eight places that is free, on the steps of the front only if asked to.
  bool place_label(const ChartPoint& p, bool on_front) {
    const double w = text_width(p.label) * 0.85, x = x_.at(p.x), y = y_.at(p.y);
    for (const auto& [dx, dy] : {std::pair{0.0, -14.0},
                                 {0.0, 14.0},
                                 {w / 2 + 9, 0.0},
                                 {-w / 2 - 9, 0.0},
                                 {w / 2 + 6, -11.0},
                                 {-w / 2 - 6, -11.0},
                                 {w / 2 + 6, 11.0},
                                 {-w / 2 - 6, 11.0}}) {
      const Box box{x + dx - w / 2, y + dy - 6, x + dx + w / 2, y + dy + 6};
      if (!box.inside(area_) || !free(box)) continue;
      if (!on_front && std::any_of(steps_.begin(), steps_.end(), [&](const Box& t) { return t.meets(box); })) continue;
      write_label(p, box);
      return true;
    }
    return false;
  }

  /// The same, 22 to 58 units away in the direction that has room first; its line crosses no other mark or label.
  void place_far_label(const ChartPoint& p) {
    constexpr int kDirections = 16, kPieces = 12;
    const double w = text_width(p.label) * 0.85, x = x_.at(p.x), y = y_.at(p.y);
    for (double distance = 22; distance <= 58; distance += 6) {
      for (int i = 0; i < kDirections; ++i) {
        const double angle = 2 * std::numbers::pi * i / kDirections;
        const double dx = distance * std::cos(angle), dy = distance * std::sin(angle);
        // The line ends where the label begins: at its side, or at its middle where it is more above than to the side.
        const bool beside = std::abs(dx) > std::abs(dy);
        const double cx = x + dx + (beside ? std::copysign(w / 2 + 2, dx) : 0);
        const double cy = y + dy + (beside ? 0 : std::copysign(7, dy));
        const Box box{cx - w / 2, cy - 6, cx + w / 2, cy + 6};
        if (!box.inside(area_) || !free(box)) continue;
        const auto crosses = [&](const Box& t) {
          if (t.holds(x, y)) return false;  // its own mark and error bar
          for (int k = 1; k <= kPieces; ++k)
            if (t.holds(x + dx * k / kPieces, y + dy * k / kPieces)) return true;
          return false;
        };
        if (std::any_of(taken_.begin(), taken_.end(), crosses)) continue;
        const double start = 6 / distance;
        line("axis", x + dx * start, y + dy * start, x + dx, y + dy);
        write_label(p, box);
        return;
      }
    }
  }

  void write_label(const ChartPoint& p, const Box& box) {
    taken_.push_back(box);
    text((box.x0 + box.x1) / 2, box.y1 - 2, "middle", "small", shortened(p.label, kLongestLabel));
  }

  void line(const char* css, double x1, double y1, double x2, double y2) {
    svg_.leaf("path",
              {{"class", css},
               {"d", fmt::format("M{} {}L{} {}", coordinate(x1), coordinate(y1), coordinate(x2), coordinate(y2))}});
  }

  void draw_path(const Series& s) {
    std::string path;
    for (const ChartPoint& p : s.points)
      if (shown(p)) path += (path.empty() ? "M" : "L") + coordinate(x_.at(p.x)) + " " + coordinate(y_.at(p.y));
    if (path.find('L') == std::string::npos) return;
    svg_.leaf("path", {{"class", s.line ? "line" : "thread"}, {"stroke-dasharray", s.look.dashes}, {"d", path}});
  }

  /// A line carries marks at about five places only: more would hide it.
  void draw_point(const Series& s, size_t i) {
    const ChartPoint& p = s.points[i];
    if (!shown(p)) return;
    const size_t n = s.points.size(), every = s.line ? std::max<size_t>(1, n / 5) : 1;
    if (s.line && (!s.named || (n - 1 - i) % every != 0)) return;
    const double x = x_.at(p.x), y = y_.at(p.y);
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
  std::vector<Box> taken_;  // what nothing may cover
  std::vector<Box> steps_;  // of the front: covered if need be
};

/// Rows of the legend, filled from the left; returns their number, and draws them when `svg` is given.
int legend(const Chart& chart, Xml* svg) {
  double x = 4;
  int row = 0;
  for (const Series& s : chart.series) {
    if (!s.named || chart.end_names) continue;
    const std::string name = shortened(s.name, kLongestLabel);
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
  plot.text(box.x0 + 8, box.y0 + 15, "start", "quiet small", shortened(chart.name, kLongestLabel));
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
