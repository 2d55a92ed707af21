// Ctrl-C, SIGTERM and SIGHUP: the first asks the run to save and stop; a second Ctrl-C or SIGTERM stops at once.
// SIGUSR1: save and go on.
#pragma once

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

}  // namespace nibble::apps
