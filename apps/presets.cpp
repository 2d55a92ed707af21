#include "apps/presets.hpp"

#include <algorithm>

#include "engine/error.hpp"

namespace nibble::apps {

namespace {

/// METHOD.md sections 1 to 4. Width, precision, seed and data are the user's.
constexpr const char* kPaper = R"(
granularity = "per_channel"
per-channel-by = "fold"      # in fake mode: every channel keeps its own scale
quant-mode = "fake"
quant-scheme = "paper"
bf16-weights = true
same-padding = true
signed-block-input = true
zero-gamma = true
arch = "resnet50"
image-size = 224
min-crop = 0.08
batch-size = 8192
epochs = 250
steps = 0
schedule = "paper"
warmup-epochs = 5
optimizer = "sgd"
momentum = 0.9
nesterov = true
weight-decay = 1e-4
clip-grad-norm = 0
label-smoothing = 0
calibrate-at = 0.19230769230769232  # step 7,500 of 39,000
eval-every = 1
)";

}  // namespace

int64_t Preset::shard_of(int64_t batch_size) const {
  constexpr int64_t kSmallest = 16;  // fewer images of a larger batch: the statistics would be of another kind
  int64_t shard = std::min(largest_shard, batch_size);
  while (shard > 1 && batch_size % shard != 0) --shard;
  if (shard < kSmallest && shard < batch_size)
    throw UsageError(
        "--batch-size {} has no divisor from {} to {} for the shard of --preset {}; use a multiple of {}, or give "
        "--shard",
        batch_size, kSmallest, largest_shard, name, largest_shard);
  return shard;
}

const Preset& preset_named(const std::string& name) {
  // Images per device: 64 or 128, which of them is not published.
  static const Preset paper{.name = "paper", .options = kPaper, .lr_of_256 = 0.1, .largest_shard = 64};
  if (name != paper.name) throw UsageError("--preset is '{}'; the only one there is: {}", name, paper.name);
  return paper;
}

}  // namespace nibble::apps
