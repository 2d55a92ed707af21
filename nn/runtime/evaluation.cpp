#include "nn/runtime/evaluation.hpp"

#include <algorithm>
#include <vector>

#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "ops/softmax_cross_entropy.hpp"

namespace nibble {

void Evaluation::add(const Tensor& logits, std::span<const int32_t> labels) {
  const FloatModeScope mode;
  const int64_t n = logits.dim(0), classes = logits.dim(1);
  if (static_cast<int64_t>(labels.size()) != n)
    throw ShapeError("[evaluation] {} rows of logits but {} labels", n, labels.size());
  hash_.update({logits.raw(), logits.bytes()});
  std::vector<float> probabilities(static_cast<size_t>(classes));
  classes_.resize(std::max(classes_.size(), static_cast<size_t>(classes)));
  for (int64_t i = 0; i < n; ++i) {
    const float* row = logits.row<float>(i);
    const int64_t label = labels[static_cast<size_t>(i)];
    if (label < 0 || label >= classes)
      throw DataError(
          "label {} of image {} is outside the model's {} classes; evaluate on the data set it was trained on", label,
          sums_.images + i, classes);
    const int64_t rank = rank_of(row, classes, label);
    sums_.top1 += rank < 1;
    right_.push_back(rank < 1);
    sums_.top5 += rank < 5 && rank < classes;
    sums_.loss += cross_entropy_row(row, classes, label, 0.0f, probabilities.data());
    Class& of_label = classes_[static_cast<size_t>(label)];
    ++of_label.images;
    of_label.top1 += rank < 1;
    if (rank >= 1 && rank < classes) ++of_label.taken_for[std::max_element(row, row + classes) - row];
  }
  sums_.images += n;
}

std::vector<ClassResult> Evaluation::by_class() const {
  std::vector<ClassResult> all;
  for (const Class& c : classes_) {
    ClassResult r{.images = c.images, .top1 = c.top1};
    for (const auto& [other, times] : c.taken_for)
      if (times > r.times) {
        r.taken_for = other;
        r.times = times;
      }
    all.push_back(r);
  }
  return all;
}

EvaluationResult Evaluation::result() const {
  const FloatModeScope mode;
  EvaluationResult r = sums_;
  if (r.images > 0) r.loss /= static_cast<double>(r.images);
  r.logits_sha256 = hash_.hex();
  return r;
}

}  // namespace nibble
