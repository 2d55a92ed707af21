// Ctrl-C and SIGTERM: the first asks the run to save and stop, the second stops at once.
#pragma once

namespace nibble::apps {

/// For every command: a file that would exceed the limit of the process (SIGXFSZ) is a DiskError, not a death.
void let_large_files_fail();
/// For runs: installs the handlers; SIGPIPE is ignored, so that a closed pipe costs no training step.
void install_signal_handlers();
/// True after the first SIGINT or SIGTERM.
bool stop_requested();

}  // namespace nibble::apps
