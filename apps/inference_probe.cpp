#include "apps/inference_probe.hpp"

#include <algorithm>
#include <chrono>
#include <vector>

#include "apps/median.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "nn/noise_images.hpp"

namespace nibble::apps {

namespace {

constexpr int64_t kBatch = 32;
constexpr double kVisitSeconds = 0.5;
constexpr size_t kVisitCalls = 7;

void time_calls(Executor& executor, const Tensor& images, double seconds, size_t calls, std::vector<double>& times) {
  executor.run(images);
  double total = 0;
  for (size_t i = 0; i < calls || total < seconds; ++i) {
    const auto began = std::chrono::steady_clock::now();
    executor.run(images);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    total += times.back();
  }
}

}  // namespace

ServedModel untrained_model(const NetworkOptions& options) {
  Model model = make_model(build_resnet(options), {.seed = 0, .zero_last_gamma = false});
  // Any bounds will do for the time; 4 is what an activation of unit variance needs.
  for (Calibration& c : model.calibration) c.bound.assign(c.weight.size(), 4.0f);
  rebuild_quantizers(model);
  return make_served(model);
}

LatencyProbe::LatencyProbe(Executor& executor, int64_t side)
    : executor_(&executor), one_(noise_images(1, side)), batch_(noise_images(kBatch, side)) {}

void LatencyProbe::visit(double seconds, size_t calls) {
  time_calls(*executor_, one_, seconds, calls, one_seconds_);
  time_calls(*executor_, batch_, seconds, calls, batch_seconds_);
}

void LatencyProbe::visit_briefly() {
  constexpr double kSeconds = 0.2, kLong = 0.1;
  time_calls(*executor_, one_, kSeconds, 1, one_seconds_);
  if (one_seconds_.back() < kLong)
    time_calls(*executor_, batch_, kSeconds, 1, batch_seconds_);
  else
    batch_seconds_.push_back(kBatch * one_seconds_.back());
}

Latency LatencyProbe::result() const {
  return {.batch1_ms = 1000 * median(one_seconds_),
          .batch32_ms_per_image = 1000 * median(batch_seconds_) / kBatch,
          .threads = threads(),
          .cpu = cpu_features().brand,
          .isa = std::string(name_of(active_isa())),
          .sitting = ""};
}

Latency measure_latency(Executor& executor, int64_t side) {
  LatencyProbe probe(executor, side);
  probe.visit(kVisitSeconds, kVisitCalls);
  return probe.result();
}

double seconds_to_measure_latency(double image) {
  const auto visit = [](double call) { return call + std::max(kVisitSeconds, kVisitCalls * call); };
  return visit(image) + visit(kBatch * image);
}

}  // namespace nibble::apps
