#include "apps/study/study_progress.hpp"

#include <algorithm>
#include <functional>
#include <queue>

namespace nibble::apps {

namespace {

/// Seconds that count as if points had taken them as estimated: one resumed with hardly a step to go, whose time is
/// nearly all opening and measuring, must not set the pace of the others.
constexpr double kTrusted = 10;

}  // namespace

StudyProgress::StudyProgress(const std::vector<double>& estimates, int64_t jobs)
    : jobs_(static_cast<size_t>(std::max<int64_t>(jobs, 1))) {
  for (const double seconds : estimates) points_.push_back({.estimate = seconds});
}

void StudyProgress::began(size_t point, double moment) {
  if (point >= points_.size()) return;  // a quiet study has no estimates
  points_[point].began = moment;
  points_[point].state = State::kRunning;
}

void StudyProgress::ended(size_t point, double moment, bool whole) {
  if (point >= points_.size()) return;
  Point& p = points_[point];
  if (whole && p.state == State::kRunning && p.estimate > 0) {
    expected_ += p.estimate;
    taken_ += moment - p.began;
  }
  p.state = State::kEnded;
}

double StudyProgress::seconds_left(double moment) const {
  const double pace = (taken_ + kTrusted) / (expected_ + kTrusted);
  // Moments at which those that run will be free; whichever is free first takes the next.
  std::priority_queue<double, std::vector<double>, std::greater<>> free;
  for (const Point& p : points_)
    if (p.state == State::kRunning) free.push(std::max(0.0, pace * p.estimate - (moment - p.began)));
  while (free.size() < jobs_) free.push(0);
  double last = 0;
  for (const Point& p : points_) {
    if (p.state != State::kWaiting) continue;
    const double end = free.top() + pace * p.estimate;
    free.pop();
    free.push(end);
  }
  for (; !free.empty(); free.pop()) last = free.top();
  return last;
}

}  // namespace nibble::apps
