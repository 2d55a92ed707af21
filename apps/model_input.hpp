// Loading what a command calls MODEL: a run folder, a checkpoint or a served file, ready to run.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "nn/checkpoint.hpp"
#include "nn/runtime/executor.hpp"

namespace nibble::apps {

/// Logits of a batch of uint8 NHWC images.
using RunModel = std::function<Tensor(const Tensor&)>;

/// What computes the logits: the served executor, or the modules of training in evaluation mode, layer by layer, which
/// promise the same bits of a calibrated integer model.
enum class RunBy { kExecutor, kModules };

struct LoadedModel {
  std::string path;
  ModelFileKind kind = ModelFileKind::kServed;
  std::optional<Checkpoint> checkpoint;  // kind kCheckpoint
  std::shared_ptr<Executor> executor;    // none for a checkpoint that runs through its modules
  std::vector<std::string> class_names;
  Network network;
  RunModel run;

  /// Activations are quantized if the precision says so.
  bool complete() const {
    const bool calibrated = checkpoint ? checkpoint->model.calibrated() : executor->model().calibrated();
    return calibrated || network.quantizers.empty();
  }
};

/// A checkpoint of a fake-mode model with quantizers runs through its modules whatever `by` says. ModelError (exit 4)
/// when the file is missing, damaged or of another kind; UsageError when a served file, which has no modules, is to run
/// by them.
LoadedModel load_model(const std::string& path, RunBy by = RunBy::kExecutor);

/// Executor or modules for a model in training, which must outlive the result and not change.
RunModel runner_for(const Model& model);

}  // namespace nibble::apps
