#include "apps/signals.hpp"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

namespace nibble::apps {

namespace {

volatile sig_atomic_t requests = 0;

/// Only async-signal-safe calls.
void on_signal(int number) {
  const sig_atomic_t before = requests;
  // A terminal that is lost says so twice within a millisecond: bash to its jobs, the kernel when bash has ended.
  if (number == SIGHUP && before > 0) return;
  requests = before + 1;
  if (before == 0) {
    constexpr char kText[] = "\nstopping after this step; once more stops at once without saving\n";
    const int interrupted_errno = errno;
    [[maybe_unused]] const auto written = write(2, kText, sizeof kText - 1);
    errno = interrupted_errno;
    return;
  }
  constexpr char kText[] = "\nstopped at once; the newest checkpoint is the one on disk\n";
  [[maybe_unused]] const auto written = write(2, kText, sizeof kText - 1);
  _exit(128 + number);
}

}  // namespace

void let_large_files_fail() {
  signal(SIGXFSZ, SIG_IGN);
}

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  struct sigaction hangup = {};  // a lost terminal or connection; ignored already where nohup started us
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

bool stop_requested() {
  return requests > 0;
}

}  // namespace nibble::apps
