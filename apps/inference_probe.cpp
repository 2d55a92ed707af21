#include "apps/inference_probe.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/rng.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble::apps {

namespace {

constexpr double kLatencySeconds = 0.5;  // at least, of calls after the first
constexpr size_t kLatencyCalls = 7;      // at least

Tensor noise(int64_t n, int64_t side) {
  const Tensor x(DType::u8, {n, side, side, 3});
  Rng rng(0, rng_purpose::kTest);
  for (int64_t i = 0; i < x.size(); ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>(rng.next_u32() >> 24);
  return x;
}

/// Median milliseconds of a call with `n` images.
double call_ms(Executor& executor, int64_t n, int64_t side) {
  const Tensor images = noise(n, side);
  executor.run(images);  // allocations, page faults
  std::vector<double> times;
  double total = 0;
  while (times.size() < kLatencyCalls || total < kLatencySeconds) {
    const auto began = std::chrono::steady_clock::now();
    executor.run(images);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return 1000 * times[times.size() / 2];
}

}  // namespace

ServedModel untrained_model(const NetworkOptions& options) {
  Model model = make_model(build_resnet(options), {.seed = 0, .zero_last_gamma = false});
  // Any bounds will do for the time; 4 is what an activation of unit variance needs.
  for (Calibration& c : model.calibration) c.bound.assign(c.weight.size(), 4.0f);
  rebuild_quantizers(model);
  return make_served(model);
}

uint64_t served_file_bytes(const ServedModel& model) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / fmt::format("nibble-size-{}.safetensors", ::getpid());
  const uint64_t bytes = save_served(path, model).file_bytes;
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  return bytes;
}

Latency measure_latency(Executor& executor, int64_t side) {
  return {.batch1_ms = call_ms(executor, 1, side),
          .batch32_ms_per_image = call_ms(executor, 32, side) / 32,
          .threads = threads(),
          .cpu = cpu_features().brand,
          .isa = std::string(name_of(active_isa()))};
}

}  // namespace nibble::apps
