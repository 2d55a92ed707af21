// Finds the folder of real images and other large test data that lies next to the source tree, if there is one.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "engine/env.hpp"

namespace nibble::testing {

/// Root of the source tree: NIBBLE_SOURCE_ROOT when the build defines it (a string), otherwise deduced from this file.
inline std::filesystem::path source_root() {
#ifdef NIBBLE_SOURCE_ROOT
  return NIBBLE_SOURCE_ROOT;
#else
  return std::filesystem::absolute(std::filesystem::path(__FILE__)).parent_path().parent_path();
#endif
}

/// The data folder: $NIBBLE_TEST_DATA, otherwise ../shared/data next to the source root; nothing when it is not there
/// or has no `part`. A test that gets nothing says MESSAGE("skipped: ...") and returns.
inline std::optional<std::filesystem::path> shared_data(const std::string& part) {
  const std::optional<std::string> chosen = env(EnvVar::kTestData);
  const std::filesystem::path root = chosen ? std::filesystem::path(*chosen) : source_root() / ".." / "shared" / "data";
  std::error_code error;
  if (!std::filesystem::is_directory(root / part, error)) return std::nullopt;
  return std::filesystem::weakly_canonical(root);
}

}  // namespace nibble::testing
