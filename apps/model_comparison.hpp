// Two models on the same images: how often they agree, and how sure their difference in accuracy is.
#pragma once
#include <cstdint>
#include <vector>

#include "data/batch.hpp"
#include "engine/tensor.hpp"

namespace nibble::apps {

/// What a model takes each image of an evaluation for.
class Answers {
 public:
  /// logits f32 [n, classes] of the batch.
  void add(const Batch& batch, const Tensor& logits);

  struct Answer {
    int64_t image = 0;                 // its index in the data set
    int64_t label = 0, taken_for = 0;  // taken_for -1: the logits hold a NaN
    bool right() const { return taken_for == label; }
  };
  /// In the order of the data set.
  const std::vector<Answer>& all() const { return all_; }

 private:
  std::vector<Answer> all_;
};

struct ModelComparison {
  int64_t images = 0;  // of both
  int64_t same = 0;    // taken for the same class by both
  int64_t right_only_here = 0, right_only_there = 0;

  /// Top-1 here less top-1 there, in points.
  double difference() const;
  /// Of the difference, over the images, which both saw: the standard deviation of an image's (right here - right
  /// there) by the root of the number of images; NaN below two images.
  double standard_error() const;
};

/// Of the images that both have.
ModelComparison compare_answers(const Answers& here, const Answers& there);

}  // namespace nibble::apps
