// How fast a training run will be: a short probe of real steps before it, and the time left while it runs.
#pragma once
#include <cstdint>
#include <string>

#include "nn/train_options.hpp"

namespace nibble::apps {

/// The step of calibration of a trainer that calibrates by itself, between phases, or not at all.
inline constexpr int64_t kNoCalibrationStep = 1 << 30;

/// Seconds of something in both phases of training: before calibration (bf16 activations) and after it (codes).
struct PhaseSeconds {
  double before = 0, after = 0;  // 0: not known; equal for a network that is never quantized
};

/// Seconds per image of a training step, measured now with real steps on noise: at most one shard per thread, so that
/// it takes the time of a few steps. No decoding, no evaluation.
/// Needs    o.network.classes > 1, o.shard and o.batch_size valid.
/// Cost     three steps per phase; one where that alone takes two seconds (page faults then no longer count).
PhaseSeconds probe_step(const TrainOptions& o);

/// Estimates the time left of a run whose speed changes at calibration: the steps measured so far in each phase, and
/// for a phase that has not begun, the probe's ratio between the phases times what is measured now.
class StepPace {
 public:
  struct Args {
    int64_t total_steps = 0;
    int64_t quantized_from = -1;  // first step of the second phase; -1: never
    PhaseSeconds probe;           // only its ratio counts once a step has been measured
  };
  explicit StepPace(const Args& args) : args_(args) {}

  /// Step number `step` (from 0) took this long, waiting for its images included.
  void add(int64_t step, double seconds);
  /// Seconds for the steps [done, total_steps); 0 when nothing is known.
  double seconds_left(int64_t done) const;

 private:
  struct Mean {
    double seconds = 0;
    int64_t count = 0;
  };
  bool quantized(int64_t step) const { return args_.quantized_from >= 0 && step >= args_.quantized_from; }
  double expected(bool after) const;

  Args args_;
  Mean before_, after_;
};

/// "about 57 img/s to step 100, then 80 img/s: 12 min for 900 steps": seconds are those of one image.
std::string describe_speed(const PhaseSeconds& image, int64_t batch_size, int64_t first_step,
                           const StepPace::Args& run);

}  // namespace nibble::apps
