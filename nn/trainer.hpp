// The trainer: a batch in, a step done. Shards are the unit of parallel work and of reproducibility: METHOD.md
// section 9.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "nn/model.hpp"
#include "nn/optimizer.hpp"
#include "nn/schedule.hpp"
#include "nn/training_forward.hpp"

namespace nibble {

struct TrainerOptions {
  int64_t shard = 32;
  float label_smoothing = 0.1f;
  Schedule schedule;
  OptimizerOptions optimizer;
  int64_t calibrate_step = 0;  // first quantized step; ignored for bf16 networks
  /// Shards one after another, each on all threads, and their widest outputs made again in backward
  /// (KeptOutputs::kNarrow); the results are the same.
  bool low_memory = false;
};

struct StepResult {
  double loss = 0;             // mean over the batch, with label smoothing, without weight decay
  int64_t top1 = 0, top5 = 0;  // correct answers in the batch
  int64_t images = 0;
  float rate = 0;
  double gradient_norm = 0;
};

/// UsageError when batch norm cannot learn from shards of so many images: none, or one value per channel.
void check_shard(const Network& network, int64_t shard);

/// Owns the model, the momentum and the step counter: everything a checkpoint holds.
class Trainer {
 public:
  /// Trains the parameters of `model` in place, so copies that share them change, too. UsageError for options that no
  /// run of the model can have: a shard below 1, a calibration before the first step, a schedule without steps.
  Trainer(Model model, const TrainerOptions& options);
  /// Continues from a checkpoint's state.
  Trainer(Model model, const TrainerOptions& options, Gradients momentum, int64_t steps_done);

  /// One step on uint8 NHWC images [n, h, w, 3], n a multiple of the shard size. The result depends on the trainer's
  /// state and options, the batch and the kernel level, never on the number of threads.
  /// Throws DivergedError (a convolution's output, loss or gradient not finite; names the layer) before any parameter
  /// changes, or after the step that calibrates, when a layer is dead; ShapeError, DTypeError.
  /// One call at a time, and model() not read meanwhile; two trainers may step at once.
  StepResult step(const Tensor& images, std::span<const int32_t> labels);

  /// Writes the bounds now, ahead of options.calibrate_step. DivergedError naming a layer that never fired.
  void calibrate();
  /// Records in the model how its codes are used (measure_usage); steps do not read it.
  void keep_usage(std::vector<QuantizerUsage> usage) { model_.usage = std::move(usage); }

  /// The model being trained, which later steps change: Model::clone() keeps it as it is now.
  const Model& model() const { return model_; }
  const Gradients& momentum() const { return momentum_; }
  int64_t steps_done() const { return steps_done_; }
  const TrainerOptions& options() const { return options_; }
  /// Sums of gradients that are kept for the next step: as many as were alive at once, at most threads + log2(shards),
  /// with low_memory 1 + log2(shards).
  size_t gradient_buffers() const { return buffers_.size(); }

 private:
  struct ShardOutcome {
    double loss = 0;
    int64_t top1 = 0, top5 = 0;
    ShardStatistics statistics;
  };
  /// What a step cuts into shards, and what becomes of each.
  struct Shards {
    const StepWeights& weights;
    const Tensor& images;
    std::span<const int32_t> labels;
    std::vector<ShardOutcome>& outcomes;
  };
  std::array<Gradients, 2> run_halves(const Shards& all, int64_t first, int64_t last, bool inside);
  Gradients run_tree(const Shards& all, int64_t first, int64_t last, bool inside);
  Gradients run_shard(const Shards& all, int64_t shard);
  void update_statistics(const std::vector<NormStatistics>& norms, const std::vector<ShardStatistics>& shards);
  Gradients take_buffer();
  void return_buffer(Gradients gradients);

  Model model_;
  TrainerOptions options_;
  Gradients momentum_;
  int64_t steps_done_ = 0;
  std::mutex buffers_mutex_;
  std::vector<Gradients> buffers_;  // free gradient buffers, reused from step to step
};

}  // namespace nibble
