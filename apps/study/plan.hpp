// The plan of a study: which points it has, and the one recipe they share.
//
//   STUDY/plan.json     points, and the data they belong to
//   STUDY/recipe.toml   every option but width, precision and seed, as a run's config
//   STUDY/.lock         held by the process that works on the study
#pragma once
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "apps/study/start_weights.hpp"
#include "nn/study/point_result.hpp"

namespace nibble::apps {

struct StudyPoint {
  std::string precision;
  double width = 1;
  uint64_t seed = 0;

  /// "w4a4-fl8-x0.5-s0": the name of its run folder and of its result.
  std::string name() const;
  bool operator==(const StudyPoint&) const = default;
};

/// What the user asks for; the points are all combinations of the first three, and those of the extra seeds.
struct StudyGrid {
  std::vector<double> widths;
  std::vector<std::string> precisions;
  std::vector<uint64_t> seeds;
  std::vector<std::pair<double, uint64_t>> extra_seeds;  // width, seed: more seeds at one width, all precisions

  bool empty() const { return widths.empty() && precisions.empty() && seeds.empty() && extra_seeds.empty(); }
};

/// "1:7" is seed 7 at width 1; UsageError.
std::pair<double, uint64_t> parse_extra_seed(const std::string& text);

/// What the accuracies of one study have in common besides the recipe.
struct StudyData {
  std::vector<std::string> class_names;
  int64_t train_images = 0, validation_images = 0;
  /// RunData::digest, a blank, and validation_digest; the latter alone where seeds choose among the images
  /// (--per-class); empty: not known.
  std::string images{};
  bool operator==(const StudyData&) const = default;
};

struct StudyPlan {
  StudyData data;
  int64_t train_eval_images = 0;   // training images evaluated without augmentation (0: all)
  bool train_eval_spread = true;   // spread over all classes; false: begun by a version that took the first ones
  std::vector<StudyPoint> points;  // by seed, width, and precision in the order asked for: cheap ones first
  StudyStart start = {};           // the weights that they start from

  /// Adds what is not there yet. A list that the grid leaves empty is that of the points (seeds: those that all their
  /// widths have), or for a plan without points the default: 0.5, 0.75, 1, 1.5; bf16, w8a8, w4a4, w4a4-fl8; 0.
  void add(StudyGrid grid);
  /// Names of the points that have none of these results, in their order.
  std::vector<std::string> without(const std::vector<PointResult>& results) const;
};

std::string to_json(const StudyPlan& plan);
/// DataError naming `source` when the text is not a plan.
StudyPlan plan_from_json(const std::string& text, const std::string& source);

/// Reads STUDY/plan.json; DataError, DiskError. Files above 16 MiB are refused.
StudyPlan read_plan(const std::filesystem::path& study);

std::filesystem::path plan_path(const std::filesystem::path& study);
std::filesystem::path recipe_path(const std::filesystem::path& study);

}  // namespace nibble::apps
