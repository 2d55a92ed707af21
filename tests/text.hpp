// Texts in tests: what one holds.
#pragma once
#include <string_view>

namespace nibble::testing {

inline bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace nibble::testing
