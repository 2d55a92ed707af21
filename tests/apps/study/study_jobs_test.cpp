// nibble study run --jobs: points trained at the same time are the points trained in turn, however it is stopped.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/apps/child.hpp"
#include "tests/apps/whole_run.hpp"

namespace nibble::testing {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kThree = {"bf16-x0.1-s0", "w4a4-x0.1-s0", "w8a8-x0.1-s0"};

std::string recipe(const std::string& data, const std::string& steps, const std::string& save_every = "2") {
  return " --data " + data + " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --calibrate-at 1 --widths 0.1" +
         " --eval-every 0 --save-every " + save_every + " --steps " + steps;
}

nlohmann::json result_of(const std::string& point) {
  return nlohmann::json::parse(read_text(point + "/result.json"));
}

/// The point without what a clock says (lines of the training log, too: one more where a run was stopped), and its
/// model.
void check_same_point(const std::string& a, const std::string& b) {
  CAPTURE(a);
  nlohmann::json x = result_of(a), y = result_of(b);
  for (nlohmann::json* r : {&x, &y}) {
    r->erase("latency");
    r->at("curves").erase("train");
    for (const char* key : {"started", "seconds", "threads"}) r->at("provenance").erase(key);
  }
  CHECK(x == y);
  for (const char* file : {"/latest", "/served.safetensors"}) CHECK((read_text(a + file) == read_text(b + file)));
}

/// Processes that work on the point: those whose arguments name it as their own.
std::vector<pid_t> workers_on(const std::string& study, const std::string& point) {
  std::vector<pid_t> all;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string words = text_if_there(entry.path().string() + "/cmdline");
    if (has(words, "--worker=" + point) && has(words, "--out=" + study)) all.push_back(std::stoi(name));
  }
  return all;
}

/// Each step multiplies the weights by about a thousand, until a convolution's output is not finite.
TEST_CASE(
    "study run: a point that diverges is one that failed, and the others are tried, in turn as at the same time") {
  if (no_program()) return;
  const TemporaryFolder folder("diverging");
  const std::string data = synthetic_data(folder);
  for (const char* jobs : {"1", "2"}) {
    const std::string study = folder / "study" + std::string(jobs);
    const Result r = run_program("study run --json --quiet --precisions bf16,w8a8 --lr 1000 --weight-decay 1 " +
                                 std::string("--warmup-epochs 0 --no-zero-gamma --jobs ") + jobs + recipe(data, "20") +
                                 " --out " + study);
    CAPTURE(r.err);
    CHECK(r.code == 1);
    const nlohmann::json j = nlohmann::json::parse(r.out);
    CHECK(j.at("points").empty());
    REQUIRE(j.at("failed").size() == 2);
    for (const nlohmann::json& point : j.at("failed")) {
      CHECK(has(point.at("error").get<std::string>(), "not finite"));
      CHECK(has(read_text(study + "/" + point.at("name").get<std::string>() + "/failure.txt"), "not finite"));
    }
  }
}

TEST_CASE("study run --jobs: the results of points trained at the same time are those of points trained in turn") {
  if (no_program()) return;
  const TemporaryFolder folder("jobs");
  const std::string data = synthetic_data(folder), in_turn = folder / "turn", at_once = folder / "once";
  const std::string options = recipe(data, "6") + " --precisions bf16,w8a8,w4a4 --threads 2 --out ";
  run_well("study run --quiet --jobs 1" + options + in_turn);
  const Result r = run_program("study run --json --jobs 2" + options + at_once);
  CAPTURE(r.err);
  REQUIRE(r.code == 0);
  const nlohmann::json j = nlohmann::json::parse(r.out);
  CHECK(j.at("points").size() == 3);
  CHECK(j.at("failed").empty());
  // Their lines say whose they are, and the study says how far it is.
  for (const std::string& point : kThree) {
    CHECK(has(r.err, "\n" + point + ": plan   6 steps"));
    check_same_point(in_turn + "/" + point, at_once + "/" + point);
    const nlohmann::json alone = result_of(in_turn + "/" + point), beside = result_of(at_once + "/" + point);
    CHECK(alone.at("provenance").at("threads") == 2);
    CHECK(beside.at("provenance").at("threads") == 1);
    // Timed one after another, in one sitting, with all threads.
    CHECK_FALSE(alone.at("latency").contains("sitting"));
    CHECK(beside.at("latency").at("sitting") == result_of(at_once + "/" + kThree[0]).at("latency").at("sitting"));
    CHECK(beside.at("latency").at("batch1_ms") > 0);
    CHECK(beside.at("latency").at("threads") == 2);
  }
  CHECK(has(r.err, "3 points, 2 at a time, about "));
  CHECK(has(r.err, "point 3 of 3: "));
  CHECK(has(r.err, "timing 3 models in turn"));
  // Nothing is left to do, and nothing is timed again.
  const std::string before = read_text(at_once + "/bf16-x0.1-s0/result.json");
  run_well("study run --quiet --jobs 2 --threads 2 --out " + at_once);
  CHECK(read_text(at_once + "/bf16-x0.1-s0/result.json") == before);
  check_refused("study run --jobs 3 --threads 2 --out " + at_once, 2, "--jobs is 3; use 1 to 2, the number of threads");
  check_refused("study run --jobs 0 --threads 2 --out " + at_once, 2, "--jobs is 0");
  check_refused("study run --worker other --out " + at_once, 2, "has no point 'other'");
}

TEST_CASE("study run --jobs: a point that fails, or whose process is killed, stops no other and is tried again") {
  if (no_program()) return;
  const TemporaryFolder folder("jobs-fail");
  const std::string data = synthetic_data(folder), study = folder / "study";
  const std::string again = "study run --quiet --json --jobs 2 --threads 2 --out " + study;
  const std::string point = study + "/bf16-x0.1-s0";
  run_well("study run --quiet" + recipe(data, "2") + " --precisions bf16 --out " + study);
  fs::remove(point + "/result.json");
  for (const auto& checkpoint : fs::directory_iterator(point + "/checkpoints"))
    fs::resize_file(checkpoint.path(), fs::file_size(checkpoint.path()) - 1);
  const Result r = run_program(again + " --precisions bf16,w8a8");
  CHECK(r.code == 1);
  const nlohmann::json j = nlohmann::json::parse(r.out);
  CHECK(j.at("points").size() == 1);
  CHECK(j.at("failed").at(0).at("name") == "bf16-x0.1-s0");
  CHECK(has(j.at("failed").at(0).at("error").get<std::string>(), "no checkpoint that can be read"));
  fs::remove_all(point);
  CHECK(run_program(again).code == 0);

  const std::string long_study = folder / "long";
  Child child("exec '" + program().value() + "' study run --quiet --json --jobs 2 --threads 2" + recipe(data, "100") +
              " --precisions bf16,w8a8 --out " + long_study + " </dev/null >'" + (folder / "out") + "' 2>/dev/null");
  pid_t killed = 0;
  REQUIRE(child.reaches([&] {
    const std::vector<pid_t> workers = workers_on(long_study, "w8a8-x0.1-s0");
    if (!workers.empty() && newest_step(long_study + "/w8a8-x0.1-s0") > 0) killed = workers.front();
    return killed != 0;
  }));
  kill(killed, SIGKILL);
  const int status = child.wait();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
  const nlohmann::json after = nlohmann::json::parse(read_text(folder / "out"));
  CHECK(after.at("points").at(0).at("name") == "bf16-x0.1-s0");
  CHECK(has(after.at("failed").at(0).at("error").get<std::string>(), "signal 9 ended its process"));
  CHECK(run_program("study run --quiet --jobs 2 --threads 2 --out " + long_study).code == 0);
}

TEST_CASE(
    "study run --jobs: Ctrl-C, which all processes get, stops once; a request to save is handed on; so are exit "
    "codes") {
  if (no_program()) return;
  const TemporaryFolder folder("jobs-group");
  const std::string data = synthetic_data(folder), study = folder / "study", err = folder / "err";
  const std::vector<std::string> points = {"bf16-x0.1-s0", "w8a8-x0.1-s0"};
  const auto all = [&](const auto& holds) { return std::all_of(points.begin(), points.end(), holds); };
  // In a session of its own, so that a signal to the group leaves this test alone. NIBBLE_LOG=debug: lines with times.
  Child child("NIBBLE_LOG=debug exec setsid '" + program().value() + "' study run --jobs 2 --threads 2" +
              recipe(data, "100000", "100000") + " --precisions bf16,w8a8 --out " + study +
              " </dev/null >/dev/null 2>'" + err + "'");
  REQUIRE(child.reaches(
      [&] { return all([&](const std::string& p) { return has(text_if_there(err), p + ": epoch "); }); }));
  child.send(SIGUSR1);
  REQUIRE(child.reaches([&] { return all([&](const std::string& p) { return newest_step(study + "/" + p) > 0; }); }));
  pid_t leader = 0;
  for (const std::string& p : points) leader = getpgid(workers_on(study, p).at(0));
  REQUIRE(leader != getpgid(0));
  kill(-leader, SIGTERM);
  const int status = child.wait();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  const std::string text = read_text(err);
  CAPTURE(text);
  CHECK(has(text, " and saved; continue with: nibble study run --out " + study));
  CHECK_FALSE(has(text, "at once; the newest"));
  CHECK_FALSE(has(text, "failed"));
  // One time per line.
  const size_t line = text.find("Z " + points[0] + ": ");
  REQUIRE(line != std::string::npos);
  CHECK(text.substr(line + points[0].size() + 4, 2) != "20");

  // A failure that is no point's own ends the study with its code and one sentence.
  const std::string blocked = folder / "blocked";
  fs::create_directories(blocked);
  write_text(blocked + "/" + points[0], "someone's");
  const Result r = run_program("study run --quiet --jobs 2 --threads 2" + recipe(data, "2") +
                               " --precisions bf16,w8a8 --out " + blocked);
  CAPTURE(r.err);
  CHECK(r.code == 7);
  CHECK(has(r.err, "\nerror: " + points[0] + ": cannot make the folder '" + blocked + "/" + points[0] + "'"));
}

TEST_CASE("study run --jobs: SIGTERM saves all points; when the process is killed, those it started save and stop") {
  if (no_program()) return;
  const TemporaryFolder folder("jobs-stop");
  const std::string data = synthetic_data(folder), whole = folder / "whole";
  const std::string steps = "150";
  const std::string two = " --precisions bf16,w8a8 --threads 2 --out ";
  run_well("study run --quiet" + recipe(data, steps) + two + whole);
  const std::vector<std::string> points = {"bf16-x0.1-s0", "w8a8-x0.1-s0"};
  for (const int signal_number : {SIGTERM, SIGKILL}) {
    CAPTURE(signal_number);
    const std::string study = folder / ("study" + std::to_string(signal_number));
    const int status =
        run_and_signal("exec '" + program().value() + "' study run --quiet --jobs 2" + recipe(data, steps) + two +
                           study + " </dev/null >/dev/null 2>'" + (folder / "err") + "'",
                       signal_number, [&] {
                         return std::all_of(points.begin(), points.end(),
                                            [&](const std::string& p) { return newest_step(study + "/" + p) > 0; });
                       });
    if (signal_number == SIGTERM) {
      REQUIRE(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == 75);
      const std::string err = read_text(folder / "err");
      CHECK(has(err, " and saved; continue with: nibble study run --out " + study));
      for (const std::string& p : points) CHECK(has(err, p));
    } else {
      REQUIRE(WIFSIGNALED(status));
    }
    // No process works on; then the lock is free.
    for (const std::string& p : points)
      for (int i = 0; i < 6000 && !workers_on(study, p).empty(); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    for (const std::string& p : points) {
      CHECK(workers_on(study, p).empty());
      CHECK_FALSE(fs::exists(study + "/" + p + "/result.json"));
    }
    const Result rest = run_program("study run --jobs 2 --threads 2 --out " + study);
    CAPTURE(rest.err);
    CHECK(rest.code == 0);
    for (const std::string& p : points) {
      CHECK(has(rest.err, "resuming " + study + "/" + p + " at step "));
      check_same_point(study + "/" + p, whole + "/" + p);
    }
  }
}

}  // namespace
}  // namespace nibble::testing
