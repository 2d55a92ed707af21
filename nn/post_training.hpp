// Post-training quantization: bounds, and batch norm's statistics, of a trained model from images alone, without a
// gradient.
#pragma once
#include <functional>

#include "nn/model.hpp"

namespace nibble {

/// Which statistics batch norm has afterwards.
enum class NormSource {
  kModel,  // the running statistics of training, as they are
  /// Batch norm re-estimation: the means of the batches' own, weighted by their images, of the quantized network. What
  /// quantizing did to the mean and the variance of a layer's outputs is taken back. Variance between batches is left
  /// out, as in training.
  kImages
};

using UseBatch = std::function<void(const Tensor& images)>;
/// Calls its argument with each batch, every time with the same ones: uint8 NHWC [n, h, w, 3], n > 0.
using EachBatch = std::function<void(const UseBatch&)>;

/// The model with bounds, if it has quantizers and none yet: of each channel the mean over the batches where it fired
/// of its largest value (METHOD.md sections 3 and 10; a batch is what a shard is in training, and statistics of an
/// unfinished training do not count), by the same norms: running statistics, or each batch's own. With kImages also
/// with new running statistics, taken after the bounds in a pass of their own. Weights are shared with `trained`.
/// Threads: the result does not depend on their number; it does on the kernel level, as sums of bf16 products do.
/// Cost: with kModel an evaluation by modules, with 40 MiB for each thread at width 1 and 224 px; with kImages two
/// forward passes of training (one if there are bounds already, or no quantizers), with the memory of one shard of n
/// images. Does not ask for batches where nothing is to be learnt from them.
/// Throws UsageError without any batch, and with kImages for batches so small that batch norm has one value a channel;
/// DivergedError naming the first layer whose output is not finite, or a quantizer that has seen nothing above zero;
/// ShapeError, DTypeError; what prepare_weights throws.
Model quantize_after_training(const Model& trained, NormSource norms, const EachBatch& each_batch);

}  // namespace nibble
