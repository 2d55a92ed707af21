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

/// How many standard errors a difference may be off by chance in one case in twenty, either way: Student's t at 97.5 %
/// for an error of `freedom` degrees of freedom (rounded down; at least 1), at least 2.
inline double decisive_errors(double freedom) {
  // Standard tables of the distribution, 1 to 30 degrees; from 61 on it is below 2.
  constexpr double kTable[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  if (!(freedom < 61)) return 2;
  return freedom >= 31 ? kTable[29] : kTable[freedom < 1 ? 0 : static_cast<int>(freedom) - 1];
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
