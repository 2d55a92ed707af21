// Benchmark rows of a network's layers, and rows that add them up over the whole network.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/profiler.hpp"

namespace nibble::bench {

/// Something prepared to be run again and again.
struct Prepared {
  std::function<void()> run;
  int64_t macs = 0;
  int64_t bytes = 0;  // operands read once, results written once
  MacUnit unit = MacUnit::kBf16;
};

/// Registers `name`. `prepare` is called when the row runs, so that rows that are filtered out cost nothing; an
/// exception from it skips the row and is its message. Prints GMAC/s, the share of the peak of all threads measured
/// just before (`of_peak`), the same by processor time instead of wall time (`busy_of_peak`, which other programs on
/// the machine disturb less, but which counts threads that spin while they wait), and the bytes, in MB and GB/s.
void register_row(const std::string& name, std::function<Prepared()> prepare);

/// A row and how often the network has it.
struct Part {
  std::string row;
  int64_t count = 0;
};
/// Registers `name` as the sum of rows registered before: the time of one pass through all of them, each counted as
/// often as the network has it, and so the GMAC/s and the share of the peak weighted by products. Runs nothing itself:
/// it needs its parts to have run in the same process, and says so when one has not.
void register_sum(const std::string& name, const std::vector<Part>& parts);

/// Runs once under the profiler and adds up what its zones count.
Prepared counted(std::function<void()> run, MacUnit unit);

}  // namespace nibble::bench
