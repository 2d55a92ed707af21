// Ctrl-C and SIGTERM: the first asks the run to save and stop, the second stops at once.
#pragma once

namespace nibble::apps {

/// Installs the handlers; SIGXFSZ and SIGPIPE are ignored, so that a full disk or a closed pipe is an error, not a
/// death.
void install_signal_handlers();
/// True after the first SIGINT or SIGTERM.
bool stop_requested();

}  // namespace nibble::apps
