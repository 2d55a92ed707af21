// Axes of charts: the range that shows all values, where they fall, and ticks that people read.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace nibble::apps {

enum class Scale { kLinear, kLog };

struct Axis {
  std::string title = {};
  Scale scale = Scale::kLinear;
  std::optional<double> low = {}, high = {};  // fixed ends; not given: from the values, with a little room
};

/// Values to positions on the page, from `begin` (of `low`) to `end` (of `high`); a y axis has begin > end.
struct AxisMap {
  Scale scale = Scale::kLinear;
  double low = 0, high = 1;
  double begin = 0, end = 1;

  double at(double value) const;
  /// Finite, inside the range, and above zero on a logarithmic axis.
  bool shows(double value) const;
};

/// The map that shows every value that can be shown; [0, 1] (log: [0.1, 10]) when there is none. Equal values get some
/// room on both sides.
AxisMap fit_axis(const Axis& axis, const std::vector<double>& values, double begin, double end);

/// Between 2 and `most` (at least 5) multiples of 1, 2 or 5 times a power of ten inside the range; on a logarithmic
/// axis 1, 2 and 5 of each decade, or fewer of them, or linear ticks when the range is less than they need.
std::vector<double> ticks(const AxisMap& map, int most);

/// The digits that tell `value` from its neighbours: "0.25", "70", "1,000", "2e+07".
std::string tick_label(double value);

}  // namespace nibble::apps
