#include "apps/study/recipe.hpp"

namespace nibble::apps {

const std::set<std::string>& varied_options() {
  static const std::set<std::string> kVaried = {"width", "precision", "seed"};
  return kVaried;
}

ConfigDifference recipe_difference(const std::string& recipe, const std::string& other,
                                   const std::set<std::string>& ignored) {
  std::set<std::string> names = ignored;
  names.insert({"data", "loader-threads", "keep", "save-every"});
  const ConfigDifference d = first_difference(recipe, other, names);
  if (d.name != "decoder" || (d.first != "'auto'" && d.second != "'auto'")) return d;
  names.insert(d.name);
  return first_difference(recipe, other, names);
}

}  // namespace nibble::apps
