// The three cost models of the study (METHOD.md section 5), as integers, from the list of units.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nn/unit.hpp"

namespace nibble {

/// Costs of one convolution or linear layer for one image; of a network: the sums over its layers.
///   linear    = macs * r(max(weight bits, activation bits)), r rounds up to 4, 8 or 16
///   quadratic = macs * weight bits * activation bits
///   memory    = weights * weight bits (in bits)
/// macs = oh * ow * kh * kw * ic * oc. Batch norm, ReLU, pooling, additions, biases and scales are not counted, nor is
/// the batch: the figures compare models, they do not predict a machine.
struct CostSums {
  int64_t macs = 0;
  int64_t weights = 0;
  int64_t linear = 0;
  int64_t quadratic = 0;
  int64_t memory_bits = 0;
  bool operator==(const CostSums&) const = default;
};

struct LayerCost : CostSums {
  std::string name;  // torchvision's
  int weight_bits = 16;
  int activation_bits = 16;
  bool operator==(const LayerCost&) const = default;
};

struct Cost {
  CostSums total;
  std::vector<LayerCost> layers;  // as Network::units
};

struct CostRatio {
  double linear = 0, quadratic = 0, memory = 0;
};

Cost cost_of(const Network& network);

/// The same architecture, image size and number of classes in bf16 at width 1: what ratios refer to.
CostSums reference_cost(const NetworkOptions& options);

/// cost / reference, model by model.
CostRatio cost_ratio(const CostSums& cost, const CostSums& reference);

/// The largest width in steps of 0.01, from 0.05 to 8, whose linear cost is at most `max_ratio` times the reference.
/// `options.width` is not used. Throws UsageError when not even the narrowest network fits, and for NaN.
/// Cost: about ten networks described (the cost grows with the width, so the widths are bisected).
double width_for_linear(NetworkOptions options, double max_ratio);

}  // namespace nibble
