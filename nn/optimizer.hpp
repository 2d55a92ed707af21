// SGD with (Nesterov) momentum, LARS, weight decay on kernels only, clipping by global norm.
#pragma once
#include <string>

#include "nn/gradients.hpp"

namespace nibble {

enum class OptimizerKind { kSgd, kLars };
/// Parses "sgd", "lars"; throws UsageError.
OptimizerKind optimizer_kind(const std::string& name);

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kSgd;
  float momentum = 0.9f;
  bool nesterov = true;
  float weight_decay = 1e-4f;  // convolution and linear kernels; not batch norm, not bias
  float clip_norm = 0;         // 0: off
  float lars_coefficient =
      0.001f;  // You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", section 4
};

/// Updates the masters w in place. With d = g + decay*w: momentum m = mu*m + d, w -= rate * (m, or d + mu*m with
/// Nesterov). LARS multiplies d of a kernel by lars_coefficient * |w| / (|g| + decay*|w|) before it enters the
/// momentum, as the paper's Algorithm 1 does (which has the rate inside it, too; here it is outside, as for SGD).
/// The gradient is the sum of `gradients`, where it is left (scaled by clipping and by LARS), and `second_half`, unless
/// that is empty: the last sum over shards is made in the pass that takes the norm. `momentum` is laid out as the
/// gradients. `step` is for the message. Returns the global gradient norm (before clipping). Throws DivergedError
/// naming the layer where backward first met a gradient that is not finite (the last in execution order); parameters
/// and momentum are then as they were. Deterministic: sums run in double over fixed blocks.
double optimizer_step(Model& model, Gradients& gradients, const Gradients& second_half, Gradients& momentum, float rate,
                      const OptimizerOptions& options, int64_t step);

}  // namespace nibble
