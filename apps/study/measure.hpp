// What a study measures of a finished training run: accuracy without augmentation, served bytes, time per image.
#pragma once
#include <string>

#include "apps/study/plan.hpp"
#include "data/dataset.hpp"
#include "nn/runtime/evaluation.hpp"
#include "nn/study/point_result.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

struct MeasureArgs {
  std::string run;  // folder of a finished run
  StudyPoint point;
  TrainOptions options;
  int64_t steps = 0;                  // that the run has done
  EvaluationResult last;              // of the validation images, after the last step
  ImageOutcomes outcomes;             // of the same evaluation
  const PointStart* start = nullptr;  // the weights it started from; null: from nothing
  int64_t eval_steps = 0;             // between evaluations (0: only after the last step): its log must have all
  DatasetPtr train;                   // the images that were trained on
  int64_t train_limit = 0;            // how many of them are evaluated, spread over their order (0: all)
  bool time = true;                   // the served model; else its latency stays 0
};

/// Also writes RUN/served.safetensors, the model as it would be deployed, unless the run's arithmetic is `fake`, which
/// is not served: then bytes and times stay 0.
/// Cost: an evaluation of the training images, and a few seconds of inference.
/// Errors: as load_model, save_served and read_run; ModelError when the log lacks evaluations or the checkpoint of the
/// last step holds a different step; DivergedError when its loss on the training images is not finite; InterruptedError
/// when a signal asked to stop.
PointResult measure_point(const MeasureArgs& args);

}  // namespace nibble::apps
