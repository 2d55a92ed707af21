#include "bench/network/rows.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <exception>
#include <limits>
#include <map>
#include <memory>

#include "bench/probe.hpp"

namespace nibble::bench {

namespace {

using Clock = std::chrono::steady_clock;

/// One measurement of a row; Google Benchmark tries out few iterations first and keeps the run with the most.
struct Timing {
  int64_t iterations = 0;
  double seconds = 0;       // of one iteration
  double busy_seconds = 0;  // processor time of all threads
};
struct Measured {
  std::vector<Timing> timings;
  int64_t macs = 0;
  double ideal_seconds = 0;                                       // at the peak; 0: not known
  double best_seconds = std::numeric_limits<double>::infinity();  // of the fastest iteration of all repetitions

  /// Of repetition `i`, the last ones of equal length.
  const Timing& repetition(size_t i) const {
    int64_t most = 0;
    for (const Timing& t : timings) most = std::max(most, t.iterations);
    std::vector<const Timing*> kept;
    for (const Timing& t : timings)
      if (t.iterations == most) kept.push_back(&t);
    return *kept[std::min(i, kept.size() - 1)];
  }
};

std::map<std::string, Measured>& measured() {
  static std::map<std::string, Measured> all;
  return all;
}

/// Seconds and processor seconds (of all threads) are those of one iteration.
void set_counters(benchmark::State& state, double macs, double ideal_seconds, const Timing& t, double best_seconds) {
  state.counters["GMAC/s"] = macs * 1e-9 / t.seconds;
  if (ideal_seconds <= 0) return;
  state.counters["of_peak"] = ideal_seconds / t.seconds;
  state.counters["best_of_peak"] = ideal_seconds / best_seconds;
  state.counters["busy_of_peak"] = ideal_seconds * threads() / t.busy_seconds;
}

void run_row(benchmark::State& state, const std::string& name, const std::function<Prepared()>& prepare) {
  static std::string last;  // the operands of one row are kept while it is measured
  static Prepared row;
  if (last != name) {
    last.clear();
    row = {};
    try {
      row = prepare();
    } catch (const std::exception& error) {  // a peer that lacks a type on this machine
      state.SkipWithError(error.what());
      return;
    }
    row.run();  // page faults, scratch memory
    last = name;
  }
  const double peak = peak_now(row.unit);
  Measured& m = measured()[name];
  const std::clock_t busy = std::clock();
  double seconds = 0;
  for (auto _ : state) {
    const auto began = Clock::now();
    row.run();
    const double took = std::chrono::duration<double>(Clock::now() - began).count();
    m.best_seconds = std::min(m.best_seconds, took);
    seconds += took;
  }
  const double busy_seconds = static_cast<double>(std::clock() - busy) / CLOCKS_PER_SEC;
  const auto n = static_cast<double>(state.iterations());
  const Timing timing{state.iterations(), seconds / n, std::max(busy_seconds, 1e-9) / n};
  m.macs = row.macs;
  m.ideal_seconds = peak > 0 ? static_cast<double>(row.macs) / peak : 0;
  m.timings.push_back(timing);
  set_counters(state, static_cast<double>(m.macs), m.ideal_seconds, timing, m.best_seconds);
  state.counters["MB"] = static_cast<double>(row.bytes) * 1e-6;
  state.counters["GB/s"] = static_cast<double>(row.bytes) * 1e-9 / timing.seconds;
}

void run_sum(benchmark::State& state, const std::vector<Part>& parts, size_t repetition) {
  double macs = 0, ideal = 0, best = 0;
  Timing sum;
  bool known = true;
  for (const Part& part : parts) {
    const auto found = measured().find(part.row);
    if (found == measured().end()) {
      state.SkipWithError(("adds up other rows; let " + part.row + " run too").c_str());
      return;
    }
    const auto count = static_cast<double>(part.count);
    const Timing& timing = found->second.repetition(repetition);
    sum.seconds += count * timing.seconds;
    sum.busy_seconds += count * timing.busy_seconds;
    best += count * found->second.best_seconds;
    macs += count * static_cast<double>(found->second.macs);
    ideal += count * found->second.ideal_seconds;
    known = known && found->second.ideal_seconds > 0;
  }
  for (auto _ : state) state.SetIterationTime(sum.seconds);
  set_counters(state, macs, known ? ideal : 0, sum, best);
}

}  // namespace

void register_row(const std::string& name, std::function<Prepared()> prepare) {
  benchmark::RegisterBenchmark(
      name.c_str(), [name, prepare = std::move(prepare)](benchmark::State& state) { run_row(state, name, prepare); })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

void register_sum(const std::string& name, const std::vector<Part>& parts) {
  auto repetition = std::make_shared<size_t>(0);
  benchmark::RegisterBenchmark(name.c_str(),
                               [parts, repetition](benchmark::State& state) { run_sum(state, parts, (*repetition)++); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}

Prepared counted(std::function<void()> run, MacUnit unit) {
  start_profiler();
  run();
  stop_profiler();
  Prepared prepared{.run = std::move(run), .unit = unit};
  for (const ZoneTotal& zone : zone_table()) {
    prepared.macs += zone.all_macs();
    prepared.bytes += zone.bytes;
  }
  return prepared;
}

}  // namespace nibble::bench
