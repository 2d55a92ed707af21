// Environment variables: the only door to getenv, and the list of all of them.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace nibble {

/// NIBBLE_ISA      scalar|avx2|avxvnni|avx512|avx512vnni|avx512bf16|amx: use exactly this kernel level; read once at
///                 first use.
/// NIBBLE_THREADS  default of --threads; read by the program's option parser.
/// NIBBLE_LOG      quiet|info|debug: quiet leaves only warnings and errors on stderr; debug puts the time before
///                 every line and says more; read by the program at start.
/// NIBBLE_PROFILE  path of a Chrome trace to write at exit; read by the program at start.
/// TERM            unset or "dumb": no redrawn line.
/// NIBBLE_TEST_DATA  folder of the large test data; read by the tests that need it.
enum class EnvVar { kIsa, kThreads, kLog, kProfile, kTerm, kTestData };

std::optional<std::string> env(EnvVar variable);

/// All of this process's environment but one variable, as "NAME=value", for a process that it starts.
std::vector<std::string> environment_without(EnvVar variable);

}  // namespace nibble
