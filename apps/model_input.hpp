// Loading what a command calls MODEL: a run folder, a checkpoint or a served file, ready to run.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "data/dataset.hpp"
#include "nn/checkpoint.hpp"
#include "nn/runtime/evaluation.hpp"
#include "nn/runtime/executor.hpp"

namespace nibble::apps {

/// Logits of a batch of uint8 NHWC images.
using RunModel = std::function<Tensor(const Tensor&)>;

struct LoadedModel {
  std::string path;
  ModelFileKind kind = ModelFileKind::kServed;
  std::optional<Checkpoint> checkpoint;  // kind kCheckpoint
  std::shared_ptr<Executor> executor;    // none for a calibrated fake-mode checkpoint, which runs through its modules
  std::vector<std::string> class_names;
  Network network;
  RunModel run;

  bool calibrated() const { return checkpoint ? checkpoint->model.calibrated() : executor->model().calibrated(); }
};

/// ModelError (exit 4) when the file is missing, damaged or of another kind.
LoadedModel load_model(const std::string& path);

/// Executor or modules for a model in training.
RunModel runner_for(const Model& model);

struct EvaluationOptions {
  int64_t batch_size = 32;
  int64_t limit = 0;
  int64_t loader_threads = 1;
  bool strict_data = false;
  bool (*stop)() = nullptr;                // asked after each batch: true ends the evaluation early
  std::set<std::string>* named = nullptr;  // bad images named before, which are not named again
};
struct EvaluationReport {
  EvaluationResult result;
  int64_t skipped = 0, damaged = 0;  // left out; used although damaged
  double seconds = 0;
  bool stopped = false;  // by options.stop: the result is that of the images until then
};
/// Runs a whole data set; names skipped and damaged images on stderr.
EvaluationReport evaluate_dataset(const RunModel& run, const DatasetPtr& dataset, int64_t image_size,
                                  const EvaluationOptions& options);

}  // namespace nibble::apps
