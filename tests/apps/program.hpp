// Runs the built program (NIBBLE_PROGRAM) in a shell and keeps what it printed.
#pragma once
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "tests/text.hpp"

namespace nibble::testing {

/// Path of the program under test; nothing when the variable is not set.
inline std::optional<std::string> program() {
  const char* path = std::getenv("NIBBLE_PROGRAM");
  if (path == nullptr || *path == '\0') return std::nullopt;
  return std::string(path);
}

/// True, with a message, when there is no program to run.
inline bool no_program() {
  if (program()) return false;
  MESSAGE("skipped: NIBBLE_PROGRAM does not name the built program");
  return true;
}

/// A folder of one test, removed at its end.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("nibble-" + name + "-" + std::to_string(getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Empty where there is no such file (yet).
inline std::string text_if_there(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// The test ends where there is no such file: two files that are missing are not equal.
inline std::string read_text(const std::string& path) {
  REQUIRE_MESSAGE(std::filesystem::is_regular_file(path), path);
  return text_if_there(path);
}

struct Result {
  int code = -1;  // exit status; 128 + the signal when one ended it
  std::string out, err;
  double cpu_seconds = 0;  // of the program and of what it started
  int64_t peak_kib = 0;    // resident, at most
};

/// `nibble <arguments>` as a shell would split them, with `settings` ("NIBBLE_THREADS=1") in its environment.
inline Result run_program(const std::string& arguments, const std::string& settings = "") {
  const TemporaryFolder folder("output");
  const std::string command = settings + " '" + program().value() + "' " + arguments + " </dev/null >'" +
                              (folder / "out") + "' 2>'" + (folder / "err") + "'";
  const pid_t shell = fork();
  if (shell == 0) {
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  REQUIRE(wait4(shell, &status, 0, &usage) == shell);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  Result r;
  r.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  r.peak_kib = usage.ru_maxrss;
  if (WIFEXITED(status)) r.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) r.code = 128 + WTERMSIG(status);
  r.out = text_if_there(folder / "out");  // not there where the arguments redirect it
  r.err = text_if_there(folder / "err");
  return r;
}

/// The same for a command that must succeed; one that does not ends the test, which shows its messages.
inline Result run_well(const std::string& arguments, const std::string& settings = "") {
  Result r = run_program(arguments, settings);
  INFO(arguments);
  INFO(r.err);
  REQUIRE(r.code == 0);
  return r;
}

/// The promise for every wrong input: the code, nothing on stdout, one line on stderr that begins with "error: ".
inline void check_refused(const std::string& arguments, int code, const std::string& part,
                          const std::string& settings = "") {
  CAPTURE(arguments);
  const Result r = run_program(arguments, settings);
  CAPTURE(r.err);
  CHECK(r.code == code);
  CHECK(r.out.empty());
  CHECK(r.err.rfind("error: ", 0) == 0);
  CHECK(std::count(r.err.begin(), r.err.end(), '\n') == 1);
  CHECK_MESSAGE(has(r.err, part), part);
}

/// Makes data (`per_class` training images of 32 px per class) at `data` and a calibrated tiny model from it at `run`,
/// for tests that need any model.
inline void train_tiny_run(const std::string& data, const std::string& run, int per_class = 2,
                           const std::string& more = "") {
  run_well("synth --out " + data + " --train " + std::to_string(per_class) + " --val 1 --size 32");
  run_well("train --data " + data + " --out " + run +
           " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --quiet " +
           more);
}

}  // namespace nibble::testing
