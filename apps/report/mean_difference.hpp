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

/// Whether the errors of differences between groups are taken image by image, or why not.
enum class Pairing {
  kPaired,
  kOtherImages,      // not all points were judged on the same images
  kOutcomesMissing,  // nor do all say what became of each (results of older versions)
  kSeedsUnknown,     // no model has several seeds: images alone would tell apart what other seeds might not
};
Pairing pairing_of(const std::vector<const StudyGroup*>& groups);
/// What that means for the errors: a clause.
std::string meaning_of(Pairing pairing);

/// A group may be in several pairs, so the error comes from the weight that each group has in the mean.
///
/// Unpaired, groups count as independent samples: that makes the error of one difference rather too large, that of a
/// mean over many models possibly too small.
///
/// Paired, the validation images are one sample (paired_variance). The spread over seeds is measured on the same
/// images, so it has in it by what seeds differ image by image; that is taken out of the images' part, but never more
/// than leaves the images' part as it was without any spread. Training images, which have no outcomes, count as if
/// every pair met the same chance.
class MeanDifference {
 public:
  explicit MeanDifference(Estimate StudyGroup::*of, Pairing pairing = Pairing::kOutcomesMissing,
                          SeedsOf seeds = SeedsOf::kOneStudy)
      : of_(of), pairing_(pairing), seeds_(seeds) {}

  /// The groups must outlive it.
  void add(const StudyGroup& a, const StudyGroup& b);

  bool empty() const { return differences_.empty(); }
  int64_t pairs() const { return std::ssize(differences_); }
  int64_t positive() const;  // pairs with a above b
  int64_t equal() const;     // pairs with a as accurate as b
  double value() const;      // of a less b, in points
  double error() const;      // its standard error
  bool is_paired() const;    // image by image, as far as validation images count in it
  /// Whether a is above b: holds and is contradicted beyond decisive_errors() of the errors (statistics.hpp).
  Verdict verdict() const;
  bool decided() const { return verdict() == Verdict::kHolds || verdict() == Verdict::kContradicted; }
  /// "+1.27 points (standard error 1.19)", with ", of the images alone" where no spread over seeds is known.
  std::string text() const;

 private:
  double weighted(double Estimate::*part, double side = 0) const;
  double paired() const;
  double variance() const;
  double freedom() const;

  Estimate StudyGroup::*of_;
  Pairing pairing_;
  SeedsOf seeds_;
  std::vector<double> differences_;
  std::map<const StudyGroup*, double> weight_;
  double training_ = 0;  // the sum over pairs of their errors by training images
  mutable std::optional<double> variance_;
};

}  // namespace nibble::apps
