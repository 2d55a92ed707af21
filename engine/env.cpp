#include "engine/env.hpp"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace nibble {

namespace {

// No default: a compiler that warns names the value that has no name.
const char* name_of(EnvVar variable) {
  switch (variable) {
    case EnvVar::kIsa:
      return "NIBBLE_ISA";
    case EnvVar::kThreads:
      return "NIBBLE_THREADS";
    case EnvVar::kLog:
      return "NIBBLE_LOG";
    case EnvVar::kProfile:
      return "NIBBLE_PROFILE";
    case EnvVar::kTerm:
      return "TERM";
    case EnvVar::kTestData:
      return "NIBBLE_TEST_DATA";
  }
  return "";
}

}  // namespace

std::optional<std::string> env(EnvVar variable) {
  const char* value = std::getenv(name_of(variable));
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

std::vector<std::string> environment_without(EnvVar variable) {
  const std::string begins = std::string(name_of(variable)) + "=";
  std::vector<std::string> all;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    if (std::string_view(*entry).substr(0, begins.size()) != begins) all.emplace_back(*entry);
  return all;
}

}  // namespace nibble
