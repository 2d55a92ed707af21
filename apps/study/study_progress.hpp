// How long a study still takes: by what its points were estimated to take, and by what those that ended took.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble::apps {

/// Moments are seconds since any one origin.
class StudyProgress {
 public:
  /// Seconds that each point will take (0: it is done, or not known), `jobs` at a time in this order.
  StudyProgress(const std::vector<double>& estimates, int64_t jobs);

  void began(size_t point, double moment);
  /// `whole`: it was worked on to its end, so that its time says how fast others will be. What failed does not.
  void ended(size_t point, double moment, bool whole);
  double seconds_left(double moment) const;

 private:
  enum class State { kWaiting, kRunning, kEnded };
  struct Point {
    double estimate = 0, began = 0;
    State state = State::kWaiting;
  };
  std::vector<Point> points_;
  size_t jobs_;
  double expected_ = 0, taken_ = 0;  // of those that ended: the probe does not know what else computes
};

}  // namespace nibble::apps
