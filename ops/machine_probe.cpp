#include "ops/machine_probe.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "ops/kernels/isa/bandwidth.hpp"
#include "ops/kernels/isa/peak.hpp"

namespace nibble {

namespace {

constexpr int kAttempts = 8;
constexpr double kAttemptSeconds = 0.002;  // longer than waking a thread, shorter than a time slice

template <typename Body>
double seconds_of(const Body& body) {
  const auto began = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

double measure_mac_peak(MacUnit unit) {
  const Isa isa = active_isa();
  if (kernels::peak_macs(isa, unit, 1) == 0) return 0;
  int64_t rounds = 1000;
  const auto run_all = [&] { parallel_for(threads(), [&](int64_t) { kernels::peak_macs(isa, unit, rounds); }); };
  while (seconds_of(run_all) < kAttemptSeconds) rounds *= 2;
  double best = 0;
  for (int i = 0; i < kAttempts; ++i) {
    const double seconds = seconds_of(run_all);
    best = std::max(best, static_cast<double>(kernels::peak_macs(isa, unit, 1) * rounds * threads()) / seconds);
  }
  return best;
}

constexpr int64_t kFloats = int64_t{1} << 24;  // 64 MiB an array: twice the 32 MiB third-level cache of a Zen 3 die
constexpr int64_t kPart = int64_t{1} << 18;    // 1 MiB a task

}  // namespace

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
