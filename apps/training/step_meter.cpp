#include "apps/training/step_meter.hpp"

#include <algorithm>

#include "apps/console.hpp"

namespace nibble::apps {

namespace {

constexpr double kPlainLineEvery = 10;  // seconds between progress lines when stderr is no terminal
constexpr double kRedrawEvery = 0.2;

}  // namespace

double StepMeter::seconds_since(Clock::time_point begin) const {
  return std::chrono::duration<double>(now_() - begin).count();
}

double StepMeter::seconds() const {
  return std::max(1e-9, seconds_since(since_));
}

void StepMeter::add(const StepResult& step) {
  loss_ += step.loss;
  top1_ += step.top1;
  images_ += step.images;
  all_images_ += step.images;
  ++steps_;
  last_ = step;
}

MetricsRecord StepMeter::take(int64_t done, double waited) {
  const double elapsed = seconds(), rate = static_cast<double>(images_) / elapsed;
  const double wait = (waited - waited_before_) / elapsed;
  const double epoch = static_cast<double>(done) / static_cast<double>(steps_per_epoch_);
  const double loss = loss_ / static_cast<double>(std::max<int64_t>(1, steps_));
  const double top1 = 100.0 * static_cast<double>(top1_) / static_cast<double>(std::max<int64_t>(1, images_));
  const StepResult last = last_.value_or(StepResult{});
  finished_seconds_ += elapsed;
  loss_ = 0;
  top1_ = images_ = steps_ = 0;
  return MetricsRecord()
      .add("step", done)
      .add("epoch", epoch)
      .add("train/loss", loss)
      .add("train/top1", top1)
      .add("lr", last.rate)
      .add("grad_norm", last.gradient_norm)
      .add("images_per_second", rate)
      .add("data_wait", wait);
}

void StepMeter::go_on(double waited) {
  waited_before_ = waited;
  since_ = now_();
}

std::optional<std::string> StepMeter::progress_line(int64_t done, double waited, const StepPace& pace) {
  const double every = interactive() ? kRedrawEvery : kPlainLineEvery;
  if (done != total_ && shown_ && seconds_since(*shown_) < every) return std::nullopt;
  shown_ = now_();
  const double elapsed = seconds();
  const double images = static_cast<double>(images_), rate = images / elapsed;
  const double epoch_steps = static_cast<double>(steps_per_epoch_);
  return fmt::format(
      "epoch {:.2f}/{:.4g}  step {}/{}  loss {:.3f}  top1 {:.1f}  lr {:.4g}  {:.1f} img/s  wait {:.0f} %  {} left",
      static_cast<double>(done) / epoch_steps, static_cast<double>(total_) / epoch_steps, done, total_,
      loss_ / static_cast<double>(steps_), 100.0 * static_cast<double>(top1_) / images, last_ ? last_->rate : 0.0f,
      rate, 100 * (waited - waited_before_) / elapsed, duration(pace.seconds_left(done)));
}

double StepMeter::images_per_second() const {
  return static_cast<double>(all_images_) / std::max(1e-9, finished_seconds_ + (steps_ > 0 ? seconds() : 0));
}

std::optional<double> StepMeter::last_loss() const {
  if (!last_) return std::nullopt;
  return last_->loss;
}

}  // namespace nibble::apps
