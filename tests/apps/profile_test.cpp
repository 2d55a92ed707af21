// nibble bench --profile: every layer is there with its own work, shares add up, and the trace names the layers.
#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/apps/whole_run.hpp"
#include "tests/near.hpp"

namespace nibble::testing {
namespace {

using nlohmann::json;

const std::string kNetwork = " --arch resnet26 --width 0.25 --precision w4a4-fl8 --image-size 32 --classes 10";

/// Layer name -> products of one image, by the cost model.
std::map<std::string, int64_t> macs_of_layers() {
  std::map<std::string, int64_t> macs;
  const Result r = run_program("cost --json" + kNetwork);
  REQUIRE(r.code == 0);
  const json cost = json::parse(r.out);
  for (const json& layer : cost.at("layers")) macs[layer.at("name")] = layer.at("macs");
  return macs;
}

/// The best step of a row is one of its steps, so there is one that is not above their mean.
void check_best(const json& row) {
  const double best = row.at("best_self_ms_per_step"), mean = row.at("self_ms_per_step");
  CHECK(best > 0);
  CHECK(best <= mean * (1 + 1e-9));
}

/// The rows of all kinds of pass and what is outside them add up to the threads' time.
void check_shares(const json& profile) {
  double shares = profile.at("outside_ms_per_step").get<double>() / profile.at("thread_ms_per_step").get<double>();
  for (const json& pass : profile.at("passes")) {
    CHECK(pass.at("self_ms_per_step") >= 0);
    shares += pass.at("share").get<double>();
  }
  CHECK(shares == doctest::Approx(1.0).epsilon(0.02));  // zones of pool threads may end just after the clock is read
}

/// In the convolutions' passes every zone has a layer's name, so what its layers took is what the pass took.
void check_layers_add_up(const json& profile) {
  int passes = 0;
  for (const json& pass : profile.at("passes")) {
    const std::string name = pass.at("name");
    if (!name.starts_with("conv ")) continue;
    double layers = 0;
    for (const json& layer : profile.at("layers"))
      if (const json& rows = layer.at("passes"); rows.contains(name))
        layers += rows.at(name).at("self_ms_per_step").get<double>();
    INFO(name);
    CHECK(layers == testing::relative(pass.at("self_ms_per_step").get<double>(), 1e-9));
    ++passes;
  }
  CHECK(passes == 3);
}

/// The multipliers that a pass may have used, by the one thing that tells: with their peak, its time is its share of
/// it.
std::set<std::string> multipliers_of(const json& pass, const json& profile) {
  const double seconds = pass.at("self_ms_per_step").get<double>() / 1000, macs = pass.at("macs").get<double>();
  std::set<std::string> names;
  for (const auto& [name, peak] : profile.at("peak_gmacs_per_second").items()) {
    const double of_peak = macs / (seconds * peak.get<double>() * 1e9 / profile.at("threads").get<double>());
    if (of_peak == doctest::Approx(pass.at("share_of_peak").get<double>()).epsilon(1e-9)) names.insert(name);
  }
  return names;
}

TEST_CASE("bench --profile --json: a training step counts each layer's products once in each direction") {
  if (no_program()) return;
  const auto macs = macs_of_layers();
  const Result r =
      run_program("bench train --profile --json --batch-size 6 --shard 3 --repeats 2 --threads 2" + kNetwork);
  REQUIRE(r.code == 0);
  const std::vector<json> phases = json_lines(r.out);
  REQUIRE(phases.size() == 2);
  CHECK(phases[0].at("phase") == "train before calibration");
  CHECK(phases[1].at("phase") == "train after calibration");
  for (const json& phase : phases) {
    const bool codes = phase.at("phase") == "train after calibration";
    const json& profile = phase.at("profile");
    CHECK(phase.at("ms_per_step") > 0);  // what bench/compare reads
    CHECK(profile.at("threads") == 2);
    CHECK(profile.at("memory_gb_per_second").at("triad") > 0);
    check_shares(profile);
    check_layers_add_up(profile);
    REQUIRE(profile.at("layers").size() == macs.size());
    for (const json& layer : profile.at("layers")) {
      const std::string name = layer.at("name");
      CAPTURE(name);
      REQUIRE(macs.count(name) == 1);
      const json& passes = layer.at("passes");
      CHECK(passes.at("conv forward").at("macs") == 6 * macs.at(name));
      CHECK(passes.at("conv backward, weights").at("macs") == 6 * macs.at(name));
      CHECK(passes.at("conv backward, weights").at("calls") == 4);  // two shards, two steps
      CHECK(passes.at("conv forward").at("bytes") > 0);
      check_best(passes.at("conv forward"));
      check_best(passes.at("conv backward, weights"));
      const std::string forward = !codes ? "bf16" : name == "conv1" || name == "fc" ? "int8" : "int4";
      CHECK(multipliers_of(passes.at("conv forward"), profile).contains(forward));
      CHECK(multipliers_of(passes.at("conv backward, weights"), profile).contains("bf16"));
      CHECK(passes.contains("conv backward, input") == (name != "conv1"));
      CHECK(passes.contains("norm backward, sums") ==
            (name != "fc" && (name.find("downsample") != std::string::npos || passes.contains("norm and activate"))));
    }
  }
}

TEST_CASE("bench --profile: inference counts each layer's products, in JSON and as a table of one row per layer") {
  if (no_program()) return;
  const auto macs = macs_of_layers();
  const std::string command = "bench infer --profile --batch-size 9 --repeats 3 --threads 2" + kNetwork;
  const Result r = run_program(command + " --json");
  REQUIRE(r.code == 0);
  const json profile = json::parse(r.out).at("profile");
  check_shares(profile);
  REQUIRE(profile.at("layers").size() == macs.size());
  for (const json& pass : profile.at("passes"))
    if (pass.at("name") == "executor, convolution") check_best(pass);
  for (const json& layer : profile.at("layers")) {
    const json& pass = layer.at("passes").at("executor, convolution");
    CHECK(pass.at("macs") == 9 * macs.at(layer.at("name")));
    check_best(pass);
  }
  const Result table = run_program(command);
  REQUIRE(table.code == 0);
  for (const auto& [name, count] : macs) CHECK(table.out.find("\n" + name + " ") != std::string::npos);
}

TEST_CASE("bench: images per second and milliseconds per step are one time, which fits the time of the process") {
  if (no_program()) return;
  using Clock = std::chrono::steady_clock;
  for (const std::string what : {"infer", "train --shard 3"}) {
    CAPTURE(what);
    const auto began = Clock::now();
    const Result r = run_program("bench " + what + " --json --batch-size 6 --repeats 5" + kNetwork);
    const double wall_ms = std::chrono::duration<double, std::milli>(Clock::now() - began).count();
    REQUIRE(r.code == 0);
    for (const json& phase : json_lines(r.out)) {
      const double ms = phase.at("ms_per_step"), best = phase.at("best_ms_per_step");
      CHECK(phase.at("batch") == 6);
      CHECK(phase.at("images_per_second").get<double>() * ms == doctest::Approx(6000));
      CHECK(best > 0);
      CHECK(best <= ms);
      // Five repeats, of which three take the median or longer.
      CHECK(3 * ms + 2 * best <= wall_ms);
    }
  }
}

TEST_CASE("a Chrome trace names the layers") {
  if (no_program()) return;
  const TemporaryFolder folder("profile");
  const std::string trace = folder / "trace.json";
  REQUIRE(run_program("bench infer --batch-size 1 --repeats 1" + kNetwork, "NIBBLE_PROFILE='" + trace + "'").code == 0);
  std::map<std::string, int> labels;
  const json parsed = json::parse(read_text(trace));
  for (const json& event : parsed.at("traceEvents"))
    if (event.contains("args")) ++labels[event.at("args").at("label")];
  for (const auto& [name, count] : macs_of_layers()) CHECK(labels.count(name) == 1);
}

}  // namespace
}  // namespace nibble::testing
