// Everything a training run is told, as plain data with the project's one recipe as defaults.
#pragma once
#include <cstdint>
#include <string>

#include "nn/optimizer.hpp"
#include "nn/schedule.hpp"
#include "nn/trainer.hpp"
#include "nn/unit.hpp"

namespace nibble {

struct TrainOptions {
  NetworkOptions network;  // classes: 0 = as many as the data set has

  std::string data;
  int64_t limit_classes = 0;  // --classes: the first N class names (0: all)
  int64_t per_class = 0;      // images of each class (0: all)
  double min_crop = 0.25;     // published: 0.08 (METHOD.md section 4)
  std::string decoder = "auto";
  bool strict_data = false;
  int64_t loader_threads = 1;

  int64_t batch_size = 64;
  int64_t shard = 32;
  bool low_memory = false;  // shards one after another: the same results
  int64_t epochs = 10;
  int64_t steps = 0;  // > 0: overrides epochs
  double lr = 0.05;
  double warmup_epochs = 1;
  std::string schedule = "cosine";
  std::string optimizer = "sgd";
  double momentum = 0.9;
  bool nesterov = true;
  double weight_decay = 1e-4;
  double clip_grad_norm = 0;  // 0: off
  double label_smoothing = 0.1;
  double calibrate_at = 0.2;  // below 1: fraction of all steps, otherwise a step
  bool zero_gamma = true;
  uint64_t seed = 0;

  int64_t save_every = 0;  // steps; 0: at each epoch's end
  int64_t eval_every = 1;  // epochs; 0: only at the end
  int64_t keep = 3;

  /// Throws UsageError naming the first option that is out of range.
  void validate() const;
  /// First quantized step of a run of `total` steps.
  int64_t calibrate_step(int64_t total) const;
  TrainerOptions trainer(int64_t total, int64_t steps_per_epoch) const;
};

}  // namespace nibble
