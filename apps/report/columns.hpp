// Columns side by side over named groups, as inline SVG: the layers of a network in order.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nibble::apps {

struct Column {
  std::string group;         // equal neighbours share one name below the axis
  std::string tooltip = {};  // shown when the pointer rests on the column
  double value = 0;          // at least 0; what is not finite counts as 0
  int colour = 0;            // s0 .. s5
};

struct ColumnChart {
  std::string name;     // what it shows, for readers who hear the page
  std::string y_title;  // above the axis
  double highest = 0;   // end of the y axis, so that several charts compare; 0: the highest column
  std::vector<Column> columns;
};

/// One <svg> element of 520 x 190 units that fills its box.
std::string draw(const ColumnChart& chart);

/// How often each code occurred, as a strip of at most 16 squares, stronger where more often, from the lowest code
/// to the highest, with all shares in its tooltip: neighbours of more than 16 codes are taken together. `name` says it
/// for readers who hear the page.
std::string code_strip(const std::vector<int64_t>& counts, const std::string& name);

/// A bar of `share` (0 to 1) of a table cell's width.
std::string share_bar(double share, int colour);

}  // namespace nibble::apps
