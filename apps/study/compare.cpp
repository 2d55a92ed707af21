#include "apps/study/compare.hpp"

#include <algorithm>

#include "apps/console.hpp"
#include "apps/study/recipe.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

constexpr int64_t kFewOfBoth = 100;  // one of so many validation images may be missing, as within a study

void refuse_other_images(const std::vector<PointResult>& a, const std::vector<PointResult>& b) {
  const int64_t images_a = validation_images(a), images_b = validation_images(b), most = std::max(images_a, images_b);
  if (a.front().classes == b.front().classes && most - std::min(images_a, images_b) <= most / kFewOfBoth) return;
  throw DataError(
      "the studies do not compare: {} classes and {} validation images in A, {} classes and {} validation images in B; "
      "compare studies of the same images",
      a.front().classes, images_a, b.front().classes, images_b);
}

const StudyGroup* same_model(const std::vector<StudyGroup>& groups, const StudyGroup& as) {
  const auto found = std::find_if(groups.begin(), groups.end(), [&](const StudyGroup& g) {
    return g.precision == as.precision && g.width == as.width;
  });
  return found == groups.end() ? nullptr : &*found;
}

bool same_result(const PointResult& a, const PointResult& b) {
  const bool outcomes_known = !a.outcomes.right.empty() && !b.outcomes.right.empty();
  return a.last == b.last && a.train_unaugmented == b.train_unaugmented && a.best == b.best &&
         (!outcomes_known || a.outcomes == b.outcomes);
}

}  // namespace

StudyComparison::StudyComparison(const std::vector<PointResult>& a, const std::vector<PointResult>& b)
    : a_(group_points(a)), b_(group_points(b)) {
  refuse_other_images(a, b);
  const bool a_knows = seed_freedom(a_) > 0, b_knows = seed_freedom(b_) > 0;
  seeds_known_ = a_knows || b_knows;
  if (a_knows != b_knows) {
    take_seed_spread(a_knows ? b_ : a_, a_knows ? a_ : b_);
    seeds_ = SeedsOf::kOneStudy;
  }
  for (const StudyGroup& g : a_) {
    if (const StudyGroup* other = same_model(b_, g); other != nullptr)
      pairs_.emplace_back(&g, other);
    else
      only_a_.push_back(g.name());
  }
  for (const StudyGroup& g : b_)
    if (same_model(a_, g) == nullptr) only_b_.push_back(g.name());
  if (pairs_.empty())
    throw DataError("no precision and width is in both studies: A has {}, B has {}; train models of the same ones",
                    fmt::join(only_a_, ", "), fmt::join(only_b_, ", "));
  std::vector<const StudyGroup*> compared;
  for (const Pair& pair : pairs_)
    if (!same(pair)) compared.insert(compared.end(), {pair.first, pair.second});
  pairing_ = pairing_of(compared);
  recipe_ = recipe_differences(a.front().provenance.config, b.front().provenance.config);
  if (const ConfigDifference d = weights_difference(a, b); !d.name.empty()) recipe_.push_back(d);
}

bool StudyComparison::same(const Pair& pair) const {
  int64_t common_seeds = 0;
  for (const PointResult* a : pair.first->points) {
    for (const PointResult* b : pair.second->points) {
      if (a->seed != b->seed) continue;
      if (!same_result(*a, *b)) return false;
      ++common_seeds;
    }
  }
  return common_seeds > 0;
}

MeanDifference StudyComparison::difference(const Pair& pair, Estimate StudyGroup::*of) const {
  MeanDifference d(of, pairing_, seeds_);
  if (!same(pair)) d.add(*pair.second, *pair.first);
  return d;
}

MeanDifference StudyComparison::mean_difference(Estimate StudyGroup::*of) const {
  MeanDifference d(of, pairing_, seeds_);
  for (const Pair& pair : pairs_)
    if (!same(pair)) d.add(*pair.second, *pair.first);
  return d;
}

}  // namespace nibble::apps
