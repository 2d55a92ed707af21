#include "ops/machine_probe.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "ops/kernels/isa/bandwidth.hpp"
#include "ops/kernels/isa/peak.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {

namespace {

constexpr int kAttempts = 12;
constexpr double kAttemptSeconds = 0.0005;  // well below a time slice, so that some run undisturbed on a busy machine

constexpr std::chrono::milliseconds kWaiting{5};  // a thread of the pool wakes within 0.1 ms

template <typename Body>
double seconds_of(const Body& body) {
  const auto began = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

constexpr int64_t kPart = int64_t{1} << 18;  // floats: 1 MiB a task

}  // namespace

double measure_mac_peak(MacUnit unit) {
  kernels::active();  // probes the levels, which may change the one in use
  const Isa isa = active_isa();
  const int64_t macs = kernels::peak_macs(isa, unit, 1);
  if (macs == 0) return 0;
  std::mutex mutex;
  std::map<std::thread::id, double> best;
  std::atomic<int> there{0};
  parallel_for(threads(), [&](int64_t) {
    // One body per thread, all at once. A thread that comes too late is not waited for; where another has taken its
    // body as well, that one's rate counts once.
    ++there;
    const auto began = std::chrono::steady_clock::now();
    while (there < threads() && std::chrono::steady_clock::now() - began < kWaiting) std::this_thread::yield();
    int64_t rounds = 1000;
    const auto seconds = [&] { return seconds_of([&] { kernels::peak_macs(isa, unit, rounds); }); };
    while (seconds() < kAttemptSeconds) rounds *= 2;
    double rate = 0;
    for (int i = 0; i < kAttempts; ++i) rate = std::max(rate, static_cast<double>(macs * rounds) / seconds());
    const std::lock_guard lock(mutex);
    double& mine = best[std::this_thread::get_id()];
    mine = std::max(mine, rate);
  });
  return std::accumulate(best.begin(), best.end(), 0.0, [](double sum, const auto& one) { return sum + one.second; });
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

int64_t bytes_beyond_caches() {
  const auto cache = static_cast<int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE));
  return std::clamp<int64_t>(2 * cache, int64_t{64} << 20, int64_t{256} << 20) / (int64_t{1} << 20) *
         (int64_t{1} << 20);
}

MemoryBandwidth measure_memory_bandwidth() {
  // Not tensors: the block cache would keep their memory.
  const int64_t floats = bytes_beyond_caches() / int64_t{sizeof(float)};
  const auto arrays = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(3 * floats));
  std::vector<float> sum(static_cast<size_t>(floats / kPart));
  float *a = arrays.get(), *b = a + floats, *c = b + floats;
  const auto by_parts = [&](const auto& body) { parallel_for(floats / kPart, [&](int64_t i) { body(i, i * kPart); }); };
  by_parts([&](int64_t, int64_t at) {  // touched by the threads that will use it
    for (float* array : {a, b, c}) std::fill_n(array + at, kPart, 1.0f);
  });
  const auto best_rate = [&](int64_t bytes_per_float, const auto& body) {
    double best = 0;
    for (int i = 0; i < 3; ++i)
      best = std::max(best, static_cast<double>(bytes_per_float * floats) / seconds_of([&] { by_parts(body); }));
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
