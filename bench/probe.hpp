// The peaks that benchmarks compare with: measured in the same run, along with each row, the largest of all so far.
#pragma once
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "ops/machine_probe.hpp"

namespace nibble::bench {

inline MacPeaks& peaks() {
  static MacPeaks found = measure_mac_peaks();
  return found;
}

/// Multiply-accumulates per second of all threads; 0: not known at this kernel level.  Cost: about 10 ms.
inline double peak_now(MacUnit unit) {
  double& peak = peaks()[static_cast<size_t>(unit)];
  peak = std::max(peak, measure_mac_peak(unit));
  return peak;
}

/// What every line of the output belongs to; also in the JSON's "context".
inline void describe_machine() {
  benchmark::AddCustomContext("isa", std::string(name_of(active_isa())));
  benchmark::AddCustomContext("threads", std::to_string(threads()));
  constexpr const char* kNames[kMacUnits] = {"peak_gmacs_f32", "peak_gmacs_bf16", "peak_gmacs_int8", "peak_gmacs_int4"};
  for (size_t u = 0; u < kMacUnits; ++u)
    benchmark::AddCustomContext(kNames[u], fmt::format("{:.1f}", peaks()[u] * 1e-9));
  const MemoryBandwidth memory = measure_memory_bandwidth();
  benchmark::AddCustomContext("memory_gb_read", fmt::format("{:.1f}", memory.read * 1e-9));
  benchmark::AddCustomContext("memory_gb_read_write", fmt::format("{:.1f}", memory.read_write * 1e-9));
  benchmark::AddCustomContext("memory_gb_triad", fmt::format("{:.1f}", memory.triad * 1e-9));
}

/// The whole program except for the registering of its rows, each of which runs for a tenth of a second unless the
/// command line says otherwise.
inline int run_benchmarks(int argc, char** argv) {
  set_float_mode();
  char min_time[] = "--benchmark_min_time=0.1";
  std::vector<char*> arguments(argv, argv + argc);
  arguments.insert(arguments.begin() + 1, min_time);  // in front: what the user says wins
  int count = argc + 1;
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  describe_machine();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace nibble::bench
