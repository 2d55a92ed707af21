#include "apps/model_comparison.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/softmax_cross_entropy.hpp"

namespace nibble::apps {

void Answers::add(const Batch& batch, const Tensor& logits) {
  const int64_t classes = logits.dim(1);
  for (int64_t i = 0; i < batch.size(); ++i) {
    const float* row = logits.row<float>(i);
    const int64_t largest = std::max_element(row, row + classes) - row;
    all_.push_back({.image = batch.indices[static_cast<size_t>(i)],
                    .label = batch.labels[static_cast<size_t>(i)],
                    .taken_for = rank_of(row, classes, largest) < classes ? largest : -1});
  }
}

double ModelComparison::difference() const {
  return 100.0 * static_cast<double>(right_only_here - right_only_there) / static_cast<double>(images);
}

double ModelComparison::standard_error() const {
  if (images < 2) return std::numeric_limits<double>::quiet_NaN();
  const double n = static_cast<double>(images), mean = static_cast<double>(right_only_here - right_only_there) / n;
  const double squares = static_cast<double>(right_only_here + right_only_there);  // of 1, 0 and -1
  return 100.0 * std::sqrt((squares - n * mean * mean) / (n - 1) / n);
}

ModelComparison compare_answers(const Answers& here, const Answers& there) {
  ModelComparison result;
  auto other = there.all().begin();
  for (const Answers::Answer& answer : here.all()) {
    while (other != there.all().end() && other->image < answer.image) ++other;
    if (other == there.all().end()) break;
    if (other->image != answer.image) continue;
    ++result.images;
    result.same += answer.taken_for == other->taken_for;
    result.right_only_here += answer.right() && !other->right();
    result.right_only_there += !answer.right() && other->right();
  }
  return result;
}

}  // namespace nibble::apps
