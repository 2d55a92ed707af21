// A command that runs alongside the test and gets signals, and how far the run that it writes has come.
#pragma once
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>

#include "tests/apps/program.hpp"

namespace nibble::testing {

/// A shell command that runs alongside the test; killed, if need be, at the end of its scope.
class Child {
 public:
  explicit Child(const std::string& command) : id_(fork()) {
    if (id_ != 0) return;
    signal(SIGHUP, SIG_DFL);  // ignored where the tests run under nohup
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (ended_) return;
    send(SIGKILL);
    wait();
  }
  /// Waits until it is `due`; false when the command has ended and it is not.
  bool reaches(const std::function<bool()>& due) {
    while (!due()) {
      ended_ = waitpid(id_, &status_, WNOHANG) == id_;
      if (ended_) return due();  // its last word may be the one
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  /// Whether it was still there to get it.
  bool send(int signal_number) {
    if (!ended_) ended_ = waitpid(id_, &status_, WNOHANG) == id_;
    if (!ended_) kill(id_, signal_number);
    return !ended_;
  }
  /// Waits for its end; returns the wait status.
  int wait() {
    if (!ended_) waitpid(id_, &status_, 0);
    ended_ = true;
    return status_;
  }

 private:
  pid_t id_;
  int status_ = 0;
  bool ended_ = false;
};

/// Starts the command, sends `signal_number` as soon as it is `due` unless it ended before; returns the wait status.
inline int run_and_signal(const std::string& command, int signal_number, const std::function<bool()>& due) {
  Child child(command);
  if (child.reaches(due)) child.send(signal_number);
  return child.wait();
}

/// Step of the newest checkpoint; 0 when there is none.
inline int64_t newest_step(const std::string& run) {
  int64_t newest = 0;
  std::error_code missing;
  for (const auto& file : std::filesystem::directory_iterator(run + "/checkpoints", missing)) {
    const std::string name = file.path().filename();
    if (name.starts_with("step-") && name.ends_with(".safetensors"))
      newest = std::max<int64_t>(newest, std::stoll(name.substr(5)));
  }
  return newest;
}

/// The steps after the first that sessions of the run began at.
inline std::set<int64_t> resumed_steps(const std::string& run) {
  std::set<int64_t> steps;
  const nlohmann::json note = nlohmann::json::parse(read_text(run + "/machine.json"));
  for (const nlohmann::json& session : note.at("sessions"))
    if (session.at("first_step") > 0) steps.insert(session.at("first_step").get<int64_t>());
  return steps;
}

}  // namespace nibble::testing
