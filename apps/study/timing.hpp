// Times of all models of a study on this machine, in one sitting: what each took when its training ended depends on
// what else the machine did that day, and on which machine it was.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "nn/study/point_result.hpp"
#include "nn/unit.hpp"

namespace nibble::apps {

/// One network, and the points that are trained models of it: seeds do not change its time.
struct TimedNetwork {
  NetworkOptions options;
  std::vector<std::string> points;
  Latency latency;
};

/// The distinct networks of the points, from the configurations that they carry. Points in `fake` mode, which is not
/// served, take no part. DataError naming the point when its configuration cannot be read or is of another network.
std::vector<TimedNetwork> networks_of(const std::vector<PointResult>& points);

/// Fills in the latencies: all networks (with fresh weights, on which no time depends) in turn, `rounds` times over,
/// each round in the opposite order of the one before; medians over the rounds.
/// Cost: the memory of all of them at once; for each network and round at least 0.2 s and two calls with one and with
/// 32 images. InterruptedError when a signal asked to stop.
void time_in_turn(std::vector<TimedNetwork>& networks, int64_t rounds);

/// Puts the latencies into the points that have such a network.
void take_times(std::vector<PointResult>& points, const std::vector<TimedNetwork>& networks);
/// The same for result files, which are replaced one by one. DiskError, DataError.
void keep_times(const std::vector<std::filesystem::path>& results, const std::vector<TimedNetwork>& networks);

}  // namespace nibble::apps
