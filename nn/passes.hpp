// The network's passes over one shard: training forward (taped) and evaluation through the same modules.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/tape.hpp"
#include "nn/model.hpp"
#include "ops/norm_activate.hpp"
#include "ops/packed_conv.hpp"

namespace nibble {

/// A copy of images [first, first + count) of dense uint8 NHWC images, of which there is at least one.
Tensor copy_images(const Tensor& images, int64_t first, int64_t count);

/// Right operands of all units at one step, shared by the shards. Points into the model's quantizers.
struct StepWeights {
  std::vector<LayerWeights> layers;
};
/// Threads: units, and 32 output channels each.  Cost and errors: prepare_layer for every unit.
StepWeights prepare_weights(const Model& model, Passes passes);

/// Gradients of one shard (or a sum of shards), laid out as the parameters. A backward pass writes every tensor.
struct Gradients {
  std::vector<UnitParameters> units;  // weights, gamma, beta, bias; running statistics stay undefined
  /// Adds `other`, tensor by tensor.
  void add(const Gradients& other) const;
};
Gradients make_gradients(const Model& model);

/// What one shard hands back besides gradients.
struct ShardStatistics {
  std::vector<NormStatistics> norms;            // per unit; empty where there is no batch norm
  std::vector<std::vector<float>> channel_max;  // per quantizer; empty once calibrated
};

/// Logits f32 [n, classes] on the tape; saves what backward needs, which overwrites every tensor of `gradients`.
Variable training_forward(Tape& tape, const Model& model, const StepWeights& weights, const Tensor& images,
                          const Gradients& gradients, ShardStatistics& statistics);

/// Called by evaluation after each unit: accumulators (s32 or f32, [n, oh, ow, oc]) and what the unit hands on
/// (bf16 or codes; undefined for fc, whose result is the logits).
using UnitObserver = std::function<void(const UnitSpec&, const Tensor& accumulators, const Tensor& output)>;

/// Logits f32 [n, classes] with running statistics, module by module through full-size tensors: the slow, plain path
/// that the served executor is compared with.
Tensor evaluate_modules(const Model& model, const StepWeights& weights, const Tensor& images,
                        const UnitObserver& observer = {});

/// v = acc*M + A of one unit in evaluation (METHOD.md section 8): M = gamma/sqrt(var + eps) * rescale, A = beta -
/// mean*gamma/sqrt. For fc: M = rescale, A = bias. The one place where this is computed.
struct ServedAffine {
  std::vector<float> m, a;
};
ServedAffine served_affine(const UnitSpec& unit, const UnitParameters& p, const LayerWeights& layer);

}  // namespace nibble
