#include "engine/version.hpp"

namespace nibble {

const char* version() {
  return NIBBLE_VERSION;
}

}  // namespace nibble
