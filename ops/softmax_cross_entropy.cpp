#include "ops/softmax_cross_entropy.hpp"

#include <cmath>
#include <limits>

#include "engine/math.hpp"
#include "ops/float_op.hpp"

namespace nibble {

namespace {

void check(const Tensor& logits, const Labels& labels, float smoothing) {
  require_f32("softmax_cross_entropy", "logits", logits, 2);
  const int64_t n = logits.dim(0), classes = logits.dim(1);
  if (n == 0 || classes == 0)
    throw ShapeError("[softmax_cross_entropy] logits are {}, and the mean of nothing is not a loss; pass a batch",
                     logits.shape().str());
  if (labels.size() != n)
    throw ShapeError("[softmax_cross_entropy] {} labels came with {} rows of logits; pass one label per row",
                     labels.size(), n);
  if (!(smoothing >= 0.0f && smoothing < 1.0f))
    throw UsageError("[softmax_cross_entropy] label smoothing is {}, but it must be at least 0 and below 1; change it",
                     smoothing);
  for (int64_t i = 0; i < n; ++i)
    if (labels[i] < 0 || labels[i] >= classes)
      throw DataError(
          "[softmax_cross_entropy] label {} of row {} is not one of the {} classes of the logits; "
          "build the model with the data set's number of classes",
          labels[i], i, classes);
}

}  // namespace

double cross_entropy_row(const float* logits, int64_t classes, int64_t label, float smoothing, float* probabilities) {
  float* const p = probabilities;
  float largest = logits[0];
  for (int64_t j = 1; j < classes; ++j) largest = logits[j] > largest ? logits[j] : largest;
  double sum = 0, sum_z = 0;
  for (int64_t j = 0; j < classes; ++j) {
    p[j] = exp_exact(logits[j] - largest);
    sum += static_cast<double>(p[j]);
    sum_z += static_cast<double>(logits[j]) - static_cast<double>(largest);  // in float it might overflow
  }
  // log_exact wants a normal number; the sum of a healthy row lies in [1, classes].
  if (!std::isfinite(sum_z) || !std::isfinite(sum)) {
    std::fill_n(p, classes, std::numeric_limits<float>::quiet_NaN());
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double log_sum = static_cast<double>(log_exact(static_cast<float>(sum)));
  for (int64_t j = 0; j < classes; ++j) p[j] = static_cast<float>(static_cast<double>(p[j]) / sum);
  const double own = log_sum - (static_cast<double>(logits[label]) - static_cast<double>(largest));
  const double all = log_sum - sum_z / static_cast<double>(classes);  // mean over j of -log p_j
  const double share = static_cast<double>(smoothing);
  return (1.0 - share) * own + share * all;
}

void softmax_row(const float* logits, int64_t classes, float* probabilities) {
  const FloatModeScope mode;
  cross_entropy_row(logits, classes, 0, 0.0f, probabilities);
}

std::vector<int64_t> Labels::copy() const {
  std::vector<int64_t> all;
  for (int64_t i = 0; i < size(); ++i) all.push_back((*this)[i]);
  return all;
}

int64_t rank_of(const float* logits, int64_t classes, int64_t label) {
  int64_t before = 0;
  for (int64_t j = 0; j < classes; ++j) {
    if (logits[j] != logits[j]) return classes;
    before += logits[j] > logits[label] || (logits[j] == logits[label] && j < label);
  }
  return before;
}

SoftmaxCrossEntropy softmax_cross_entropy_forward(const Tensor& logits, const Labels& labels,
                                                  const SoftmaxCrossEntropyArgs& args) {
  check(logits, labels, args.label_smoothing);
  const FloatModeScope mode;
  const int64_t n = logits.dim(0), classes = logits.dim(1);
  SoftmaxCrossEntropy out{Tensor(DType::f32, {1}), Tensor(DType::f32, logits.shape()), {}};
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float* x = logits.row<float>(i);
    total += cross_entropy_row(x, classes, labels[i], args.label_smoothing, out.probabilities.row<float>(i));
    const int64_t rank = rank_of(x, classes, labels[i]);
    out.counts.top1 += rank < 1 && rank < classes;
    out.counts.top5 += rank < 5 && rank < classes;
  }
  *out.loss.data<float>() = static_cast<float>(total / static_cast<double>(n));
  return out;
}

Tensor softmax_cross_entropy_backward_logits(const Tensor& d_loss, const Tensor& probabilities, const Labels& labels,
                                             const SoftmaxCrossEntropyArgs& args) {
  require_f32("softmax_cross_entropy", "d_loss", d_loss, {1}, "the loss's dimensions");
  check(probabilities, labels, args.label_smoothing);
  const FloatModeScope mode;
  const int64_t n = probabilities.dim(0), classes = probabilities.dim(1);
  const float scale = *d_loss.data<float>() / static_cast<float>(n);
  const float spread = args.label_smoothing / static_cast<float>(classes), own = 1.0f - args.label_smoothing + spread;
  Tensor d_logits(DType::f32, probabilities.shape());
  for (int64_t i = 0; i < n; ++i) {
    const float* p = probabilities.row<float>(i);
    float* to = d_logits.row<float>(i);
    for (int64_t j = 0; j < classes; ++j) to[j] = (p[j] - (j == labels[i] ? own : spread)) * scale;
  }
  return d_logits;
}

TapedLoss softmax_cross_entropy(Tape* tape, const Variable& logits, const Labels& labels,
                                const SoftmaxCrossEntropyArgs& args) {
  const SoftmaxCrossEntropy out = softmax_cross_entropy_forward(logits.value(), labels, args);
  const Variable loss = taped(
      tape, out.loss,
      [logits, kept = labels.copy(), p = out.probabilities, args](const Tensor& d_loss) {
        logits.accumulate(softmax_cross_entropy_backward_logits(d_loss, p, std::span<const int64_t>(kept), args));
      },
      logits);
  return {loss, out.counts};
}

}  // namespace nibble
