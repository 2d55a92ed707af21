// Ctrl-C, SIGTERM and SIGHUP: the first asks the run to save and stop; a second Ctrl-C or SIGTERM stops at once.
// SIGUSR1: save and go on. SIGUSR2: save and stop, however often it comes.
#pragma once
#include <signal.h>

namespace nibble::apps {

/// For every command: a file that would exceed the limit of the process (SIGXFSZ) is a DiskError, not a death.
void let_large_files_fail();
/// For runs: installs the handlers, that of SIGHUP unless it is ignored (nohup); SIGPIPE is ignored, so that a closed
/// pipe costs no training step.
void install_signal_handlers();
/// True after the first of the three.
bool stop_requested();
/// True once after each SIGUSR1, or several of them.
bool take_save_request();

/// Asks a process of this program to save and stop, however often it comes and whatever came before: a second SIGTERM
/// would stop it at once, and a whole process group may have got one already.
inline constexpr int kStopSignal = SIGUSR2;

/// While it lives, the signals above wait, in this thread and in a process that it starts, until that one installs its
/// handlers: otherwise they would end it before that, or be lost between fork and exec.
class SignalsHeld {
 public:
  SignalsHeld();
  ~SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_;
};

}  // namespace nibble::apps
