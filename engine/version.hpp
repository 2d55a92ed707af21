// The version of the library.
#pragma once
#include <string>

namespace nibble {

/// "0.1.0", of the library that runs: with a shared one, it need not be the version of the headers.
const char* version();

/// The version and the commit that was built, "0.1.0+83c0de2f31" or "0.1.0+83c0de2f31-dirty" (with changes since); the
/// version alone where the sources were in no repository. For notes next to results, not for files that are compared.
std::string build_version();

}  // namespace nibble
