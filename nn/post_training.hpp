// Post-training quantization: what a trained model's activations on some images say about its bounds and its batch
// norms, without a gradient.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/model.hpp"
#include "nn/step_weights.hpp"
#include "nn/training_forward.hpp"

namespace nibble {

/// Which statistics batch norm normalises with in such a pass, and has after it.
enum class NormSource {
  kModel,  // the running statistics of training, as they are
  /// Each batch's own, as in a training step; their means over the batches become the running statistics. What
  /// quantizing did to the mean and the variance of a layer's outputs is then taken back.
  kImages
};

/// One pass of images through a trained model: add() every batch, then finish() once.
class PostTrainingPass {
 public:
  /// `model` must not change between here and finish(), which changes it. Cost: prepare_weights.
  PostTrainingPass(Model& model, NormSource norms);

  /// Images uint8 NHWC [n, h, w, 3], n > 0. A batch is to a bound what a shard of training is: of each channel its
  /// largest value counts.
  /// Cost: an evaluation by modules; with kImages a forward pass of training, with the memory of one shard of n images.
  /// Throws DivergedError naming the first layer whose output is not finite; ShapeError, DTypeError.
  void add(const Tensor& images);
  /// Writes the bounds, if the model has quantizers and no bounds yet: of each channel the mean over the batches where
  /// it fired (METHOD.md section 3 with a mean in place of the moving average). With kImages also the running
  /// statistics.
  /// UsageError without any batch; DivergedError naming a layer that never fired.
  void finish();

 private:
  struct NormSums {
    std::vector<double> mean, variance;
  };
  void add_evaluated(const Tensor& images);
  void add_normalised(const Tensor& images);
  void take(std::vector<std::vector<float>> channel_max);

  Model& model_;
  NormSource source_;
  StepWeights weights_;
  int64_t batches_ = 0;
  std::vector<NormSums> norms_;                          // per unit
  std::vector<std::vector<std::vector<float>>> maxima_;  // per quantizer and batch
};

}  // namespace nibble
