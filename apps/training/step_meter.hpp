// How training goes between two lines of the log: sums over steps, their line in metrics.jsonl and the progress line.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "apps/step_probe.hpp"
#include "nn/metrics_log.hpp"
#include "nn/trainer.hpp"

namespace nibble::apps {

/// Sums over the steps since the last line of the log, and over all of this process. Its time is that of the steps and
/// of waiting for their images: what else takes time is left out by exclude(), or lies between take() and go_on().
/// `done` below is the steps done of the whole run, `waited` the seconds its loader has been waited for in all.
class StepMeter {
 public:
  using Clock = std::chrono::steady_clock;

  /// `now` is for tests.
  StepMeter(int64_t total_steps, int64_t steps_per_epoch, std::function<Clock::time_point()> now = Clock::now)
      : total_(total_steps), steps_per_epoch_(steps_per_epoch), now_(std::move(now)) {}

  void add(const StepResult& step);
  /// The time from `from` to now was not spent on steps.
  void exclude(Clock::time_point from) { since_ += now_() - from; }

  /// Steps since the last line.
  int64_t steps() const { return steps_; }
  /// The line about them: means of loss and accuracy (percent), rate and gradient norm of the last step, images per
  /// second, share of the time spent waiting. The sums start over with go_on().
  MetricsRecord take(int64_t done, double waited);
  void go_on(double waited);

  /// The progress line, when it is due: at the first step, at the last, and some time after the one before (0.2 s on a
  /// terminal, 10 s elsewhere). A step of a large network takes seconds, so it does not wait for a line of the log.
  /// `pace` says the time left.
  std::optional<std::string> progress_line(int64_t done, double waited, const StepPace& pace);

  /// Of all steps; 0 before the first.
  double images_per_second() const;
  /// Mean over the last step's batch; none before the first.
  std::optional<double> last_loss() const;

 private:
  double seconds_since(Clock::time_point begin) const;
  /// Since the last line; never 0.
  double seconds() const;

  int64_t total_, steps_per_epoch_;
  std::function<Clock::time_point()> now_;
  Clock::time_point since_ = now_();
  std::optional<Clock::time_point> shown_;
  double loss_ = 0, waited_before_ = 0, finished_seconds_ = 0;
  int64_t top1_ = 0, images_ = 0, steps_ = 0, all_images_ = 0;
  std::optional<StepResult> last_;
};

}  // namespace nibble::apps
