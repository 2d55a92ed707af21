// A run killed at any moment and resumed ends in the same bytes as one that ran through.
#include <doctest/doctest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "engine/rng.hpp"
#include "tests/apps/program.hpp"

namespace {

using nibble::testing::no_program;
using nibble::testing::program;
using nibble::testing::read_text;
using nibble::testing::run_program;
using nibble::testing::TemporaryFolder;

constexpr const char* kNetwork =
    " --arch resnet26 --width 0.1 --image-size 32 --batch-size 16 --shard 8 --epochs 40 --eval-every 10 --calibrate-at "
    "50 --save-every 2"
    " --precision w4a4-fl8 --quiet";

/// Starts the command, sends `signal_number` after `seconds` unless it ended before; returns the wait status.
int run_and_signal(const std::string& command, double seconds, int signal_number) {
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", ("exec " + command + " >/dev/null 2>&1").c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int status = 0;
  while (std::chrono::steady_clock::now() < end) {
    if (waitpid(child, &status, WNOHANG) == child) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  kill(child, signal_number);
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("a run killed with SIGKILL at 20 random moments and resumed ends in the same bytes") {
  if (no_program()) return;
  const TemporaryFolder folder("kill");
  const std::string data = folder / "data", whole = folder / "whole", killed = folder / "killed";
  REQUIRE(run_program("synth --out " + data + " --train 8 --val 2 --size 40").code == 0);
  const auto began = std::chrono::steady_clock::now();
  REQUIRE(run_program("train --data " + data + " --out " + whole + kNetwork).code == 0);
  const double length = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();

  nibble::Rng rng(1, nibble::rng_purpose::kTest);
  int kills = 0;
  bool done = false;
  for (int attempt = 0; attempt < 400 && !done; ++attempt) {
    // An unborn run is started, a born one resumed: config.resolved.toml is what makes a folder a run.
    const bool born = std::filesystem::exists(killed + "/config.resolved.toml");
    const std::string command =
        "'" + program().value() + "' train " +
        (born ? "--resume " + killed + " --quiet" : "--data " + data + " --out " + killed + kNetwork);
    // Until 20 kills have landed, moments lie within 7 % of the run, so that it cannot finish early.
    const double moment = kills < 20 ? 0.07 * length * static_cast<double>(rng.uniform()) : 60;
    const int status = run_and_signal(command, moment, SIGKILL);
    if (WIFSIGNALED(status)) {
      ++kills;
      continue;
    }
    REQUIRE(WEXITSTATUS(status) == 0);
    done = true;
  }
  REQUIRE(done);
  MESSAGE("killed ", kills, " times");
  CHECK(kills >= 20);
  const std::string last = "/checkpoints/step-000200.safetensors";
  const std::string expected = read_text(whole + last);
  REQUIRE(expected.size() > 1000);
  CHECK(read_text(killed + last) == expected);
}

TEST_CASE("SIGTERM saves, exits with 75 and names the resume command") {
  if (no_program()) return;
  const TemporaryFolder folder("term");
  const std::string data = folder / "data", run = folder / "run";
  REQUIRE(run_program("synth --out " + data + " --train 8 --val 2 --size 40").code == 0);
  const std::string command =
      "'" + program().value() + "' train --data " + data + " --out " + run +
      " --arch resnet26 --width 0.2 --image-size 32 --batch-size 16 --shard 8 --epochs 10000 --quiet";
  // The signal must land after the run began: wait for the config, then some steps.
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", ("exec " + command + " 2>'" + (folder / "err") + "' >/dev/null").c_str(),
          static_cast<char*>(nullptr));
    _exit(127);
  }
  for (int i = 0; i < 6000 && !std::filesystem::exists(run + "/metrics.jsonl"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK(read_text(folder / "err").find("nibble train --resume " + run) != std::string::npos);
  CHECK(std::filesystem::exists(run + "/latest"));
}
