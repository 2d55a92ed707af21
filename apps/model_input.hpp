// Loading what a command calls MODEL: a run folder, a checkpoint or a served file, ready to run.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "data/augment.hpp"
#include "data/decode.hpp"
#include "nn/checkpoint.hpp"
#include "nn/runtime/executor.hpp"

namespace nibble::apps {

/// Logits of a batch of uint8 NHWC images.
using RunModel = std::function<Tensor(const Tensor&)>;

/// What computes the logits: the served executor, or the modules of training in evaluation mode, layer by layer, which
/// promise the same bits for a calibrated integer model.
enum class RunBy { kExecutor, kModules };

struct LoadedModel {
  std::string path;
  ModelFileKind kind = ModelFileKind::kServed;
  std::optional<Checkpoint> checkpoint;  // kind kCheckpoint
  std::shared_ptr<Executor> executor;    // none for a checkpoint that runs through its modules
  std::vector<std::string> class_names;
  std::string decoder;  // that read its training images, as the file notes it; empty: it does not
  RunModel run;

  const QuantizedNetwork& model() const;
  const Network& network() const { return model().network; }
};

/// A checkpoint of a fake-mode model with quantizers runs through its modules whatever `by` says. ModelError (exit 4)
/// when the file is missing, damaged or of another kind; UsageError when a served file, which has no modules, is to run
/// through them.
LoadedModel load_model(const std::string& path, RunBy by = RunBy::kExecutor);

/// What is to decode the images that a model sees: for `asked` auto `trained_with`, the decoder of its training, whose
/// pixels it knows, or this build's own where its file notes none (empty). Warns where it is not that of its training.
/// UsageError for an unknown name, UnsupportedError for one that this build lacks.
Decoder decoder_for(const std::string& trained_with, const std::string& asked);

/// What the network's images are made of for evaluation and serving.
EvalTransform eval_transform(const NetworkOptions& options);

/// Executor or modules for a model in training, which must outlive the result and not change.
RunModel runner_for(const Model& model);

}  // namespace nibble::apps
