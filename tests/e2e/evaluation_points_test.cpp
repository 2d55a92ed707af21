// Evaluations while training: the checkpoint comes first, and a resumed run makes up for an evaluation that is missing.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "tests/apps/child.hpp"
#include "tests/apps/whole_run.hpp"

namespace {

using nibble::testing::checkpoint_of;
using nibble::testing::metrics_of;
using nibble::testing::newest_step;
using nibble::testing::no_program;
using nibble::testing::program;
using nibble::testing::read_text;
using nibble::testing::Result;
using nibble::testing::run_and_signal;
using nibble::testing::run_program;
using nibble::testing::run_well;
using nibble::testing::synthetic_data;
using nibble::testing::TemporaryFolder;
using nibble::testing::thorough;
using nibble::testing::write_text;

/// Two steps per epoch, six in all, an evaluation after each epoch and after the last step.
constexpr const char* kThreeEpochs =
    " --arch resnet26 --width 0.1 --image-size 32 --batch-size 16 --shard 8 --epochs 3 --calibrate-at 3 --keep 9"
    " --precision w4a4-fl8 --strict-data --quiet --json";

std::string make_data(const TemporaryFolder& folder) {
  const std::string data = folder / "data";
  REQUIRE(run_program("synth --out " + data + " --train 4 --val 2 --size 40").code == 0);
  return data;
}

/// step:top1 of the evaluations in the log, in order.
std::string evaluations(const std::string& run) {
  std::string text;
  for (const nlohmann::json& line : metrics_of(run))
    if (line.contains("eval/top1")) text += line.at("step").dump() + ":" + line.at("eval/top1").dump() + " ";
  return text;
}

}  // namespace

TEST_CASE("a run that ends inside an evaluation has saved its step, and the resumed run makes up for it") {
  if (no_program()) return;
  const TemporaryFolder folder("evaluation");
  const std::string data = make_data(folder), whole = folder / "whole", broken = folder / "broken";
  const std::string image = data + "/val/striped_disk/00001.jpg", good = read_text(image);
  REQUIRE(run_program("train --data " + data + " --out " + whole + kThreeEpochs).code == 0);
  REQUIRE(evaluations(whole).starts_with("2:"));

  write_text(image, "no image");  // --strict-data: the evaluation ends the run
  CHECK(run_program("train --data " + data + " --out " + broken + kThreeEpochs).code == 3);
  CHECK(std::filesystem::exists(broken + "/checkpoints/step-000002.safetensors"));
  CHECK(evaluations(broken).empty());
  CHECK(run_program("train --resume " + broken + " --quiet").code == 3);  // the evaluation of step 2, again
  write_text(image, good);
  CHECK(run_program("train --resume " + broken + " --quiet").code == 0);
  CHECK(evaluations(broken) == evaluations(whole));
  for (const std::string step : {"2", "4", "6"})
    CHECK(read_text(broken + "/checkpoints/step-00000" + step + ".safetensors") ==
          read_text(whole + "/checkpoints/step-00000" + step + ".safetensors"));
  CHECK(std::filesystem::read_symlink(broken + "/best") == std::filesystem::read_symlink(whole + "/best"));
}

TEST_CASE("an evaluation whose line or whose link to the best is missing is made up for, and logged once") {
  if (no_program()) return;
  const TemporaryFolder folder("line");
  const std::string data = make_data(folder), run = folder / "run";
  REQUIRE(run_program("train --data " + data + " --out " + run + kThreeEpochs).code == 0);
  const std::string expected = evaluations(run), all = read_text(run + "/metrics.jsonl");
  const std::string last = read_text(run + "/checkpoints/step-000006.safetensors");
  const auto best = std::filesystem::read_symlink(run + "/best");
  // Killed between the evaluation of step 2 and what it leaves behind, with and without the line.
  const size_t line = all.find("eval/top1");
  for (const size_t length : {all.find('\n', line) + 1, all.rfind('\n', line) + 1}) {
    for (const char* later : {"/checkpoints/step-000004.safetensors", "/checkpoints/step-000006.safetensors", "/best"})
      std::filesystem::remove(run + later);
    write_text(run + "/metrics.jsonl", all.substr(0, length));
    REQUIRE(run_program("train --resume " + run + " --quiet").code == 0);
    CHECK(evaluations(run) == expected);
    CHECK(read_text(run + "/checkpoints/step-000006.safetensors") == last);
    CHECK(std::filesystem::read_symlink(run + "/best") == best);
  }
  // A finished run that is resumed prints its result again, without a speed, and changes nothing.
  const auto again = run_program("train --resume " + run + " --quiet");
  REQUIRE(again.code == 0);
  CHECK(again.out.find("done: top1") != std::string::npos);
  CHECK(again.out.find("img/s") == std::string::npos);
  CHECK(evaluations(run) == expected);
}

TEST_CASE("a run that ends at an image it cannot read has saved the steps before it") {
  if (no_program()) return;
  const TemporaryFolder folder("unreadable");
  const std::string data = make_data(folder), whole = folder / "whole", last = "/checkpoints/step-000006.safetensors";
  const std::string run_options = std::string(kThreeEpochs) + " --save-every 100 --eval-every 0";
  REQUIRE(run_program("train --data " + data + " --out " + whole + run_options).code == 0);
  // Which step needs an image follows from the seed: the first class whose image is not in the first batch.
  int resumed = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data + "/train")) {
    const std::string image = entry.path() / "00000.jpg", good = read_text(image);
    const std::string run = folder / ("run-" + entry.path().filename().string());
    write_text(image, "no image");
    const int code = run_program("train --data " + data + " --out " + run + run_options).code;
    write_text(image, good);
    CHECK((code == 3 || code == 0));  // 0: left out of all three epochs, which drop 8 images each
    if (code == 0 || std::filesystem::is_empty(run + "/checkpoints")) continue;
    CHECK_FALSE(std::filesystem::exists(run + last));
    // Its steps are in the log up to the one that was saved, and its sitting has an end.
    const int64_t step = metrics_of(run).back().at("step");
    CHECK(std::filesystem::exists(run + "/" + checkpoint_of(step)));
    CHECK(nlohmann::json::parse(read_text(run + "/machine.json")).at("sessions").back().at("last_step") == step);
    CHECK(run_program("train --resume " + run + " --quiet").code == 0);
    CHECK(read_text(run + last) == read_text(whole + last));
    if (++resumed == 2 && !thorough()) break;
  }
  CHECK(resumed > 0);
}

/// Seconds inside the steps of a run, by the trace of its profiler: a step packs its weights first and changes them
/// last. Other threads help with parts of both; the one that has them done opens the first zone of all.
double seconds_in_steps(const std::string& trace) {
  std::vector<nlohmann::json> events = nlohmann::json::parse(read_text(trace)).at("traceEvents");
  const auto begin_of = [](const nlohmann::json& e) { return e.at("ts").get<double>(); };
  std::sort(events.begin(), events.end(), [&](const auto& a, const auto& b) { return begin_of(a) < begin_of(b); });
  REQUIRE_FALSE(events.empty());
  double begin = 0, sum = 0;
  int steps = 0;
  for (const nlohmann::json& event : events) {
    if (event.at("tid") != events.front().at("tid")) continue;
    if (event.at("name") == "quantize and pack weights") begin = begin_of(event);
    if (event.at("name") != "optimizer") continue;
    sum += begin_of(event) + event.at("dur").get<double>() - begin;
    ++steps;
  }
  CHECK(steps == 6);
  return sum * 1e-6;
}

TEST_CASE("images_per_second of a run, in its log and in its result, leaves out no second of a step") {
  if (no_program()) return;
  const TemporaryFolder folder("rate");
  const std::string data = make_data(folder), run = folder / "run", trace = folder / "trace";
  const Result r =
      run_program("train --data " + data + " --out " + run + kThreeEpochs, "NIBBLE_PROFILE='" + trace + "'");
  REQUIRE(r.code == 0);
  const double inside = seconds_in_steps(trace);
  double logged = 0;  // 32 images per line of the log
  for (const nlohmann::json& line : metrics_of(run))
    if (!line.contains("eval/top1")) logged += 32 / line.at("images_per_second").get<double>();
  CHECK(logged >= 0.999 * inside);
  CHECK(96 / nlohmann::json::parse(r.out).at("images_per_second").get<double>() >= 0.999 * inside);
}

TEST_CASE("images_per_second of a run leaves the evaluations out: with theirs, no second is counted twice") {
  if (no_program()) return;
  const TemporaryFolder folder("rate-evaluations");
  const std::string data = folder / "data", run = folder / "run";
  // Evaluations that take longer than all the rest: 400 images after every 16 of training.
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 40 --size 40").code == 0);
  const auto began = std::chrono::steady_clock::now();
  const Result r = run_program("train --data " + data + " --out " + run + kThreeEpochs);
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  REQUIRE(r.code == 0);
  double evaluating = 0, training = 0;
  for (const nlohmann::json& line : metrics_of(run)) {
    if (line.contains("eval/top1"))
      evaluating += 400 / line.at("eval/images_per_second").get<double>();
    else
      training += 16 / line.at("images_per_second").get<double>();
  }
  const double of_result = 48 / nlohmann::json::parse(r.out).at("images_per_second").get<double>();
  CAPTURE(wall);
  CAPTURE(evaluating);
  CHECK(training + evaluating <= wall);
  CHECK(of_result + evaluating <= wall);
}

TEST_CASE(
    "a signal inside an evaluation ends the run with 75 and no line of it; the resumed run evaluates all images") {
  if (no_program()) return;
  if (!thorough()) {
    MESSAGE("skipped: no kernel level changes it");
    return;
  }
  const TemporaryFolder folder("evaluation-signal");
  const std::string data = synthetic_data(folder, {.train = 2, .val = 400}), run = folder / "run";
  const std::string command = "exec '" + program().value() + "' train --data " + data + " --out " + run +
                              " --arch resnet26 --width 0.2 --image-size 32 --batch-size 8 --shard 8 --steps 2"
                              " --calibrate-at 1 --threads 1 --quiet </dev/null >/dev/null 2>&1";
  // A tenth of a second into it: it begins where the step is saved, and takes about a second.
  using Clock = std::chrono::steady_clock;
  std::optional<Clock::time_point> saved;
  const int status = run_and_signal(command, SIGTERM, [&] {
    if (!saved && newest_step(run) == 2) saved = Clock::now();
    return saved && Clock::now() - *saved > std::chrono::milliseconds(100);
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK(evaluations(run).empty());
  CHECK_FALSE(std::filesystem::exists(run + "/best"));
  run_well("train --quiet --resume " + run);
  REQUIRE(metrics_of(run).back().contains("eval/images"));
  CHECK(metrics_of(run).back().at("eval/images") == 4000);
  CHECK(std::filesystem::exists(run + "/best"));
}
