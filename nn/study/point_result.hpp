// What is known of one finished training run: costs, accuracy, curves, layers and provenance, as one JSON file.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nn/cost.hpp"
#include "nn/model.hpp"
#include "nn/study/curves.hpp"

namespace nibble {

/// Accuracy over a set of images; percent and mean cross entropy without label smoothing.
struct Accuracy {
  double top1 = 0, top5 = 0, loss = 0;
  int64_t images = 0;
  bool operator==(const Accuracy&) const = default;
};

/// What became of each validation image: models that were judged on the same ones are compared image by image.
struct ImageOutcomes {
  std::string images = {};  // a digest of their names, in their order
  std::string right = {};   // a character each: '1' right, '0' wrong, '-' not seen
  bool operator==(const ImageOutcomes&) const = default;
};

/// Time of the served model; it belongs to the machine named with it. 0: not measured.
struct Latency {
  double batch1_ms = 0;             // one image per call
  double batch32_ms_per_image = 0;  // 32 images per call
  int64_t threads = 0;
  std::string cpu, isa;
  /// UTC, when the models of a study were timed in turn; empty: timed alone, when it was trained.
  std::string sitting = {};
  bool operator==(const Latency&) const = default;
};

/// One layer: its cost, and what its input's quantizer does to some of the validation images.
struct PointLayer : LayerCost {
  /// Of the quantizer's channels; all 0 where the input is bf16.
  double bound_min = 0, bound_median = 0, bound_max = 0;
  /// Empty where the input is bf16.
  QuantizerUsage usage;
};

struct Provenance {
  std::string command;  // that continues or repeats the run
  std::string config;   // resolved, TOML
  // Of the processes that trained it; where they differ, all of them, as in "0.1.0, then 0.2.0".
  std::string version;  // of nibble
  std::string cpu, isa;
  int64_t threads = 0;                            // of the last
  std::string started;                            // UTC, of the first process that worked on it
  double seconds = 0;                             // of training, over all processes that ended in order
  std::string weights = {}, weights_sha256 = {};  // the file that training started from, and its hash; empty: none
  bool operator==(const Provenance&) const = default;
};

struct PointResult {
  std::string name;  // "w4a4-fl8-x0.5-s0"
  std::string arch, precision;
  double width = 1;
  uint64_t seed = 0;
  int64_t image_size = 0, classes = 0;
  int64_t steps = 0, epochs = 0;  // epochs: 0 when the run was given in steps

  CostSums cost;
  CostRatio ratio;  // to bf16 at width 1
  uint64_t served_bytes = 0;
  Latency latency;

  Accuracy last;                   // after the last step
  ImageOutcomes outcomes;          // of the same evaluation; empty: not kept (older versions)
  SmoothedEpoch best;              // the published metric: best epoch of the smoothed curve
  Accuracy train_unaugmented;      // training images through the evaluation's preprocessing, after the last step
  Curves curves;                   // train thinned
  std::vector<PointLayer> layers;  // as Network::units
  Provenance provenance;
};

/// One JSON object, ended by a newline. Numbers read back equal.
std::string to_json(const PointResult& point);

/// Whether a result that holds it can be read again: finite, not negative where only that makes sense, shares up to 100
/// %. (A training loss and share may be missing.)
bool can_be_kept(const TrainSample& sample);
bool can_be_kept(const EvalSample& sample);
/// The same for the seconds of its provenance.
bool can_be_kept_seconds(double seconds);

/// Throws DataError naming `source` and the key when the text is no such object, or a number is not finite or a share,
/// count or width is out of range. Unknown keys are ignored.
PointResult point_result_from_json(const std::string& text, const std::string& source);

/// The points of a text like study.json: an object whose "points" are as in result files. DataError naming `source`.
std::vector<PointResult> points_from_json(const std::string& text, const std::string& source);

/// Reads and parses a file; DiskError, DataError. Files above 16 MiB are refused.
PointResult read_point_result(const std::filesystem::path& path);

}  // namespace nibble
