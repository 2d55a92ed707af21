// The training pass of one shard: forward on the tape, which knows the way back.
#pragma once
#include <vector>

#include "engine/tape.hpp"
#include "nn/gradients.hpp"
#include "nn/model.hpp"
#include "nn/step_weights.hpp"
#include "ops/norm_activate.hpp"

namespace nibble {

/// What one shard returns besides gradients.
struct ShardStatistics {
  std::vector<NormStatistics> norms;            // per unit; empty where there is no batch norm
  std::vector<std::vector<float>> channel_max;  // per quantizer; empty once calibrated
};

/// What waits for backward in memory. The gradients are the same, bit for bit.
enum class KeptOutputs {
  kAll,
  /// Outputs of expansions and projections (the convolutions in front of a block's output, 7 of the 20 million numbers
  /// an image at width 1 and 224 px) are made again from the layer's input, codes or bf16: 29 % of ResNet-50's forward
  /// products twice.
  kNarrow
};

/// Logits f32 [n, classes] on the tape; saves what backward needs, which overwrites every tensor of `gradients`.
Variable training_forward(Tape& tape, const Model& model, const StepWeights& weights, const Tensor& images,
                          const Gradients& gradients, ShardStatistics& statistics,
                          KeptOutputs kept = KeptOutputs::kAll);

}  // namespace nibble
