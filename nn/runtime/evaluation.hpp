// Evaluation: accuracy, loss and the hash of the logits over a stream of batches.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.hpp"
#include "nn/sha256.hpp"

namespace nibble {

struct EvaluationResult {
  int64_t images = 0, top1 = 0, top5 = 0;
  double loss = 0;            // mean cross entropy without label smoothing
  std::string logits_sha256;  // over fp32 little-endian logits in the order given

  double top1_percent() const {
    return images > 0 ? 100.0 * static_cast<double>(top1) / static_cast<double>(images) : 0;
  }
  double top5_percent() const {
    return images > 0 ? 100.0 * static_cast<double>(top5) / static_cast<double>(images) : 0;
  }
};

/// The images of one class.
struct ClassResult {
  int64_t images = 0, top1 = 0;
  int64_t taken_for = -1;  // the class they were most often taken for instead, the lowest among equals; -1: none was
  int64_t times = 0;       // how often

  double top1_percent() const {
    return images > 0 ? 100.0 * static_cast<double>(top1) / static_cast<double>(images) : 0;
  }
};

/// Feed batches in order; the result does not depend on how the images were cut into batches.
class Evaluation {
 public:
  /// logits f32 [n, classes], labels [n] in [0, classes). ShapeError for another number of labels, DataError for a
  /// label out of range.
  void add(const Tensor& logits, std::span<const int32_t> labels);
  EvaluationResult result() const;
  /// For every class of the logits so far, in their order. An image whose logits hold a NaN is taken for no class.
  std::vector<ClassResult> by_class() const;
  /// Of each image, in the order given: whether it counts in top1.
  const std::vector<bool>& right() const { return right_; }

 private:
  struct Class {
    int64_t images = 0, top1 = 0;
    std::map<int64_t, int64_t> taken_for;  // other classes: how often
  };

  Sha256 hash_;
  EvaluationResult sums_;
  std::vector<Class> classes_;
  std::vector<bool> right_;
};

}  // namespace nibble
