// The version of the library.
#pragma once

namespace nibble {

/// "0.1.0", of the library that runs: with a shared one, it need not be the version of the headers.
const char* version();

}  // namespace nibble
