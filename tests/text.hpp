// Texts in tests: what one holds, and how often.
#pragma once
#include <cstddef>
#include <string_view>

namespace nibble::testing {

inline bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// How often `part` is in `text`, also where one overlaps the next.
inline size_t count_of(std::string_view text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace nibble::testing
