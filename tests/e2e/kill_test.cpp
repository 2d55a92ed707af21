// A run killed or interrupted at any moment and resumed ends in the same bytes, and in the same log, as one that ran
// through.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <vector>

#include "engine/rng.hpp"
#include "tests/apps/child.hpp"
#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;

using Clock = std::chrono::steady_clock;
using Log = std::vector<nlohmann::json>;

/// Five steps per epoch on 80 images, calibrated after three tenths.
std::string steps_to_kill(int64_t epochs) {
  const auto text = [](int64_t n) { return std::to_string(n); };
  return " --arch resnet26 --width 0.1 --image-size 32 --batch-size 16 --shard 8 --epochs " + text(epochs) +
         " --eval-every " + text(epochs / 4) + " --calibrate-at " + text(epochs * 3 / 2) +
         " --save-every 2 --precision w4a4-fl8 --quiet";
}
/// Twelve steps per epoch on 100 images; lines of the log at steps 10, 12, 20, 24, ...
constexpr const char* kSmall = " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --quiet";

/// `nibble train`, for a shell that becomes it.
std::string train(const std::string& arguments, const std::string& err = "/dev/null") {
  return "exec '" + program().value() + "' train " + arguments + " </dev/null >/dev/null 2>'" + err + "'";
}

/// The lines of the log without the keys `without` and what a clock says.
Log comparable_log(const std::string& run, const std::vector<std::string>& without = {}) {
  Log lines = metrics_of(run);
  for (nlohmann::json& line : lines) {
    for (const char* key : {"images_per_second", "data_wait", "eval/images_per_second"}) line.erase(key);
    for (const std::string& key : without) line.erase(key);
  }
  return lines;
}

}  // namespace

TEST_CASE("a run killed with SIGKILL at 20 random moments (6 where not thorough) and resumed ends in the same bytes") {
  if (no_program()) return;
  const int64_t attempts = thorough() ? 20 : 6, epochs = attempts, steps = 5 * epochs;
  const std::string options = steps_to_kill(epochs);
  const TemporaryFolder folder("kill");
  const std::string data = synthetic_data(folder, {.train = 8, .val = 2, .size = 40}), whole = folder / "whole",
                    killed = folder / "killed";
  const auto began = Clock::now();
  train_run(data, whole, options);
  const double length = std::chrono::duration<double>(Clock::now() - began).count();

  nibble::Rng rng(1, nibble::rng_purpose::kTest);
  bool to_its_end = false;
  for (int64_t kills = 0; kills < attempts && !to_its_end; ++kills) {
    // An unborn run is started, a born one resumed: config.resolved.toml is what makes a folder a run.
    const bool born = std::filesystem::exists(killed + "/config.resolved.toml");
    const std::string command =
        train(born ? "--resume " + killed + " --quiet" : "--data " + data + " --out " + killed + options);
    // However fast the machine is now, the steps do not end before the last kill; however slow it is, every third
    // attempt lasts to the step that is its share of them, so that the kills lie all over the run.
    const int64_t before = newest_step(killed), share = 4 * (kills + 1);
    const bool to_its_share = kills % 3 == 2;
    const double latest = 4 * length / static_cast<double>(attempts);
    const auto moment = Clock::now() + std::chrono::duration<double>(latest * static_cast<double>(rng.uniform()));
    const int status = run_and_signal(command, SIGKILL, [&] {
      const int64_t newest = newest_step(killed);
      return to_its_share ? newest >= std::max(share, before + 1) : Clock::now() >= moment || newest >= share;
    });
    INFO("attempt ", kills, " ended by itself, with exit code ", WEXITSTATUS(status));
    if (WIFSIGNALED(status)) continue;
    REQUIRE(WEXITSTATUS(status) == 0);
    REQUIRE(2 * kills >= attempts);  // the test was held up while the run went on to its end
    to_its_end = true;
  }
  run_well("train --resume " + killed + " --quiet");
  const std::set<int64_t> resumed = resumed_steps(killed);
  MESSAGE("went on from ", resumed.size(), " different steps");
  CHECK_MESSAGE(resumed.size() >= (to_its_end ? 1 : 2),
                "nearly every attempt began at step 0: nothing was shown about resuming");
  const std::string expected = read_text(whole + "/" + checkpoint_of(steps));
  REQUIRE(expected.size() > 1000);
  CHECK(read_text(killed + "/" + checkpoint_of(steps)) == expected);
  // A line's averages begin at the checkpoint when that lies between two lines.
  const std::vector<std::string> averages = {"train/loss", "train/top1"};
  CHECK(comparable_log(killed, averages) == comparable_log(whole, averages));
}

TEST_CASE("the log of a run that was killed after each of its checkpoints and resumed is that of one that was not") {
  if (no_program()) return;
  const TemporaryFolder folder("kill-log");
  const std::string data = synthetic_data(folder, {.train = 10, .val = 2}), whole = folder / "whole",
                    killed = folder / "killed";
  const std::string options = std::string(kSmall) + " --epochs 5 --calibrate-at 20";
  train_run(data, whole, options);
  int kills = 0;
  for (bool done = false; !done;) {
    const int64_t before = newest_step(killed);
    const std::string command =
        train(before > 0 ? "--resume " + killed + " --quiet" : "--data " + data + " --out " + killed + options);
    const int status = run_and_signal(command, SIGKILL, [&] { return newest_step(killed) > before; });
    done = !WIFSIGNALED(status);
    if (done) REQUIRE(WEXITSTATUS(status) == 0);
    kills += done ? 0 : 1;
  }
  MESSAGE("killed ", kills, " times");
  CHECK(kills > 0);
  const Log expected = comparable_log(whole);
  CHECK(expected.size() == 15);  // two lines and an evaluation per epoch
  CHECK(comparable_log(killed) == expected);
  CHECK(std::filesystem::read_symlink(killed + "/best") == std::filesystem::read_symlink(whole + "/best"));
  CHECK(read_text(killed + "/" + checkpoint_of(60)) == read_text(whole + "/" + checkpoint_of(60)));
}

TEST_CASE("SIGUSR1 saves the step, and the run continues to the same bytes") {
  if (no_program()) return;
  const TemporaryFolder folder("usr1");
  const std::string data = synthetic_data(folder, {.train = 10, .val = 2}), whole = folder / "whole",
                    run = folder / "run", err = folder / "err";
  const std::string options = std::string(kSmall) + " --steps 100 --save-every 1000000 --eval-every 0";
  train_run(data, whole, options);
  std::set<std::string> saved;
  for (int attempt = 0; attempt < 10 && saved.size() < 2; ++attempt) {  // one: the run was over before the signal came
    std::filesystem::remove_all(run);
    saved.clear();
    const int status = run_and_signal(train("--data " + data + " --out " + run + options, err), SIGUSR1,
                                      [&] { return !text_if_there(run + "/metrics.jsonl").empty(); });
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    for (const auto& file : std::filesystem::directory_iterator(run + "/checkpoints"))
      saved.insert("checkpoints/" + file.path().filename().string());
  }
  REQUIRE(saved.size() == 2);
  CHECK(*saved.begin() >= checkpoint_of(10));
  CHECK(*saved.rbegin() == checkpoint_of(100));
  CHECK(read_text(run + "/" + checkpoint_of(100)) == read_text(whole + "/" + checkpoint_of(100)));
}

TEST_CASE("under nohup a lost terminal changes nothing") {
  if (no_program()) return;
  const TemporaryFolder folder("nohup");
  const std::string data = synthetic_data(folder), run = folder / "run";
  bool sent = false;
  for (int attempt = 0; attempt < 10 && !sent; ++attempt) {  // not sent: the run was over before the signal came
    std::filesystem::remove_all(run);
    Child child("trap '' HUP; " + train("--data " + data + " --out " + run + kSmall + " --steps 100 --eval-every 0"));
    REQUIRE(child.reaches([&] { return !text_if_there(run + "/metrics.jsonl").empty(); }));
    sent = newest_step(run) < 90 && child.send(SIGHUP);
    const int status = child.wait();
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(newest_step(run) == 100);
  }
  CHECK(sent);
}

TEST_CASE("SIGUSR2 saves and stops however often it comes") {
  if (no_program()) return;
  const TemporaryFolder folder("usr2");
  const std::string data = synthetic_data(folder), run = folder / "run";
  Child child(train("--data " + data + " --out " + run + kSmall + " --steps 100000 --eval-every 0"));
  REQUIRE(child.reaches([&] { return !text_if_there(run + "/metrics.jsonl").empty(); }));
  for (int i = 0; i < 3; ++i) child.send(SIGUSR2);
  const int status = child.wait();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK(newest_step(run) == metrics_of(run).back().at("step").get<int64_t>());
}

TEST_CASE(
    "a disk that is full ends a training with its own exit code, and the run continues where there is room again") {
  if (no_program()) return;
  const TemporaryFolder folder("full");
  const std::string data = synthetic_data(folder), whole = folder / "whole", run = folder / "run", err = folder / "err";
  const std::string options =
      std::string(kSmall) + " --save-every 1 --keep 99 --calibrate-at 4 --eval-every 0 --steps 8";
  train_run(data, whole, options);
  const auto size = [&](int64_t step) { return std::filesystem::file_size(whole + "/" + checkpoint_of(step)); };
  REQUIRE(size(5) > size(3) + 2048);  // calibration adds bounds
  const std::string limit = std::to_string((size(3) + size(5)) / 2 / 512);
  Child child("ulimit -f " + limit + "; " + train("--data " + data + " --out " + run + options, err));
  const int status = child.wait();
  const std::string said = text_if_there(err);
  CAPTURE(said);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
  CHECK(has(said, "would exceed the size limit"));
  CHECK(newest_step(run) == 3);
  for (const auto& file : std::filesystem::recursive_directory_iterator(run))
    CHECK_FALSE(has(file.path().filename().string(), ".nibble-tmp-"));
  run_well("train --resume " + run + " --quiet");
  CHECK(read_text(run + "/" + checkpoint_of(8)) == read_text(whole + "/" + checkpoint_of(8)));
  CHECK(comparable_log(run) == comparable_log(whole));
}

TEST_CASE("SIGTERM saves the step, exits with 75 and names the command that continues to the same bytes and log") {
  if (no_program()) return;
  const TemporaryFolder folder("term");
  const std::string data = synthetic_data(folder, {.train = 10, .val = 2}), whole = folder / "whole",
                    run = folder / "run", err = folder / "err";
  const std::string options = std::string(kSmall) + " --steps 100 --save-every 1000000 --eval-every 0";
  train_run(data, whole, options);
  int status = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    std::filesystem::remove_all(run);
    status = run_and_signal(train("--data " + data + " --out " + run + options, err), SIGTERM,
                            [&] { return !text_if_there(run + "/metrics.jsonl").empty(); });
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) != 0) break;  // 0: the run was over before the signal came
  }
  const std::string said = read_text(err), before_step = "interrupted at step ";
  CAPTURE(said);
  REQUIRE(WEXITSTATUS(status) == 75);
  REQUIRE(has(said, before_step));
  const int64_t step = std::stoll(said.substr(said.find(before_step) + before_step.size()));
  CHECK(has(said, before_step + std::to_string(step) + " and saved; continue with: nibble train --resume " + run));
  CHECK(step >= 10);
  CHECK(std::filesystem::read_symlink(run + "/latest") == checkpoint_of(step));
  std::set<std::string> saved;
  for (const auto& file : std::filesystem::directory_iterator(run + "/checkpoints"))
    saved.insert("checkpoints/" + file.path().filename().string());
  CHECK(saved == std::set<std::string>{checkpoint_of(step)});

  run_well("train --resume " + run + " --quiet");
  if (step < 100) CHECK(resumed_steps(run) == std::set<int64_t>{step});
  const std::string expected = read_text(whole + "/" + checkpoint_of(100));
  REQUIRE(expected.size() > 1000);
  CHECK(read_text(run + "/" + checkpoint_of(100)) == expected);

  // The interruption adds a line, unless it fell on one; that line and the next one share the average.
  Log log = comparable_log(run);
  const Log lines = comparable_log(whole);
  const auto number = [](const nlohmann::json& line, const char* key) { return line.at(key).get<double>(); };
  const auto at_step = [&](const nlohmann::json& line) { return line.at("step") == step; };
  if (std::none_of(lines.begin(), lines.end(), at_step)) {
    const auto added = std::find_if(log.begin(), log.end(), at_step);
    REQUIRE(added != log.end());
    const auto i = added - log.begin();
    REQUIRE(log.size() == lines.size() + 1);
    const nlohmann::json first = *added, &line = lines[static_cast<size_t>(i)];
    nlohmann::json& second = *log.erase(added);
    const double from = i == 0 ? 0 : number(lines[static_cast<size_t>(i) - 1], "step"), to = number(line, "step");
    for (const char* key : {"train/loss", "train/top1"}) {
      const double sum = number(first, key) * (static_cast<double>(step) - from) +
                         number(second, key) * (to - static_cast<double>(step));
      CHECK(sum / (to - from) == doctest::Approx(number(line, key)));
      second[key] = line.at(key);
    }
  }
  CHECK(log == lines);
}

TEST_CASE(
    "Ctrl-C and a lost terminal save the step as SIGTERM does; a second signal of either kind stops at once, with its "
    "own exit code") {
  if (no_program()) return;
  const TemporaryFolder folder("interrupt");
  const std::string data = synthetic_data(folder), err = folder / "err";
  // Steps long enough for a second signal to come within one.
  const std::string long_steps =
      " --arch resnet26 --width 0.5 --image-size 96 --batch-size 16 --shard 16 --steps 50 --eval-every 0 --quiet";
  for (const int second : {SIGINT, SIGTERM}) {
    const int code = 128 + second;
    CAPTURE(code);
    const std::string run = folder / std::to_string(code);
    int status = 0;
    for (int attempt = 0; attempt < 10; ++attempt) {
      std::filesystem::remove_all(run);
      Child child(train("--data " + data + " --out " + run + long_steps, err));
      REQUIRE(child.reaches([&] { return std::filesystem::exists(run + "/machine.json"); }));
      child.send(SIGINT);
      REQUIRE(child.reaches([&] { return has(text_if_there(err), "stopping after this step"); }));
      child.send(second);
      status = child.wait();
      REQUIRE(WIFEXITED(status));
      if (WEXITSTATUS(status) != 75) break;  // 75: the step was over before the second signal came
    }
    CAPTURE(text_if_there(err));
    CHECK(WEXITSTATUS(status) == code);
    CHECK(has(read_text(err), "stopped at once; the newest checkpoint is the one on disk"));
    CHECK(newest_step(run) == 0);
  }
  for (const int once : {SIGINT, SIGHUP}) {
    CAPTURE(once);
    const std::string run = folder / ("once-" + std::to_string(once));
    Child child(train("--data " + data + " --out " + run + long_steps, err));
    REQUIRE(child.reaches([&] { return std::filesystem::exists(run + "/machine.json"); }));
    child.send(once);
    if (once == SIGHUP) {  // a lost terminal: one from the shell, one from the kernel
      REQUIRE(child.reaches([&] { return has(text_if_there(err), "stopping after this step"); }));
      child.send(once);
    }
    const int status = child.wait();
    CAPTURE(text_if_there(err));
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 75);
    CHECK(newest_step(run) >= 1);
  }
}
TEST_CASE("a second signal stops at once where no one reads what is said about the first") {
  if (no_program()) return;
  const TemporaryFolder folder("unread");
  const std::string data = synthetic_data(folder), run = folder / "run", err = folder / "err";
  REQUIRE(mkfifo(err.c_str(), 0600) == 0);
  const int reader = open(err.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  REQUIRE(reader >= 0);
  while (write(reader, "full", 4) == 4) {
  }
  Child child(train("--data " + data + " --out " + run + kSmall + " --steps 100000 --eval-every 0", err));
  REQUIRE(child.reaches([&] { return std::filesystem::exists(run + "/machine.json"); }));
  // Again and again: signals that arrive before the process gets to run are delivered as one.
  const Clock::time_point patience = Clock::now() + std::chrono::seconds(60);
  Clock::time_point next = Clock::now();
  REQUIRE_FALSE(child.reaches([&] {
    if (Clock::now() >= next) {
      child.send(SIGTERM);
      next = Clock::now() + std::chrono::milliseconds(200);
    }
    return Clock::now() > patience;
  }));
  const int status = child.wait();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 143);
  close(reader);
}
