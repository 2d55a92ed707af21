// Where the time of a measured phase went: per kind of pass and per layer, with rates against what the machine reaches.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/profiler.hpp"
#include "nn/unit.hpp"
#include "ops/machine_probe.hpp"

namespace nibble::apps {

/// The least thread time that every zone took in one step, of all steps: what the code needs where other processes
/// leave it the cores for that long. Each zone's may be from a different step, so their sum can be less than any step
/// took.
class StepBests {
 public:
  /// After every step since start_profiler().
  void mark();
  /// Seconds of a row of zone_table() (label empty) or labelled_zone_table(); 0 where no step was marked.
  double seconds(const ZoneTotal& zone) const;

 private:
  struct Times {
    double until = 0, best = 0;  // self seconds until the last mark
    int64_t steps = 0;
  };
  std::map<std::pair<std::string, std::string>, Times> zones_;
};

/// The zones of one phase, and what they are compared with. Rates are per second of thread time, so they compare with
/// the probed rates of all threads divided by their number.
struct Profile {
  std::vector<ZoneTotal> passes;  // zone_table()
  std::vector<ZoneTotal> layers;  // labelled_zone_table(); labels are names of units
  StepBests bests;
  int64_t steps = 1;
  int threads = 1;
  double wall_seconds = 0;  // of all steps
  MacPeaks peaks{};
  MemoryBandwidth bandwidth;
};

/// Per kind of pass: calls, self ms per step (mean and best), share of the threads' time, GMAC/s and share of the peak
/// of the multipliers used, GB/s of compulsory traffic. What no zone covers (waiting threads included) is the last row.
/// Then one row per layer: ms and GMAC/s of each pass, the sum of the passes' bests.
std::string profile_text(const Profile& profile, const Network& network);

/// The same as JSON: threads, steps, peak_gmacs, memory_gb_per_second, passes:[...], layers:[{name, passes:{...}}].
nlohmann::ordered_json profile_json(const Profile& profile, const Network& network);

}  // namespace nibble::apps
