// A model run over a whole data set: accuracy, loss and hash, and which images took no part in it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "apps/bad_images.hpp"
#include "apps/model_input.hpp"
#include "data/batch.hpp"
#include "data/dataset.hpp"
#include "nn/runtime/evaluation.hpp"

namespace nibble::apps {

struct EvaluationOptions {
  int64_t batch_size = 32;
  int64_t limit = 0;  // only the first N images (0: all)
  int64_t loader_threads = 1;
  bool strict_data = false;  // a bad image is an error
  bool (*stop)() = nullptr;  // asked after each batch: true ends the evaluation early
  /// Sees each batch with its logits [n, classes], in order.
  std::function<void(const Batch&, const Tensor&)> on_batch = {};
  BadImageNames* bad_images = nullptr;  // what was named before is not named again; nullptr: nothing was
};
struct EvaluationReport {
  EvaluationResult result;
  std::vector<ClassResult> by_class = {};  // of every class of the model, in their order
  std::string outcomes = {};               // ImageOutcomes::right, of all images of the data set
  int64_t skipped = 0, damaged = 0;        // left out; used although damaged
  double seconds = 0;
  bool stopped = false;  // by options.stop: the result is that of the images so far
};
/// Images centre-cropped by `transform`, in the data set's order. Names bad images on stderr.
/// Errors: DataError when no image can be read or, with strict_data, at the first bad one; DiskError.
EvaluationReport evaluate_dataset(const RunModel& run, const DatasetPtr& dataset, const EvalTransform& transform,
                                  const EvaluationOptions& options);

}  // namespace nibble::apps
