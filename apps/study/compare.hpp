// Two studies side by side: the models that both have, how far they differ, and in what their recipes do.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "apps/config_file.hpp"
#include "apps/report/mean_difference.hpp"
#include "apps/report/study_data.hpp"

namespace nibble::apps {

/// The points of two studies, which must outlive it.
class StudyComparison {
 public:
  /// DataError when a study's points do not compare (group_points), or those of one do not with those of the other:
  /// other numbers of classes or, by more than 1 %, of validation images; or when no precision and width is in both.
  /// Where only one study has several seeds of a model, their spread stands for the other's as well.
  StudyComparison(const std::vector<PointResult>& a, const std::vector<PointResult>& b);

  /// The same precision and width in A and in B.
  using Pair = std::pair<const StudyGroup*, const StudyGroup*>;
  const std::vector<Pair>& pairs() const { return pairs_; }
  /// Names of the groups that only A, or only B, has.
  const std::vector<std::string>& only_a() const { return only_a_; }
  const std::vector<std::string>& only_b() const { return only_b_; }
  /// Whether an option that the recipes differ in does not touch this model: every seed that both studies have gave the
  /// same accuracies and losses, to the last digit. Other seeds of one study alone are then no difference of recipes.
  bool same(const Pair& pair) const;
  /// Of B less A; of models that are the same, none: 0, with an error of 0.
  MeanDifference difference(const Pair& pair, Estimate StudyGroup::*of) const;
  /// Over the models that are not the same.
  MeanDifference mean_difference(Estimate StudyGroup::*of) const;
  bool knows_seeds() const { return seeds_known_; }
  /// How the errors of all these differences are taken.
  Pairing pairing() const { return pairing_; }
  /// Options whose values differ (A's first), by the configurations of the studies' first points.
  const std::vector<ConfigDifference>& recipe() const { return recipe_; }

 private:
  std::vector<StudyGroup> a_, b_;
  std::vector<Pair> pairs_;
  std::vector<std::string> only_a_, only_b_;
  std::vector<ConfigDifference> recipe_;
  SeedsOf seeds_ = SeedsOf::kTwoStudies;
  Pairing pairing_ = Pairing::kOutcomesMissing;
  bool seeds_known_ = false;
};

}  // namespace nibble::apps
