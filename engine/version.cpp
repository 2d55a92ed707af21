#include "engine/version.hpp"

#include "engine/revision.hpp"

namespace nibble {

const char* version() {
  return NIBBLE_VERSION;
}

std::string build_version() {
  const std::string revision = NIBBLE_REVISION;
  return revision == "unknown" ? version() : version() + ("+" + revision);
}

}  // namespace nibble
