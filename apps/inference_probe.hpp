// How fast and how large a served model is on this machine, trained or not.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/runtime/executor.hpp"
#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// A model with fresh weights and made-up bounds: with the time and size of a trained one, and of no other use.
/// Throws as build_resnet; ModelError for fake mode, whose arithmetic is not served.
ServedModel untrained_model(const NetworkOptions& options);

/// Times of calls with one and with 32 images of noise, `side` pixels per side, collected over any number of visits.
class LatencyProbe {
 public:
  LatencyProbe(Executor& executor, int64_t side);
  /// Times calls with either number of images for `seconds` and `calls` calls, at least, after one call that does not
  /// count: it allocates, or finds its weights in memory.
  void visit(double seconds, size_t calls);
  /// One visit for an estimate: where one image takes long, 32 times its time stands for 32 images (on the scalar level
  /// they take most of a minute).
  void visit_briefly();
  /// The medians over all visits.
  Latency result() const;

 private:
  Executor* executor_;
  Tensor one_, batch_;
  std::vector<double> one_seconds_, batch_seconds_;
};

/// One visit of half a second and seven calls.
Latency measure_latency(Executor& executor, int64_t side);
/// What that takes, about, for a model that needs `image` seconds for each image of a batch.
double seconds_to_measure_latency(double image);

}  // namespace nibble::apps
