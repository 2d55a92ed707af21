#include "engine/env.hpp"

#include <cstdlib>

namespace nibble {

std::optional<std::string> env(EnvVar variable) {
  constexpr const char* kNames[] = {"NIBBLE_ISA",     "NIBBLE_THREADS", "NIBBLE_LOG",
                                    "NIBBLE_PROFILE", "TERM",           "NIBBLE_TEST_DATA"};
  const char* value = std::getenv(kNames[static_cast<int>(variable)]);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

}  // namespace nibble
