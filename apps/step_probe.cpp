#include "apps/step_probe.hpp"

#include <algorithm>
#include <chrono>

#include "apps/console.hpp"
#include "apps/median.hpp"
#include "engine/parallel.hpp"
#include "nn/noise_images.hpp"
#include "nn/trainer.hpp"

namespace nibble::apps {

namespace {

constexpr int64_t kMemory = 20;    // steps: a mean over more would not follow a machine that others use, too
constexpr double kLongEnough = 2;  // seconds of a first step in which page faults no longer count
}  // namespace

PhaseSeconds probe_step(const TrainOptions& options) {
  TrainOptions o = options;
  o.lr = 1e-4;  // noise teaches nothing; the weights must only stay finite
  o.calibrate_at = kNoCalibrationStep;
  const int64_t shards = std::clamp<int64_t>(threads(), 1, std::max<int64_t>(1, o.batch_size / o.shard));
  const int64_t n = shards * o.shard;
  const Tensor x = noise_images(n, o.network.image_size);
  std::vector<int32_t> labels(static_cast<size_t>(n));
  for (size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<int32_t>(static_cast<int64_t>(i) % o.network.classes);
  Trainer trainer(make_model(build_resnet(o.network), {.seed = 0, .zero_last_gamma = true}),
                  o.trainer(kNoCalibrationStep, kNoCalibrationStep));
  const auto seconds_per_image = [&] {
    std::vector<double> times;  // their median: the fastest step promises more than a shared machine holds
    while (times.size() < 3 && (times.empty() || times.back() < kLongEnough)) {
      const auto began = std::chrono::steady_clock::now();
      trainer.step(x, labels);
      times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    return median(times) / static_cast<double>(n);
  };
  PhaseSeconds seconds;
  seconds.before = seconds.after = seconds_per_image();
  if (trainer.model().network.quantizers.empty()) return seconds;
  trainer.calibrate();
  seconds.after = seconds_per_image();
  return seconds;
}

void StepPace::add(int64_t step, double seconds) {
  Mean& mean = quantized(step) ? after_ : before_;
  mean.count = std::min(mean.count + 1, kMemory);
  mean.seconds += (seconds - mean.seconds) / static_cast<double>(mean.count);
}

/// Seconds of a step: measured in its phase, otherwise carried over from the other phase by the probe's ratio.
double StepPace::expected(bool after) const {
  const Mean &mine = after ? after_ : before_, &other = after ? before_ : after_;
  if (mine.count > 0) return mine.seconds;
  const double probed = after ? args_.probe.after : args_.probe.before;
  if (other.count == 0) return probed;
  const double probed_other = after ? args_.probe.before : args_.probe.after;
  return probed > 0 && probed_other > 0 ? other.seconds * probed / probed_other : other.seconds;
}

double StepPace::seconds_left(int64_t done) const {
  const int64_t change =
      args_.quantized_from < 0 ? args_.total_steps : std::clamp<int64_t>(args_.quantized_from, 0, args_.total_steps);
  const int64_t first = std::max<int64_t>(0, change - done);
  const int64_t second = std::max<int64_t>(0, args_.total_steps - std::max(done, change));
  return static_cast<double>(first) * expected(false) + static_cast<double>(second) * expected(true);
}

std::string describe_speed(const PhaseSeconds& image, int64_t batch_size, int64_t first_step,
                           const StepPace::Args& run) {
  StepPace::Args in_steps = run;
  const double images = static_cast<double>(batch_size);
  in_steps.probe = {.before = image.before * images, .after = image.after * images};
  const bool before = run.quantized_from < 0 || first_step < run.quantized_from;
  const bool after = run.quantized_from >= 0 && run.quantized_from < run.total_steps;
  std::string text = "about ";
  if (before) text += rate_text(1 / image.before) + " img/s";
  if (before && after) text += fmt::format(" to step {}, then ", grouped(run.quantized_from));
  if (after) text += rate_text(1 / image.after) + " img/s";
  return text + fmt::format(": {} for {}", duration(StepPace(in_steps).seconds_left(first_step)),
                            counted(run.total_steps - first_step, "step"));
}

}  // namespace nibble::apps
