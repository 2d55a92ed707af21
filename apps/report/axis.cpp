#include "apps/report/axis.hpp"

#include <algorithm>
#include <cmath>

#include "apps/console.hpp"

namespace nibble::apps {

namespace {

constexpr double kRoom = 0.06;  // of the range, left free at either end
constexpr double kMultiples[] = {1, 2, 5};
constexpr double kSlack = 1e-9;  // of the range: a tick at the very end counts as inside

double forward(Scale scale, double value) {
  return scale == Scale::kLog ? std::log10(value) : value;
}

/// Values of another size (a damaged file may hold any) would overflow what is computed from them.
bool possible(Scale scale, double value) {
  constexpr double kLargest = 1e100;
  return std::abs(value) < kLargest && (scale == Scale::kLinear || value > 1 / kLargest);
}

std::vector<double> linear_ticks(double low, double high, int most) {
  const double power = std::pow(10, std::floor(std::log10((high - low) / most)));
  for (const double multiple : {1.0, 2.0, 5.0, 10.0, 20.0}) {
    const double step = multiple * power, slack = kSlack * (high - low);
    const double first = std::ceil((low - slack) / step), last = std::floor((high + slack) / step);
    if (last - first + 1 > most) continue;
    std::vector<double> result;
    for (double k = first; k <= last; ++k) result.push_back(k * step + 0.0);  // never -0
    return result;
  }
  return {low, high};  // only rounding at the edge of what a double resolves gets here
}

/// Multiples of the powers of ten 10^(stride * k) inside the range.
std::vector<double> decade_ticks(double low, double high, size_t multiples, int stride) {
  std::vector<double> result;
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::ceil(std::log10(high)));
  for (int decade = first; decade <= last; ++decade) {
    if (decade % stride != 0) continue;
    for (size_t m = 0; m < multiples; ++m) {
      const double value = kMultiples[m] * std::pow(10, decade);
      if (value >= low * (1 - kSlack) && value <= high * (1 + kSlack)) result.push_back(value);
    }
  }
  return result;
}

}  // namespace

double AxisMap::at(double value) const {
  const double from = forward(scale, low), to = forward(scale, high);
  return begin + (forward(scale, value) - from) / (to - from) * (end - begin);
}

bool AxisMap::shows(double value) const {
  return possible(scale, value) && value >= low && value <= high;
}

AxisMap fit_axis(const Axis& axis, const std::vector<double>& values, double begin, double end) {
  AxisMap map{axis.scale, 0, 0, begin, end};
  bool any = false;
  for (const double v : values) {
    if (!possible(axis.scale, v)) continue;
    map.low = any ? std::min(map.low, v) : v;
    map.high = any ? std::max(map.high, v) : v;
    any = true;
  }
  const bool log = axis.scale == Scale::kLog;
  if (!any) {
    map.low = log ? 0.1 : 0;
    map.high = log ? 10 : 1;
  } else if (log) {
    const double factor = std::max(std::pow(map.high / map.low, kRoom), map.high == map.low ? 1.5 : 1.02);
    map.low /= factor;
    map.high *= factor;
  } else {
    // Never narrower than a millionth of the values, so that ticks stay exact.
    const double size = std::max(std::abs(map.low), std::abs(map.high));
    const double room = map.high > map.low ? std::max(kRoom * (map.high - map.low), 1e-6 * size) : 0.05 * size;
    map.low -= std::max(room, 1e-6);
    map.high += std::max(room, 1e-6);
  }
  if (axis.low) map.low = *axis.low;
  if (axis.high) map.high = *axis.high;
  if (!(map.high > map.low)) map.high = log ? map.low * 2 : map.low + std::max(1.0, std::abs(map.low));
  return map;
}

std::vector<double> ticks(const AxisMap& map, int most) {
  most = std::max(most, 5);
  if (map.scale == Scale::kLinear) return linear_ticks(map.low, map.high, most);
  std::vector<double> result = decade_ticks(map.low, map.high, 3, 1);
  for (int stride = 1; static_cast<int>(result.size()) > most; ++stride)
    result = decade_ticks(map.low, map.high, 1, stride);
  return result.size() >= 2 ? result : linear_ticks(map.low, map.high, most);
}

std::string tick_label(double value) {
  const double size = std::abs(value);
  if (size != 0 && (size >= 1e6 || size < 1e-4)) return fmt::format("{:.3g}", value);
  if (size >= 1000 && std::abs(value - std::round(value)) < 1e-6 * size)
    return grouped(static_cast<int64_t>(std::llround(value)));
  return fmt::format("{:.6g}", value);
}

}  // namespace nibble::apps
