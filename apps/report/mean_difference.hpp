// The mean difference of one estimate over pairs of models, its error, and what it decides.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "apps/report/study_data.hpp"

namespace nibble::apps {

enum class Verdict { kHolds, kContradicted, kUndecided, kNotTested };
std::string name_of(Verdict v);  // "holds", "contradicted", "undecided", "not tested"

/// Whose seeds tell the spread over seeds of both models of a pair.
enum class SeedsOf {
  kOneStudy,    // the same ones
  kTwoStudies,  // of either model its own study's
};

/// A group may be in several pairs, so the error comes from the weight that each group has in the mean. Where all
/// groups were judged on the same images and know each image's outcome, the part of the validation images is taken
/// image by image (paired_variance); else groups count as independent samples, which makes the error of one difference
/// rather too large, that of a mean over many models possibly too small.
class MeanDifference {
 public:
  explicit MeanDifference(Estimate StudyGroup::*of, SeedsOf seeds = SeedsOf::kOneStudy) : of_(of), seeds_(seeds) {}

  /// The groups must outlive it.
  void add(const StudyGroup& a, const StudyGroup& b);

  bool empty() const { return differences_.empty(); }
  int64_t pairs() const { return std::ssize(differences_); }
  int64_t positive() const;  // pairs with a above b
  int64_t equal() const;     // pairs with a as accurate as b
  double value() const;      // of a less b, in points
  double error() const;      // its standard error
  bool is_paired() const;    // image by image
  /// Whether a is above b: holds and is contradicted beyond decisive_errors() of the errors (statistics.hpp).
  Verdict verdict() const;
  bool decided() const { return verdict() == Verdict::kHolds || verdict() == Verdict::kContradicted; }
  /// "+1.27 points (standard error 1.19)", with ", of the images alone" where no spread over seeds is known.
  std::string text() const;

 private:
  double weighted(double Estimate::*part, double side = 0) const;
  std::optional<double> paired() const;
  double variance() const;
  double freedom() const;

  Estimate StudyGroup::*of_;
  SeedsOf seeds_;
  std::vector<double> differences_;
  std::map<const StudyGroup*, double> weight_;
};

}  // namespace nibble::apps
