// What a study measured: points grouped over seeds, standard errors, Pareto fronts, the best under a budget.
#pragma once
#include <string>
#include <vector>

#include "engine/function_ref.hpp"
#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// A figure and its standard error, both in percent.
struct Estimate {
  double value = 0;
  double error = 0;
  double seed_error = 0;        // the part of it that comes from the spread over seeds
  double validation_error = 0;  // the part that comes from the validation images
  bool of_validation = false;   // whether it counts these images, even where it is 0 or 100 % of them
  int64_t freedom = 0;          // degrees of freedom that spread is known with; 0: not known, and left out
};

/// The points of one precision and width: one per seed.
struct StudyGroup {
  std::string precision;
  double width = 1;
  std::vector<const PointResult*> points;  // by seed

  /// The published metric, mean over the seeds. Error: sqrt(binomial error^2 + seed_spread^2 / seeds): the images are a
  /// sample, and so are the seeds.
  Estimate top1;
  Estimate last_top1;               // the same after the last step
  Estimate train_top1;              // without augmentation, after the last step
  Estimate gap;                     // train_top1 - last_top1, the spread over seeds being that of the difference
  double loss = 0, train_loss = 0;  // after the last step
  /// Of one validation image's outcome (0 or 1) over seeds, the mean over images, pooled over the study's models with
  /// several seeds that know it; 0: not known.
  double outcome_variance = 0;
  double latency_ms = 0;  // batch 1, mean of those measured; 0: none was

  const PointResult& first() const { return *points.front(); }
  std::string name() const;  // "w4a4-fl8 x0.5"
};

/// Groups ascending in width, precisions in the order bf16, w8a8, w4a4-fl8, w4a4, others by name. DataError when there
/// is no point, two have one name or are one training (precision, width, seed), or they differ in architecture, image
/// size, classes or, by more than 1 %, in the number of validation images: such accuracies do not compare. The groups
/// point into `points`.
std::vector<StudyGroup> group_points(const std::vector<PointResult>& points);

/// Standard deviation of the published metric over the seeds of one model, pooled over the groups that have several
/// (weighted by their degrees of freedom) and taken for all; 0, not known, where none has.
double seed_spread(const std::vector<StudyGroup>& groups);
/// Its degrees of freedom: the points of the groups that have several, less one each.
int64_t seed_freedom(const std::vector<StudyGroup>& groups);

/// Gives groups whose spread over seeds is not known that of another study (`from`, not empty).
void take_seed_spread(std::vector<StudyGroup>& groups, const std::vector<StudyGroup>& from);

/// Of the validation set: the most that any of the points saw.
int64_t validation_images(const std::vector<PointResult>& points);

/// Which points were judged on fewer validation images than others, as a sentence without its full stop; empty when
/// none was. An image that goes bad while a study runs counts for the points before it only.
std::string uneven_images(const std::vector<PointResult>& points);

/// "layer2.0.conv2 w8a8, fc w8a8": the layers of any of the points that do not have the precision of their point
/// (`[layers]` of the recipe), more than eight as "9 layers"; empty: there is none.
std::string own_layers_text(const std::vector<const PointResult*>& points);

/// Where and when the times of a study were measured.
struct TimesOf {
  std::vector<std::string> machines;  // "Intel(R) ... (amx kernels, 2 threads)", by name; none: nothing was timed
  std::vector<std::string> sittings;  // UTC, when models were timed in turn
  bool some_alone = false;            // when their training ended, in no sitting
  /// All of them in turn, in one sitting on one machine?
  bool compare() const { return machines.size() == 1 && sittings.size() == 1 && !some_alone; }
};
TimesOf times_of(const std::vector<PointResult>& points);

/// One of the costs that models are compared by.
struct CostKind {
  const char* key;    // "linear"
  const char* title;  // for an axis
  double (*of)(const StudyGroup&);
};
/// Linear, quadratic, memory (as ratios to bf16 at width 1), milliseconds, megabytes.
const std::vector<CostKind>& cost_kinds();

/// Groups that no other dominates (lower or equal cost and higher or equal accuracy, one of them strictly), ascending
/// in cost. Groups whose cost is not positive (not measured) take no part.
std::vector<const StudyGroup*> front_of(const std::vector<StudyGroup>& groups, const CostKind& cost);

/// The most accurate of the groups that are allowed, the cheapest among equals; null: none is.
const StudyGroup* best_of(const std::vector<StudyGroup>& groups, FunctionRef<bool(const StudyGroup&)> allowed,
                          FunctionRef<bool(const StudyGroup&, const StudyGroup&)> cheaper);
/// The same by linear cost.
const StudyGroup* best_of(const std::vector<StudyGroup>& groups, FunctionRef<bool(const StudyGroup&)> allowed);
/// And among those that cost at most `budget` by linear cost.
const StudyGroup* best_under(const std::vector<StudyGroup>& groups, double budget);

}  // namespace nibble::apps
