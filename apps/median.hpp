// The middle of a list of measurements.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

namespace nibble::apps {

/// The mean of the two middle ones where their number is even; 0 for none. Cost: a sorted copy.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t upper = values.size() / 2, lower = (values.size() - 1) / 2;
  return (values[lower] + values[upper]) / 2;
}

}  // namespace nibble::apps
