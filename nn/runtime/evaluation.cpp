#include "nn/runtime/evaluation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/error.hpp"
#include "engine/math.hpp"
#include "engine/parallel.hpp"
#include "ops/softmax_cross_entropy.hpp"

namespace nibble {

void softmax_row(const float* logits, int64_t classes, float* probabilities) {
  const FloatModeScope mode;
  const float largest = *std::max_element(logits, logits + classes);
  float sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += probabilities[c] = exp_exact(logits[c] - largest);
  for (int64_t c = 0; c < classes; ++c) probabilities[c] /= sum;
}

namespace {

/// Cross entropy of one row; NaN unless all logits are finite.
float row_loss(const float* row, int64_t classes, int64_t label) {
  if (!std::all_of(row, row + classes, [](float x) { return std::isfinite(x); }))
    return std::numeric_limits<float>::quiet_NaN();
  const float largest = *std::max_element(row, row + classes);
  float sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += exp_exact(row[c] - largest);
  return log_exact(sum) + largest - row[label];
}

}  // namespace

void Evaluation::add(const Tensor& logits, std::span<const int32_t> labels) {
  const FloatModeScope mode;
  const int64_t n = logits.dim(0), classes = logits.dim(1);
  if (static_cast<int64_t>(labels.size()) != n)
    throw ShapeError("[evaluation] {} rows of logits but {} labels", n, labels.size());
  hash_.update({logits.raw(), logits.bytes()});
  for (int64_t i = 0; i < n; ++i) {
    const float* row = logits.row<float>(i);
    const int64_t label = labels[static_cast<size_t>(i)];
    if (label < 0 || label >= classes)
      throw DataError(
          "label {} of image {} is outside the model's {} classes; evaluate on the data set it was trained on", label,
          sums_.images + i, classes);
    const int64_t rank = rank_of(row, classes, label);
    sums_.top1 += rank < 1;
    sums_.top5 += rank < 5 && rank < classes;
    sums_.loss += static_cast<double>(row_loss(row, classes, label));
  }
  sums_.images += n;
}

EvaluationResult Evaluation::result() const {
  const FloatModeScope mode;
  EvaluationResult r = sums_;
  if (r.images > 0) r.loss /= static_cast<double>(r.images);
  r.logits_sha256 = hash_.hex();
  return r;
}

}  // namespace nibble
