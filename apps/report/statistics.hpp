// Standard errors of accuracies, for the reports.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

namespace nibble::apps {

/// Standard error, in percent, of an accuracy of `percent` measured on `images` images that were drawn at random;
/// 0 without images.
inline double binomial_error(double percent, int64_t images) {
  const double p = percent / 100;
  return images > 0 && p >= 0 && p <= 1 ? 100 * std::sqrt(p * (1 - p) / static_cast<double>(images)) : 0;
}

inline double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

/// Standard deviation of the values themselves (divided by n - 1); 0 for fewer than two.
inline double standard_deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double centre = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - centre) * (v - centre);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

}  // namespace nibble::apps
