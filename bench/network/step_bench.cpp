// Whole training steps (after calibration) and inference calls of ResNet-50 width 1: train/w4a4-fl8/64px/batch32,
// infer/w8a8/224px/batch1, ... `nibble bench` measures the same with any options.
#include <benchmark/benchmark.h>

#include <memory>

#include "bench/probe.hpp"
#include "nn/noise_images.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/train_options.hpp"

namespace nibble::bench {
namespace {

struct Case {
  std::string precision;
  int64_t size = 224, batch = 1;

  std::string name(const std::string& what) const {
    return fmt::format("{}/{}/{}px/batch{}", what, precision, size, batch);
  }
  Network network() const {
    NetworkOptions options;
    options.precision = precision;
    options.image_size = size;
    return build_resnet(options);
  }
  Tensor images() const { return noise_images(batch, size); }
};

/// Any bounds will do for the time; 4 is what an activation of unit variance needs.
Model calibrated_model(const Network& network) {
  Model model = make_model(network, {.seed = 0, .zero_last_gamma = false});
  for (Calibration& c : model.calibration) c.bound.assign(c.weight.size(), 4.0f);
  rebuild_quantizers(model);
  return model;
}

/// img/s, and GMAC/s and the share of the peaks of all products, weighted by where they run.
template <typename Run>
void measure(benchmark::State& state, const Case& c, const Run& run) {
  run();  // allocations, page faults
  start_profiler();
  run();
  stop_profiler();
  double macs = 0, ideal = 0;
  for (const ZoneTotal& zone : zone_table())
    for (size_t u = 0; u < kMacUnits; ++u) {
      if (zone.macs[u] == 0) continue;
      macs += static_cast<double>(zone.macs[u]);
      ideal += static_cast<double>(zone.macs[u]) / peak_now(static_cast<MacUnit>(u));
    }
  for (auto _ : state) run();
  constexpr auto kRate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["img/s"] = benchmark::Counter(static_cast<double>(c.batch), kRate);
  state.counters["GMAC/s"] = benchmark::Counter(macs * 1e-9, kRate);
  if (active_isa() != Isa::scalar) state.counters["of_peak"] = benchmark::Counter(ideal, kRate);
}

void train(benchmark::State& state, const Case& c) {
  TrainOptions options;
  options.network = c.network().options;
  options.batch_size = c.batch;
  options.shard = c.batch / 2;
  options.lr = 1e-4;  // the labels teach nothing
  options.calibrate_at = 1e6;
  Trainer trainer(calibrated_model(c.network()), options.trainer(1 << 20, 1 << 20));
  const Tensor x = c.images();
  const std::vector<int32_t> labels(static_cast<size_t>(c.batch));
  measure(state, c, [&] { trainer.step(x, labels); });
}

void infer(benchmark::State& state, const Case& c) {
  Executor executor(make_served(calibrated_model(c.network())));
  const Tensor x = c.images();
  measure(state, c, [&] { executor.run(x); });
}

void add(const Case& c, const std::string& what, void (*body)(benchmark::State&, const Case&)) {
  benchmark::RegisterBenchmark(c.name(what).c_str(), [c, body](benchmark::State& state) { body(state, c); })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  using nibble::bench::add;
  // Two shards per step, one per core. At 224 px the batches that nibble is judged by, except on the scalar level,
  // where a step of 64 images takes more than a minute.
  const bool scalar = nibble::active_isa() == nibble::Isa::scalar;
  const int64_t step = scalar ? 4 : 64, call = scalar ? 4 : 32;
  for (const char* precision : {"bf16", "w8a8", "w4a4-fl8"}) add({precision, 64, 32}, "train", nibble::bench::train);
  for (const char* precision : {"bf16", "w8a8", "w4a4-fl8"}) add({precision, 224, step}, "train", nibble::bench::train);
  for (const char* precision : {"bf16", "w8a8", "w4a4-fl8"})
    for (const int64_t batch : {int64_t{1}, call}) add({precision, 224, batch}, "infer", nibble::bench::infer);
  return nibble::bench::run_benchmarks(argc, argv);
}
