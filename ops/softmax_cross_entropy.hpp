// Softmax cross entropy with label smoothing, mean over the batch, and the top-1 and top-5 counts.
#pragma once
#include <span>
#include <vector>

#include "engine/tape.hpp"

namespace nibble {

struct SoftmaxCrossEntropyArgs {
  /// Share s in [0, 1) of the target that is spread evenly over all classes: target = (1 - s) * onehot + s / classes.
  float label_smoothing = 0.0f;
};

/// How many labels are the class with the largest logit, and among the five largest. Among equal logits the lower class
/// ranks first; a row with a NaN counts in neither.
struct TopCounts {
  int64_t top1 = 0, top5 = 0;
};

/// Class indices of a batch: a view of 32-bit or 64-bit integers.
class Labels {
 public:
  Labels(std::span<const int32_t> labels) : narrow_(labels) {}  // NOLINT: converting on purpose
  Labels(std::span<const int64_t> labels) : wide_(labels) {}    // NOLINT: converting on purpose
  int64_t size() const { return static_cast<int64_t>(narrow_.size() + wide_.size()); }
  int64_t operator[](int64_t i) const {
    return wide_.empty() ? narrow_[static_cast<size_t>(i)] : wide_[static_cast<size_t>(i)];
  }
  std::vector<int64_t> copy() const;

 private:
  std::span<const int32_t> narrow_;
  std::span<const int64_t> wide_;
};

struct SoftmaxCrossEntropy {
  Tensor loss;           // f32 [1]
  Tensor probabilities;  // f32 [n, classes], saved for backward
  TopCounts counts;
};

/// Classes that rank before the label in a row of logits: larger ones, and among equal ones the lower; `classes` if the
/// row holds a NaN.
int64_t rank_of(const float* logits, int64_t classes, int64_t label);

/// -sum_j target_j * log p_j of one row, and its softmax p; NaN, all of it, unless every logit is finite.
/// Per row: z = x - max x; S = sum of exp(z_j) in order of j, in double; log p_j = z_j - log S; the smoothed sum runs
/// in double, in order. `label` in [0, classes), `probabilities` [classes]. Run it inside a FloatModeScope.
double cross_entropy_row(const float* logits, int64_t classes, int64_t label, float smoothing, float* probabilities);

/// Only the softmax of one row, whatever the thread's float mode.
void softmax_row(const float* logits, int64_t classes, float* probabilities);

/// loss = mean over rows i of -sum_j target[i, j] * log p[i, j], p = softmax of the row.
/// Rows by cross_entropy_row, their mean in double, in order. A NaN or infinity in a row makes the loss NaN; the caller
/// names the layer.
/// Shapes: logits [n, classes], n labels in [0, classes).  Types: f32, dense.
/// Exact?: own exp and log, one order: the same bits on every kernel level.  Threads: none (a batch of logits is
/// small). Errors: ShapeError if n is 0 or the labels are not n, DataError for a label out of range, UsageError for a
/// smoothing out of range, DTypeError if the logits are not f32.  Cost: n classes exponentials.
SoftmaxCrossEntropy softmax_cross_entropy_forward(const Tensor& logits, const Labels& labels,
                                                  const SoftmaxCrossEntropyArgs& args);

/// d_logits = d_loss * (p - target) / n.
/// Shapes: d_loss [1], probabilities and d_logits [n, classes].
Tensor softmax_cross_entropy_backward_logits(const Tensor& d_loss, const Tensor& probabilities, const Labels& labels,
                                             const SoftmaxCrossEntropyArgs& args);

struct TapedLoss {
  Variable loss;  // f32 [1]
  TopCounts counts;
};

/// Saves: probabilities and labels.  Gradients: logits.
TapedLoss softmax_cross_entropy(Tape* tape, const Variable& logits, const Labels& labels,
                                const SoftmaxCrossEntropyArgs& args);

}  // namespace nibble
