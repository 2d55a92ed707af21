// The report of one training run: what came of it so far, its curves, its layers, its machine.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nn/study/point_result.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

/// One process that worked on the run, as machine.json has it; empty or negative where it says nothing.
struct RunSession {
  std::string started, version, cpu, isa;
  double threads = -1, first_step = -1, last_step = -1, seconds = -1, images_per_second = -1;
};

/// All that the report needs of a run folder.
struct RunFacts {
  std::string name;  // of the folder
  TrainOptions options;
  std::string config;  // the text of config.resolved.toml
  Curves curves;
  std::vector<RunSession> sessions;

  int64_t checkpoint_step = -1;  // of the checkpoint that the layers come from; -1: there is none yet
  NetworkOptions network;        // as that checkpoint has it
  std::vector<PointLayer> layers;

  /// Steps of the whole run; none before the log tells how many make an epoch.
  std::optional<int64_t> planned_steps() const;
};

/// Reads a run, finished or not; takes no lock, so the run may still be going on. UsageError when `run` is not a run
/// folder or its config does not parse, DataError when it has no metrics yet, ModelError when its checkpoint is
/// damaged. machine.json is a note: what cannot be read of it is left out.
RunFacts read_run(const std::filesystem::path& run);

/// The whole page.
std::string run_report(const RunFacts& facts);

}  // namespace nibble::apps
