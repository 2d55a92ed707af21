#include "apps/report/mean_difference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/console.hpp"
#include "apps/report/paired_accuracy.hpp"
#include "apps/report/statistics.hpp"
#include "apps/report/svg.hpp"

namespace nibble::apps {

std::string name_of(Verdict v) {
  switch (v) {
    case Verdict::kHolds:
      return "holds";
    case Verdict::kContradicted:
      return "contradicted";
    case Verdict::kUndecided:
      return "undecided";
    case Verdict::kNotTested:
      return "not tested";
  }
  return "";
}

void MeanDifference::add(const StudyGroup& a, const StudyGroup& b) {
  differences_.push_back((a.*of_).value - (b.*of_).value);
  weight_[&a] += 1;
  weight_[&b] -= 1;
}

int64_t MeanDifference::positive() const {
  return std::count_if(differences_.begin(), differences_.end(), [](double d) { return d > 0; });
}

int64_t MeanDifference::equal() const {
  return std::count(differences_.begin(), differences_.end(), 0.0);
}

double MeanDifference::value() const {
  return mean(differences_);
}

double MeanDifference::error() const {
  return std::sqrt(variance()) / static_cast<double>(std::max<int64_t>(1, pairs()));
}

Verdict MeanDifference::verdict() const {
  if (empty()) return Verdict::kNotTested;
  const double decisive = decisive_errors(freedom()) * error();
  if (value() > decisive) return Verdict::kHolds;
  return value() < -decisive ? Verdict::kContradicted : Verdict::kUndecided;
}

std::string MeanDifference::text() const {
  return fmt::format("{}{} points (standard error {}{})", value() >= 0 ? "+" : "", decimal(value(), 2),
                     decimal(error(), 2), weighted(&Estimate::seed_error) > 0 ? "" : ", of the images alone");
}

bool MeanDifference::is_paired() const {
  return paired().has_value();
}

/// Squares of a part of the errors, for the sum of differences; with a `side`, of the groups whose weight has its sign.
double MeanDifference::weighted(double Estimate::*part, double side) const {
  double sum = 0;
  for (const auto& [group, weight] : weight_)
    if (side * weight >= 0) sum += std::pow(weight * (group->*of_.*part), 2);
  return sum;
}

/// What the validation images contribute to the sum of differences. None where they do not count (training accuracy).
std::optional<double> MeanDifference::paired() const {
  if (!(weighted(&Estimate::validation_error) > 0)) return std::nullopt;
  std::vector<std::pair<const PointResult*, double>> points;
  for (const auto& [group, weight] : weight_)
    for (const PointResult* p : group->points)
      if (weight != 0) points.emplace_back(p, weight / static_cast<double>(group->points.size()));
  return paired_variance(points);
}

/// Of the sum of differences.
double MeanDifference::variance() const {
  const double all = weighted(&Estimate::error);
  const std::optional<double> images = paired();
  return images ? all - weighted(&Estimate::validation_error) + *images : all;
}

/// Welch and Satterthwaite: the part of the images is as good as known, that of the seeds has a few degrees of freedom
/// for each spread that was taken from seeds of its own.
double MeanDifference::freedom() const {
  double unknown = 0;
  const auto add_spread = [&](double side) {
    const auto known =
        std::find_if(weight_.begin(), weight_.end(), [&](const auto& of) { return side * of.second >= 0; });
    const double seeds = weighted(&Estimate::seed_error, side);
    if (seeds > 0) unknown += std::pow(seeds, 2) / static_cast<double>((known->first->*of_).freedom);
  };
  if (seeds_ == SeedsOf::kOneStudy) {
    add_spread(0);
  } else {
    add_spread(1);
    add_spread(-1);
  }
  return unknown > 0 ? std::pow(variance(), 2) / unknown : std::numeric_limits<double>::infinity();
}

}  // namespace nibble::apps
