// Which layers quantizing costs most: the network quantized with one layer at a time in a finer precision.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "nn/post_training.hpp"

namespace nibble::apps {

/// How near logits come to those of the same weights in bf16, batch norm's statistics taken in the same way: 10 log10
/// of the power of bf16's over that of the difference, both without the mean of each image's logits, which no
/// probability depends on; infinite where there is no difference.
struct LayerSensitivity {
  std::string layer;
  double decibels = 0;       // with this layer in the finer precision
  int64_t weight_bytes = 0;  // that its weights take more in the served file then
};

struct Sensitivity {
  double decibels = 0;                   // of the network as asked for
  std::vector<LayerSensitivity> layers;  // those that are not as fine already, in the order of the network
};

struct SensitivityArgs {
  const Model& trained;  // masters and running statistics; its network is the one to quantize, not calibrated
  Precision finer;       // of one layer at a time, where its weights or activations are coarser
  NormSource norms = NormSource::kImages;
  const std::vector<Tensor>& batches;  // uint8 NHWC, of bounds, statistics and logits
  std::function<void(int64_t done, int64_t total)> progress = {};
};

/// Cost: for each layer what quantize_after_training and an evaluation of the batches cost. Errors: theirs; UsageError
/// when no layer is coarser, DivergedError for logits that are not finite.
Sensitivity measure_sensitivity(const SensitivityArgs& args);

}  // namespace nibble::apps
