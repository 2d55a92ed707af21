#include "apps/study/point_processes.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>

#include "apps/console.hpp"
#include "apps/signals.hpp"
#include "engine/env.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

constexpr const char* kThisProgram = "/proc/self/exe";  // also where its file was replaced meanwhile

std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> all;
  for (std::string& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

[[noreturn]] void refuse_to_start(const std::string& point, int error_number) {
  throw Error(ExitCode::kFailed, fmt::format("cannot start a process for {}: {}; use fewer --jobs", point,
                                             std::generic_category().message(error_number)));
}

/// Between fork and exec: other threads of this process may hold any lock, so only what is async-signal-safe.
[[noreturn]] void become(char* const* words, char* const* environment, int said, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, kStopSignal);                                      // a SIGTERM might be the second one
  if (getppid() != parent) _exit(static_cast<int>(ExitCode::kInterrupted));  // it died before we asked
  const int nothing = open("/dev/null", O_RDWR);
  const bool ready = nothing >= 0 && dup2(nothing, 0) == 0 && dup2(nothing, 1) == 1 && dup2(said, 2) == 2;
  if (ready) execve(kThisProgram, words, environment);
  _exit(127);
}

}  // namespace

PointProcesses::~PointProcesses() {
  stop();
  while (!all_.empty())
    if (const EndedProcess ended = wait(); !ended.error.empty()) warn(ended.point + ": " + ended.error);
}

void PointProcesses::start(const std::string& point, int slot, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {"nibble"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = environment_without(EnvVar::kProfile);  // the trace is this process's own
  const std::vector<char*> word_pointers = pointers_to(words), environment_pointers = pointers_to(environment);
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) refuse_to_start(point, errno);
  FileDescriptor reading(ends[0]), writing(ends[1]);
  signal(SIGCHLD, SIG_DFL);  // a process that ignores it, as this one may have been told to, never learns how they end
  const SignalsHeld held;
  const pid_t parent = getpid(), id = fork();
  if (id == 0) become(word_pointers.data(), environment_pointers.data(), writing.get(), parent);
  if (id < 0) refuse_to_start(point, errno);
  fcntl(reading.get(), F_SETFL, O_NONBLOCK);
  all_.push_back({.point = point, .slot = slot, .id = id, .said = std::move(reading), .rest = {}, .error = {}});
}

void PointProcesses::show(Process& p, std::string line) {
  constexpr std::string_view kError = "error: ", kMoment = "2026-11-27T14:30:05Z ";
  if (verbosity() == Verbosity::kDebug && line.size() >= kMoment.size() && line[kMoment.find('Z')] == 'Z')
    line.erase(0, kMoment.size());  // the line gets one here
  if (line.starts_with(kError))
    p.error = line.substr(kError.size());
  else if (!line.empty())
    warn(p.point + ": " + line);
}

bool PointProcesses::listen(Process& p) {
  std::array<char, 4096> piece;
  for (;;) {
    const ssize_t n = read(p.said.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    if (n == 0) {
      if (p.rest.empty()) return false;
      p.rest += '\n';
    }
    p.rest.append(piece.data(), static_cast<size_t>(std::max<ssize_t>(n, 0)));
    for (size_t end = p.rest.find('\n'); end != std::string::npos; end = p.rest.find('\n')) {
      show(p, p.rest.substr(0, end));
      p.rest.erase(0, end + 1);
    }
    if (n == 0) return false;
  }
}

void PointProcesses::send(int signal_number) const {
  for (const Process& p : all_) kill(p.id, signal_number);
}

void PointProcesses::stop() {
  if (!stopped_) send(kStopSignal);
  stopped_ = true;
}

EndedProcess PointProcesses::wait() {
  for (;;) {
    if (stop_requested()) stop();
    if (take_save_request()) send(SIGUSR1);
    std::vector<pollfd> watched;
    for (const Process& p : all_) watched.push_back({.fd = p.said.get(), .events = POLLIN, .revents = 0});
    poll(watched.data(), watched.size(), 100);  // ms until a signal to this process is seen, at most
    for (size_t i = 0; i < all_.size(); ++i) {
      if (watched[i].revents == 0 || listen(all_[i])) continue;
      Process ended = std::move(all_[i]);
      all_.erase(all_.begin() + static_cast<std::ptrdiff_t>(i));
      int status = 0;
      while (waitpid(ended.id, &status, 0) < 0 && errno == EINTR) {
      }
      return {.point = std::move(ended.point),
              .slot = ended.slot,
              .code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
              .error = std::move(ended.error)};
    }
  }
}

}  // namespace nibble::apps
