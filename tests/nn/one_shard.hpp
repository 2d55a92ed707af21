// One shard forward and backward, through the public pass of training.
#pragma once
#include <span>
#include <vector>

#include "engine/block_cache.hpp"
#include "nn/training_forward.hpp"
#include "ops/softmax_cross_entropy.hpp"

namespace nibble::testing {

struct Shard {
  Tensor logits;
  Gradients gradients;
  ShardStatistics statistics;
  size_t kept_bytes = 0;  // in blocks, by what waits for backward
};

/// Image i has the label i % 5.
inline Shard forward_and_backward(const Model& model, const Tensor& images, KeptOutputs kept = KeptOutputs::kAll) {
  Shard s{.logits = {}, .gradients = make_gradients(model), .statistics = {}};
  const StepWeights weights = prepare_weights(model, Passes::kForwardAndBackward);
  Tape tape;
  const size_t before = block_cache_stats().used_bytes;
  const Variable logits = training_forward(tape, model, weights, images, s.gradients, s.statistics, kept);
  s.kept_bytes = block_cache_stats().used_bytes - before;
  s.logits = logits.value();
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < images.dim(0); ++i) labels.push_back(static_cast<int32_t>(i % 5));
  const TapedLoss loss =
      softmax_cross_entropy(&tape, logits, std::span<const int32_t>(labels), {.label_smoothing = 0.1f});
  tape.backward(loss.loss);
  return s;
}

}  // namespace nibble::testing
