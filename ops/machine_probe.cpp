#include "ops/machine_probe.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "ops/kernels/isa/bandwidth.hpp"
#include "ops/kernels/isa/peak.hpp"

namespace nibble {

namespace {

constexpr int kAttempts = 12;
constexpr double kAttemptSeconds = 0.0005;  // well below a time slice, so that some run undisturbed on a busy machine

template <typename Body>
double seconds_of(const Body& body) {
  const auto began = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

constexpr int64_t kFloats = int64_t{1} << 24;  // 64 MiB an array: twice the 32 MiB third-level cache of a Zen 3 die
constexpr int64_t kPart = int64_t{1} << 18;    // 1 MiB a task

}  // namespace

double measure_mac_peak(MacUnit unit) {
  const Isa isa = active_isa();
  const int64_t macs = kernels::peak_macs(isa, unit, 1);
  if (macs == 0) return 0;
  std::vector<double> best(static_cast<size_t>(threads()));
  parallel_for(threads(), [&](int64_t thread) {
    int64_t rounds = 1000;
    const auto seconds = [&] { return seconds_of([&] { kernels::peak_macs(isa, unit, rounds); }); };
    while (seconds() < kAttemptSeconds) rounds *= 2;
    for (int i = 0; i < kAttempts; ++i) {
      double& rate = best[static_cast<size_t>(thread)];
      rate = std::max(rate, static_cast<double>(macs * rounds) / seconds());
    }
  });
  return std::accumulate(best.begin(), best.end(), 0.0);
}

MacPeaks measure_mac_peaks() {
  MacPeaks peaks;
  for (size_t u = 0; u < kMacUnits; ++u) peaks[u] = measure_mac_peak(static_cast<MacUnit>(u));
  return peaks;
}

MacPeaks largest(const MacPeaks& a, const MacPeaks& b) {
  MacPeaks out;
  for (size_t u = 0; u < kMacUnits; ++u) out[u] = std::max(a[u], b[u]);
  return out;
}

MemoryBandwidth measure_memory_bandwidth() {
  // Not tensors: the block cache would keep their memory.
  const auto arrays = std::make_unique_for_overwrite<float[]>(3 * kFloats);
  std::vector<float> sum(kFloats / kPart);
  float *a = arrays.get(), *b = a + kFloats, *c = b + kFloats;
  const auto by_parts = [](const auto& body) { parallel_for(kFloats / kPart, [&](int64_t i) { body(i, i * kPart); }); };
  by_parts([&](int64_t, int64_t at) {  // touched by the threads that will use it
    for (float* array : {a, b, c}) std::fill_n(array + at, kPart, 1.0f);
  });
  const auto best_rate = [&](int64_t bytes_per_float, const auto& body) {
    double best = 0;
    for (int i = 0; i < 3; ++i)
      best = std::max(best, static_cast<double>(bytes_per_float * kFloats) / seconds_of([&] { by_parts(body); }));
    return best;
  };
  MemoryBandwidth found;
  found.read =
      best_rate(4, [&](int64_t i, int64_t at) { sum[static_cast<size_t>(i)] = kernels::read_floats(a + at, kPart); });
  found.read_write = best_rate(8, [&](int64_t, int64_t at) { kernels::halve_floats(a + at, kPart); });
  found.triad = best_rate(12, [&](int64_t, int64_t at) { kernels::stream_triad(c + at, a + at, b + at, 2.0f, kPart); });
  return found;
}

}  // namespace nibble
