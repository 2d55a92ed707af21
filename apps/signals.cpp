#include "apps/signals.hpp"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string_view>

namespace nibble::apps {

namespace {

// Any thread may run the handler, and one signal may interrupt it for another.
std::atomic<int> requests = 0;
std::atomic<bool> save_request = false, told_to_stop = false;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

/// Unless the reader of stderr does not read: a handler that waits for it could not be told to stop.
void say(std::string_view text) {
  pollfd to = {.fd = 2, .events = POLLOUT, .revents = 0};
  if (poll(&to, 1, 0) != 1 || (to.revents & POLLOUT) == 0) return;
  [[maybe_unused]] const auto written = write(2, text.data(), text.size());
}

/// Only async-signal-safe calls.
void on_signal(int number) {
  const int interrupted_errno = errno;
  int none = 0;
  if (requests.compare_exchange_strong(none, 1)) {
    say("\nstopping after this step; a second Ctrl-C or SIGTERM stops at once without saving\n");
  } else if (number != SIGHUP) {  // a lost terminal says so twice: bash to its jobs, the kernel when bash has ended
    say("\nstopped at once; the newest checkpoint is the one on disk\n");
    _exit(128 + number);
  }
  errno = interrupted_errno;
}

void on_save_signal(int) {
  save_request = true;
}

/// Not counted among the requests: it may come before or after the SIGTERM that a whole group gets.
void on_stop_signal(int) {
  told_to_stop = true;
}

sigset_t handled_signals() {
  sigset_t all;
  sigemptyset(&all);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, kStopSignal}) sigaddset(&all, number);
  return all;
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
  action.sa_handler = on_save_signal;
  sigaction(SIGUSR1, &action, nullptr);
  action.sa_handler = on_stop_signal;
  sigaction(kStopSignal, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  const sigset_t handled = handled_signals();  // blocked by SignalsHeld where this process was started
  pthread_sigmask(SIG_UNBLOCK, &handled, nullptr);
}

bool stop_requested() {
  return requests > 0 || told_to_stop;
}

bool take_save_request() {
  return save_request.exchange(false);
}

SignalsHeld::SignalsHeld() {
  const sigset_t handled = handled_signals();
  pthread_sigmask(SIG_BLOCK, &handled, &before_);
}

SignalsHeld::~SignalsHeld() {
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace nibble::apps
