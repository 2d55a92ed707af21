// Charts as inline SVG: scatter and line, legend or names at the lines' ends, Pareto front, grey inset, error bars.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/report/axis.hpp"
#include "apps/report/looks.hpp"

namespace nibble::apps {

struct ChartPoint {
  double x = 0, y = 0;
  double error = 0;          // one standard error, drawn as a bar of +- this; 0: none
  bool hollow = false;       // dominated by another point
  std::string label;         // next to the mark or, at the end of a thin line, apart from it, where there is room
  std::string tooltip = {};  // shown when the pointer rests on the mark
};

/// A plain mark.
ChartPoint plain_mark(double x, double y, const std::string& tooltip = {});

struct Series {
  std::string name;
  Look look;
  std::vector<ChartPoint> points;
  bool line = false;  // a line with a few marks; false: every point marked, with a thin thread between them
  bool named = true;  // in the legend, or at the line's end; a line that is not is thin
  double shift = 0;   // to the right, in units of the viewBox: apart from series of the same x
};

/// A vertical line with words next to it: something that happened at x.
struct Guide {
  double x = 0;
  std::string words = {};
};

struct Chart {
  std::string name;  // what it shows, for readers who hear the page
  Axis x, y;
  std::vector<Series> series;
  std::vector<ChartPoint> front;  // ascending in x and y; drawn as steps: what a budget of x buys
  std::vector<Guide> guides = {};
  bool end_names = false;              // names at the right end of the lines instead of a legend above
  std::shared_ptr<const Chart> inset;  // drawn grey in a corner that has room for it, otherwise below
  double width = 520, height = 360;    // of the viewBox
};

/// One <svg> element with a viewBox and no size of its own: it fills its box. Values that cannot be shown (not finite,
/// not positive on a logarithmic axis) are left out; with none left the chart says "no data". Texts are escaped and,
/// since pictures cannot wrap them, shortened to 36 characters.
std::string draw(const Chart& chart);

}  // namespace nibble::apps
