// Whole runs in tests: a small data set, a run trained on it, its files, and what the program prints as JSON.
#pragma once
#include <doctest/doctest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/sanitizer.hpp"
#include "ops/kernels/table.hpp"
#include "tests/apps/program.hpp"

namespace nibble::testing {

/// Whether to repeat what no kernel level changes (moments of a kill, seeds, schedules, decoders): on the machine's
/// best level of a build without sanitizers. Elsewhere such a test does its work once: otherwise seven levels take
/// minutes.
inline bool thorough() {
  kernels::active();  // obeys NIBBLE_ISA
  return !kSanitized && active_isa() == runnable_isas().back();
}

/// What `nibble synth` is told: images of each of its ten classes, pixels per side.
struct SyntheticImages {
  int train = 2, val = 1, size = 32;
};

/// Makes such a data set in the folder and returns where.
inline std::string synthetic_data(const TemporaryFolder& folder, const SyntheticImages& images = {}) {
  std::string data = folder / "data";
  run_well("synth --out " + data + " --train " + std::to_string(images.train) + " --val " + std::to_string(images.val) +
           " --size " + std::to_string(images.size));
  return data;
}

/// `nibble train` from the beginning to the end, into the folder `run`.
inline Result train_run(const std::string& data, const std::string& run, const std::string& options) {
  return run_well("train --data " + data + " --out " + run + " " + options);
}

/// The one object that a command printed, which must have succeeded.
inline nlohmann::json json_of(const Result& r) {
  INFO(r.err);
  REQUIRE(r.code == 0);
  return nlohmann::json::parse(r.out);
}

inline nlohmann::json evaluation_of(const std::string& model, const std::string& data,
                                    const std::string& options = "") {
  return json_of(run_program("eval " + model + " --data " + data + " --json " + options));
}

/// One value per line.
inline std::vector<nlohmann::json> json_lines(const std::string& text) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// The lines of a run's log.
inline std::vector<nlohmann::json> metrics_of(const std::string& run) {
  return json_lines(read_text(run + "/metrics.jsonl"));
}

/// "checkpoints/step-000123.safetensors": where it lies in the run's folder, and what a link to it says.
inline std::string checkpoint_of(int64_t step) {
  const std::string digits = std::to_string(step);
  return "checkpoints/step-" + std::string(6 - digits.size(), '0') + digits + ".safetensors";
}

}  // namespace nibble::testing
