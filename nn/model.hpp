// The model: parameters, running statistics and calibration of every unit of a network. Plain data.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.hpp"
#include "nn/quantized_network.hpp"
#include "ops/quantization.hpp"

namespace nibble {

/// Parameters of one unit; all f32. Kernels lie OHWI in memory and OIHW in files (torchvision's order).
struct UnitParameters {
  Tensor weights;      // [oc, kh, kw, ic]
  Tensor gamma, beta;  // [oc]; undefined without batch norm
  Tensor running_mean, running_variance;
  Tensor bias;  // [oc]; fc only
};

/// Statistics of one activation quantizer (METHOD.md section 3, mean of max): per channel an exponential moving average
/// of the shards' mean maximum, and the weight gathered so far. The average starts at 0; dividing it by the weight
/// removes that bias.
struct Calibration {
  std::vector<float> mean_of_max;  // [channels]
  std::vector<float> weight;       // [channels], 1 - 0.9^updates
  std::vector<float> bound;        // [channels]; empty until calibrated
};

/// A copy shares the parameters of the original (tensors are handles), which training updates in place: to keep a model
/// as it is, use clone().
struct Model : QuantizedNetwork {
  std::vector<UnitParameters> units;     // as network.units
  std::vector<Calibration> calibration;  // as network.quantizers

  /// The same model with parameters of its own.
  Model clone() const;
};

struct InitOptions {
  uint64_t seed = 0;
  bool zero_last_gamma = true;  // last batch norm of each block starts at 0 (METHOD.md section 1)
};

/// Fresh parameters: LeCun normal (truncated at 2 sigma, variance 1/fan_in after truncation), gamma 1, beta and bias 0,
/// running mean 0 and variance 1. A pure function of the seed.
Model make_model(const Network& network, const InitOptions& options);

/// Raises all to the largest finite one: of a quantizer per tensor it counts for every channel.
void spread_largest(std::vector<float>& maxima);

/// Folds one step's channel maxima (mean over the shards where the channel fired) into the moving averages.
/// shard_max[shard] holds [channels]; channels that are 0 in every shard stay as they are. Per tensor, each shard's
/// largest channel counts for all of them.
void update_calibration(Calibration& calibration, Granularity granularity, std::vector<std::vector<float>> shard_max);

/// Writes all bounds from the statistics and builds the quantizers: the one-shot calibration. A channel that never
/// fired gets its layer's smallest non-zero bound; a layer without any statistics, which is dead, throws DivergedError
/// naming it and writes no bound.
void calibrate(Model& model);

/// Rebuilds `quantizers` from stored bounds (loading a checkpoint).
void rebuild_quantizers(Model& model);

/// FactorForm of one quantizer of the network.
FactorForm factor_form(const QuantizerSpec& spec);

}  // namespace nibble
