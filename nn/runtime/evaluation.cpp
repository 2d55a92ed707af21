#include "nn/runtime/evaluation.hpp"

#include <algorithm>

#include "engine/error.hpp"
#include "engine/math.hpp"

namespace nibble {

void softmax_row(const float* logits, int64_t classes, float* probabilities) {
  const float largest = *std::max_element(logits, logits + classes);
  float sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += probabilities[c] = exp_exact(logits[c] - largest);
  for (int64_t c = 0; c < classes; ++c) probabilities[c] /= sum;
}

void Evaluation::add(const Tensor& logits, std::span<const int32_t> labels) {
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
    // Ties go to the lower index, as a stable sort would rank them.
    int64_t better = 0;
    for (int64_t c = 0; c < classes; ++c) better += row[c] > row[label] || (row[c] == row[label] && c < label);
    sums_.top1 += better < 1;
    sums_.top5 += better < 5;
    const float largest = *std::max_element(row, row + classes);
    float sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += exp_exact(row[c] - largest);
    sums_.loss += static_cast<double>(log_exact(sum) + largest - row[label]);
  }
  sums_.images += n;
}

EvaluationResult Evaluation::result() const {
  EvaluationResult r = sums_;
  if (r.images > 0) r.loss /= static_cast<double>(r.images);
  r.logits_sha256 = hash_.hex();
  return r;
}

}  // namespace nibble
