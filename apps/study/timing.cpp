#include "apps/study/timing.hpp"

#include <algorithm>
#include <memory>

#include "apps/console.hpp"
#include "apps/inference_probe.hpp"
#include "apps/signals.hpp"
#include "apps/train_arguments.hpp"
#include "engine/error.hpp"
#include "nn/atomic_file.hpp"

namespace nibble::apps {

namespace {

NetworkOptions network_of(const PointResult& p) {
  TrainArguments arguments;
  NetworkOptions& network = arguments.options.network;
  try {
    arguments.read_text(p.provenance.config, "the configuration of " + p.name);
    arguments.resolve();
    network.classes = p.classes;
    build_resnet(network);  // numbers out of range, layers that are not there
  } catch (const UsageError& e) {
    throw DataError("{}; the result of {} is damaged or of another version: remove it and train the point again",
                    e.what(), p.name);
  }
  if (network.arch != p.arch || network.width != p.width || network.precision != p.precision ||
      network.image_size != p.image_size)
    throw DataError(
        "{} is a {} x{} {} at {} px, its configuration is of a {} x{} {} at {} px; remove its result and train the "
        "point again",
        p.name, p.arch, p.width, p.precision, p.image_size, network.arch, network.width, network.precision,
        network.image_size);
  return network;
}

struct Timed {
  std::unique_ptr<Executor> executor;
  LatencyProbe probe;
};

void stop_if_asked() {
  if (stop_requested()) throw InterruptedError("interrupted; no time was written: run nibble study measure again");
}

}  // namespace

std::vector<TimedNetwork> networks_of(const std::vector<PointResult>& points) {
  std::vector<TimedNetwork> all;
  for (const PointResult& p : points) {
    const NetworkOptions options = network_of(p);
    if (options.mode == QuantMode::kFake) continue;
    const auto same = std::find_if(all.begin(), all.end(), [&](const TimedNetwork& n) { return n.options == options; });
    if (same == all.end())
      all.push_back({options, {p.name}, {}});
    else
      same->points.push_back(p.name);
  }
  return all;
}

void time_in_turn(std::vector<TimedNetwork>& networks, int64_t rounds) {
  const std::string sitting = utc_now();
  std::vector<Timed> timed;
  for (const TimedNetwork& n : networks) {
    stop_if_asked();
    progress(fmt::format("preparing {} of {}: {}", timed.size() + 1, networks.size(), n.points.front()));
    auto executor = std::make_unique<Executor>(untrained_model(n.options));
    LatencyProbe probe(*executor, n.options.image_size);
    timed.push_back({std::move(executor), std::move(probe)});
  }
  for (int64_t round = 0; round < rounds; ++round) {
    progress(fmt::format("round {} of {}", round + 1, rounds));
    for (size_t i = 0; i < timed.size(); ++i) {
      stop_if_asked();
      timed[round % 2 == 0 ? i : timed.size() - 1 - i].probe.visit(0.2, 2);
    }
  }
  end_progress();
  for (size_t i = 0; i < timed.size(); ++i) {
    networks[i].latency = timed[i].probe.result();
    networks[i].latency.sitting = sitting;
  }
}

void take_times(std::vector<PointResult>& points, const std::vector<TimedNetwork>& networks) {
  for (const TimedNetwork& n : networks)
    for (PointResult& p : points)
      if (std::find(n.points.begin(), n.points.end(), p.name) != n.points.end()) p.latency = n.latency;
}

void keep_times(const std::vector<std::filesystem::path>& results, const std::vector<TimedNetwork>& networks) {
  for (const std::filesystem::path& path : results) {
    std::vector<PointResult> point = {read_point_result(path)};
    take_times(point, networks);
    write_file_atomically(path, to_json(point.front()));
  }
}

}  // namespace nibble::apps
