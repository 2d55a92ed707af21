#include "apps/report/mean_difference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/console.hpp"
#include "apps/report/paired_accuracy.hpp"
#include "apps/report/statistics.hpp"
#include "apps/report/svg.hpp"

namespace nibble::apps {

namespace {

constexpr double kRounding = 1e-9;  // of means over epochs and seeds

/// The part of an error that is neither of seeds nor of validation images.
double training_error(const Estimate& e) {
  return std::sqrt(
      std::max(0.0, e.error * e.error - e.seed_error * e.seed_error - e.validation_error * e.validation_error));
}

}  // namespace

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

Pairing pairing_of(const std::vector<const StudyGroup*>& groups) {
  std::vector<const PointResult*> points;
  for (const StudyGroup* g : groups) points.insert(points.end(), g->points.begin(), g->points.end());
  if (std::any_of(points.begin(), points.end(), [](const PointResult* p) { return p->outcomes.right.empty(); }))
    return Pairing::kOutcomesMissing;
  if (!judged_on_same_images(points)) return Pairing::kOtherImages;
  const bool known = std::any_of(groups.begin(), groups.end(), [](const StudyGroup* g) { return g->top1.freedom > 0; });
  return known ? Pairing::kPaired : Pairing::kSeedsUnknown;
}

std::string meaning_of(Pairing pairing) {
  switch (pairing) {
    case Pairing::kPaired:
      return "all models were judged on the same images, and the errors of differences count in which of them they "
             "differ, as classified after the last step";
    case Pairing::kOtherImages:
      return "models were not all judged on the same images, so each counts as a sample of its own";
    case Pairing::kOutcomesMissing:
      return "not all results say what became of each image, so each model counts as a sample of its own: that makes "
             "the error of one difference rather too large, and may make that of a mean over many models too small";
    case Pairing::kSeedsUnknown:
      return "no model has several seeds, so each model counts as if it had images of its own: the images they share "
             "would tell models apart that another seed might not";
  }
  return "";
}

void MeanDifference::add(const StudyGroup& a, const StudyGroup& b) {
  differences_.push_back((a.*of_).value - (b.*of_).value);
  weight_[&a] += 1;
  weight_[&b] -= 1;
  training_ += std::hypot(training_error(a.*of_), training_error(b.*of_));
  variance_.reset();
}

int64_t MeanDifference::positive() const {
  return std::count_if(differences_.begin(), differences_.end(), [](double d) { return d > kRounding; });
}

int64_t MeanDifference::equal() const {
  return std::count_if(differences_.begin(), differences_.end(), [](double d) { return std::abs(d) < kRounding; });
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
  return pairing_ == Pairing::kPaired &&
         std::any_of(weight_.begin(), weight_.end(), [&](const auto& of) { return (of.first->*of_).of_validation; });
}

/// Squares of a part of the errors, for the sum of differences; with a `side`, of the groups whose weight has its sign.
double MeanDifference::weighted(double Estimate::*part, double side) const {
  double sum = 0;
  for (const auto& [group, weight] : weight_)
    if (side * weight >= 0) sum += std::pow(weight * (group->*of_.*part), 2);
  return sum;
}

/// What validation images and seeds contribute to the sum of differences, in percent squared.
double MeanDifference::paired() const {
  std::vector<std::pair<const PointResult*, double>> points;
  double by_seeds = 0;  // in the images' part
  for (const auto& [group, weight] : weight_) {
    if (weight == 0) continue;
    const auto seeds = static_cast<double>(group->points.size());
    const auto images = static_cast<double>(std::max<int64_t>(1, group->first().last.images));
    for (const PointResult* p : group->points) points.emplace_back(p, weight / seeds);
    by_seeds += 1e4 * weight * weight * group->outcome_variance / seeds / images;
  }
  const double images = paired_variance(points).value_or(0);
  return std::max(images, images - by_seeds + weighted(&Estimate::seed_error));
}

/// Of the sum of differences.
double MeanDifference::variance() const {
  if (!variance_) {
    if (is_paired())
      variance_ = training_ * training_ + paired();
    else
      variance_ = weighted(&Estimate::error);
  }
  return *variance_;
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
