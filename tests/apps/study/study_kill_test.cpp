// A study killed at any moment and started again ends in the bytes of one that ran through, and trains nothing twice.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <map>

#include "engine/rng.hpp"
#include "tests/apps/child.hpp"
#include "tests/apps/whole_run.hpp"

namespace nibble::testing {
namespace {

namespace fs = std::filesystem;

const std::string kPoints[] = {"bf16-x0.1-s0", "w4a4-x0.1-s0"};

/// Result of a point without what a clock or a machine says.
nlohmann::json comparable_result(const std::string& point) {
  nlohmann::json r = nlohmann::json::parse(read_text(point + "/result.json"));
  for (const char* key : {"latency", "provenance"}) r.erase(key);
  return r;
}

/// First step of the run's last session; -1 when it has none.
int64_t last_session(const std::string& run) {
  const std::string text = text_if_there(run + "/machine.json");
  if (text.empty()) return -1;
  return nlohmann::json::parse(text).at("sessions").back().at("first_step");
}

size_t sessions(const std::string& run) {
  const std::string text = text_if_there(run + "/machine.json");
  return text.empty() ? 0 : nlohmann::json::parse(text).at("sessions").size();
}

TEST_CASE("study run: killed with SIGKILL at random moments it keeps finished points and loses what was not saved") {
  if (no_program()) return;
  const TemporaryFolder folder("study-kill");
  const std::string data = synthetic_data(folder), whole = folder / "whole", killed = folder / "killed";
  const auto study = [&](const std::string& out) {
    return "study run --quiet --data " + data + " --out " + out +
           " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --eval-every 4 --save-every 4"
           " --threads 1 --widths 0.1 --precisions bf16,w4a4 --epochs " +
           (kSanitized ? "4" : "12");
  };
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  run_well(study(whole));
  const double length = std::chrono::duration<double>(Clock::now() - began).count();

  Rng rng(2, rng_purpose::kTest);
  const std::string command = "exec '" + program().value() + "' " + study(killed) + " </dev/null >/dev/null 2>&1";
  std::map<std::string, std::string> finished;
  int kills = 0;
  size_t resumed = 0;
  // The first kill comes before anything is there; two come after a new checkpoint, so that a point is continued, then
  // four at random moments. From the eighth on none comes before more was done: this ends on a machine of any speed.
  for (int attempt = 0;; ++attempt) {
    std::map<std::string, int64_t> newest;
    std::map<std::string, size_t> sessions_before;
    for (const std::string& p : kPoints) {
      newest[p] = newest_step(killed + "/" + p);
      sessions_before[p] = sessions(killed + "/" + p);
    }
    const auto progressed = [&] {
      return std::any_of(std::begin(kPoints), std::end(kPoints), [&](const std::string& p) {
        return newest_step(killed + "/" + p) > newest[p] ||
               (fs::exists(killed + "/" + p + "/result.json") && !finished.contains(p));
      });
    };
    const bool at_once = attempt == 0, at_random = attempt > 2 && attempt < 7;
    const double wait = at_random ? 0.4 * length * static_cast<double>(rng.uniform()) : 0;
    const auto moment = Clock::now() + std::chrono::duration<double>(wait);
    const int status = run_and_signal(command, SIGKILL,
                                      [&] { return Clock::now() >= moment && (at_once || at_random || progressed()); });
    for (const std::string& p : kPoints) {
      CAPTURE(p);
      const std::string run = killed + "/" + p, result = text_if_there(run + "/result.json");
      if (finished.contains(p)) CHECK(result == finished.at(p));  // not run again
      if (!result.empty()) finished[p] = result;
      // A point that was continued began at the newest checkpoint there was.
      if (newest[p] == 0 || sessions(run) <= sessions_before[p]) continue;
      CHECK(last_session(run) == newest[p]);
      ++resumed;
    }
    if (!WIFSIGNALED(status)) {
      REQUIRE(WEXITSTATUS(status) == 0);
      break;
    }
    ++kills;
  }
  MESSAGE("killed ", kills, " times, went on inside a point ", resumed, " times");
  CHECK(kills >= 2);
  CHECK(resumed > 0);
  for (const std::string& p : kPoints) {
    CAPTURE(p);
    CHECK(comparable_result(killed + "/" + p) == comparable_result(whole + "/" + p));
    for (const char* file : {"/latest", "/served.safetensors"})
      CHECK((read_text(killed + "/" + p + file) == read_text(whole + "/" + p + file)));
  }
  CHECK(nlohmann::json::parse(run_well("study report --json " + killed).out).at("points").size() == 2);
}

TEST_CASE(
    "study run: a signal while a point is measured leaves no result, which would be final, of a part of the images") {
  if (no_program()) return;
  if (!thorough()) {
    MESSAGE("skipped: no kernel level changes it");
    return;
  }
  const TemporaryFolder folder("measured-stop");
  const std::string study = folder / "study", run = study + "/w4a4-x0.2-s0", result = run + "/result.json";
  const std::string data = synthetic_data(folder, {.train = 400, .val = 1});
  const std::string command = "exec '" + program().value() + "' study run --quiet --data " + data + " --out " + study +
                              " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1" +
                              " --threads 1 --widths 0.2 --precisions w4a4 </dev/null >/dev/null 2>&1";
  const auto evaluated = [&] { return has(text_if_there(run + "/metrics.jsonl"), "eval/top1"); };
  const int status = run_and_signal(command, SIGTERM, evaluated);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK_FALSE(fs::exists(result));
  run_well("study run --quiet --out " + study);
  CHECK(nlohmann::json::parse(read_text(result)).at("train_unaugmented").at("images") == 4000);
}

TEST_CASE("study measure: the first SIGTERM ends it with 75, and no time is written") {
  if (no_program()) return;
  const TemporaryFolder folder("measure-stop");
  const std::string study = folder / "study", err = folder / "err";
  run_well("study run --quiet --data " + synthetic_data(folder) + " --out " + study +
           " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --threads 1"
           " --widths 0.1 --precisions w4a4");
  const std::string result = study + "/w4a4-x0.1-s0/result.json", before = read_text(result);
  Child child("exec '" + program().value() + "' study measure --rounds 10000 --threads 1 " + study +
              " </dev/null >/dev/null 2>'" + err + "'");
  REQUIRE(child.reaches([&] { return has(text_if_there(err), "round 2 of "); }));
  REQUIRE(child.send(SIGTERM));
  const int status = child.wait();
  CAPTURE(text_if_there(err));
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK(has(text_if_there(err), "no time was written"));
  CHECK(read_text(result) == before);
}

}  // namespace
}  // namespace nibble::testing
