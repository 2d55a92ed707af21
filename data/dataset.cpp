#include "data/dataset.hpp"

#include <algorithm>
#include <system_error>

#include "engine/error.hpp"

namespace nibble {

uint64_t Dataset::content_mark(int64_t index) const {
  std::error_code ignored;
  return std::filesystem::file_size(path(index), ignored);
}

void require_same_classes(const Dataset& a, const Dataset& b, const std::string& name_a, const std::string& name_b) {
  const auto &x = a.class_names(), &y = b.class_names();
  const auto [i, j] = std::mismatch(x.begin(), x.end(), y.begin(), y.end());
  if (i == x.end() && j == y.end()) return;
  const bool only_a = i != x.end() && (j == y.end() || *i < *j);
  throw DataError("class '{}' is in {} but not in {}: both need the same classes", only_a ? *i : *j,
                  only_a ? name_a : name_b, only_a ? name_b : name_a);
}

}  // namespace nibble
