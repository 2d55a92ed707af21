// What a training run is going to do, before its first step: in numbers, as text, and where it looks like a mistake.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "apps/training/run_data.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

/// A run in numbers: what follows from its options and its images.
struct RunPlan {
  int64_t train_images = 0, validation_images = 0, classes = 0;
  int64_t parameters = 0, macs = 0;  // macs: of one image, forward
  int64_t steps = 0, steps_per_epoch = 0;
  int64_t quantized_from = -1;  // first step with quantized activations; -1: never

  /// Whether the activations of the model after so many steps are not quantized yet, and will be.
  bool before_calibration(int64_t steps_done) const { return steps_done < quantized_from && quantized_from <= steps; }
};

/// `options.network.classes` is that of the data. UsageError for a network that cannot be built.
RunPlan plan_run(const TrainOptions& options, const RunData& data);

/// The plan for people: program and machine, data, model, layers with a precision of their own (if any), steps; one
/// line each, the last without its newline.
std::string plan_text(const RunPlan& plan, const TrainOptions& options, const RunData& data);

/// A sentence about each option that is allowed and does not fit the length of the run.
std::vector<std::string> doubts_about(const RunPlan& plan, const TrainOptions& options, bool resumed);

}  // namespace nibble::apps
