#include "apps/report/mean_difference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/console.hpp"
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

double MeanDifference::value() const {
  return mean(differences_);
}

double MeanDifference::error() const {
  return std::sqrt(variance(&Estimate::error)) / static_cast<double>(std::max<int64_t>(1, pairs()));
}

Verdict MeanDifference::verdict() const {
  if (empty()) return Verdict::kNotTested;
  const double decisive = decisive_errors(freedom()) * error();
  if (value() > decisive) return Verdict::kHolds;
  return value() < -decisive ? Verdict::kContradicted : Verdict::kUndecided;
}

std::string MeanDifference::text() const {
  return fmt::format("{}{} points (standard error {}{})", value() >= 0 ? "+" : "", decimal(value(), 2),
                     decimal(error(), 2), variance(&Estimate::seed_error) > 0 ? "" : ", of the images alone");
}

/// Of the sum of differences; with a `side`, the part of the groups whose weight has its sign.
double MeanDifference::variance(double Estimate::*part, double side) const {
  double sum = 0;
  for (const auto& [group, weight] : weight_)
    if (side * weight >= 0) sum += std::pow(weight * (group->*of_.*part), 2);
  return sum;
}

/// Welch and Satterthwaite: the part of the images is as good as known, that of the seeds has a few degrees of freedom
/// for each spread that was taken from seeds of its own.
double MeanDifference::freedom() const {
  double unknown = 0;
  const auto add_spread = [&](double side) {
    const auto known =
        std::find_if(weight_.begin(), weight_.end(), [&](const auto& of) { return side * of.second >= 0; });
    const double seeds = variance(&Estimate::seed_error, side);
    if (seeds > 0) unknown += std::pow(seeds, 2) / static_cast<double>((known->first->*of_).freedom);
  };
  if (seeds_ == SeedsOf::kOneStudy) {
    add_spread(0);
  } else {
    add_spread(1);
    add_spread(-1);
  }
  return unknown > 0 ? std::pow(variance(&Estimate::error), 2) / unknown : std::numeric_limits<double>::infinity();
}

}  // namespace nibble::apps
