#include "apps/presets.hpp"

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
shard = 64                   # images a device: 64 or 128, which of them is not published
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

const Preset& preset_named(const std::string& name) {
  static const Preset paper{.name = "paper", .options = kPaper, .lr_of_256 = 0.1};
  if (name != paper.name) throw UsageError("--preset is '{}'; the only one there is: {}", name, paper.name);
  return paper;
}

}  // namespace nibble::apps
