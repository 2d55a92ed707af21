#include "nn/train_options.hpp"

#include <algorithm>

#include <cmath>
#include <limits>

namespace nibble {

namespace {

template <typename T>
void require_range(const char* name, T value, T low, T high) {
  if (!(value >= low && value <= high)) throw UsageError("{} is {}; use {} to {}", name, value, low, high);
}

}  // namespace

namespace {

/// Of n, at most `most`.
int64_t largest_divisor(int64_t n, int64_t most) {
  int64_t divisor = std::min(n, most);
  while (n % divisor != 0) --divisor;
  return divisor;
}

}  // namespace

void TrainOptions::validate() const {
  require_range<int64_t>("--batch-size", batch_size, 1, 65536);
  require_range<int64_t>("--shard", shard, 1, 4096);
  if (batch_size % shard != 0)
    throw UsageError(
        "--batch-size {} is not a multiple of --shard {}, the images that share batch norm; use --batch-size {}, or "
        "--shard {}",
        batch_size, shard, (batch_size / shard + 1) * shard, largest_divisor(batch_size, shard));
  require_range<int64_t>("--epochs", epochs, 1, 100000);
  require_range<int64_t>("--steps", steps, 0, 1000000000);
  require_range("--lr", lr, 0.0, 1000.0);
  require_range("--warmup-epochs", warmup_epochs, 0.0, 10000.0);
  require_range("--momentum", momentum, 0.0, 0.9999);
  require_range("--weight-decay", weight_decay, 0.0, 1.0);
  require_range("--clip-grad-norm", clip_grad_norm, 0.0, 1e9);
  require_range("--label-smoothing", label_smoothing, 0.0, 0.9);
  require_range("--min-crop", min_crop, 0.01, 1.0);
  require_range<int64_t>("--classes", limit_classes, 0, 100000);
  if (limit_classes == 1)
    throw UsageError("--classes is 1, and with one class there is nothing to learn; use 0 (all) or at least 2");
  require_range<int64_t>("--per-class", per_class, 0, 100000000);
  require_range<int64_t>("--loader-threads", loader_threads, 1, 64);
  require_range<int64_t>("--keep", keep, 1, 1000000);
  require_range<int64_t>("--save-every", save_every, 0, 1000000000);
  require_range<int64_t>("--eval-every", eval_every, 0, 100000);
  if (!(calibrate_at > 0) || calibrate_at > 1e9 || (calibrate_at > 1 && calibrate_at != std::floor(calibrate_at)))
    throw UsageError(
        "--calibrate-at is {}; use a fraction of the run below 1 (0.2) or a whole step from 1 on: before that "
        "there are no activation statistics",
        calibrate_at);
  if (seed > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))  // TOML's integers end there
    throw UsageError("--seed is {}; use 0 to {}", seed, std::numeric_limits<int64_t>::max());
  schedule_kind(schedule);
  optimizer_kind(optimizer);
}

int64_t TrainOptions::calibrate_step(int64_t total) const {
  if (calibrate_at >= 1) return static_cast<int64_t>(calibrate_at);
  return std::max<int64_t>(1, static_cast<int64_t>(std::llround(calibrate_at * static_cast<double>(total))));
}

TrainerOptions TrainOptions::trainer(int64_t total, int64_t steps_per_epoch) const {
  TrainerOptions t;
  t.shard = shard;
  t.low_memory = low_memory;
  t.label_smoothing = static_cast<float>(label_smoothing);
  t.schedule.kind = schedule_kind(schedule);
  t.schedule.peak = lr;
  t.schedule.total_steps = total;
  t.schedule.warmup_steps =
      std::min(total, static_cast<int64_t>(std::llround(warmup_epochs * static_cast<double>(steps_per_epoch))));
  t.optimizer.kind = optimizer_kind(optimizer);
  t.optimizer.momentum = static_cast<float>(momentum);
  t.optimizer.nesterov = nesterov;
  t.optimizer.weight_decay = static_cast<float>(weight_decay);
  t.optimizer.clip_norm = static_cast<float>(clip_grad_norm);
  t.calibrate_step = calibrate_step(total);
  return t;
}

}  // namespace nibble
