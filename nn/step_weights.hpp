// What the products of one step read of the weights: quantized and packed once, for all shards.
#pragma once
#include <vector>

#include "nn/model.hpp"
#include "ops/layer_weights.hpp"

namespace nibble {

/// Right operands of all units at one step, shared by the shards. Points into the model's quantizers.
struct StepWeights {
  std::vector<LayerWeights> layers;
};
/// Threads: units, and 32 output channels each.  Cost and errors: prepare_layer for every unit.
StepWeights prepare_weights(const Model& model, Passes passes);

}  // namespace nibble
