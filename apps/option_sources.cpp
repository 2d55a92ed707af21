#include "apps/option_sources.hpp"

#include <cctype>
#include <sstream>

#include "apps/config_file.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

void OptionSources::took(std::map<std::string, std::string> options_of_file) {
  options_of_file.merge(of_files_);
  of_files_ = std::move(options_of_file);
}

std::string OptionSources::named_in(const std::string& sentence, const std::set<std::string>& on_line) const {
  const std::string layers = layer_key("");
  for (const auto& [name, where] : of_files_)
    if (name.starts_with(layers) &&
        sentence.find("the layer '" + name.substr(layers.size()) + "'") != std::string::npos)
      return where;
  std::istringstream words(sentence);
  for (std::string word; words >> word;) {
    while (!word.empty() && std::ispunct(static_cast<unsigned char>(word.back())) != 0) word.pop_back();
    if (!word.starts_with("--")) continue;
    const auto found = of_files_.find(word.substr(2));
    if (found != of_files_.end() && !on_line.contains(found->first)) return found->second;
  }
  return "";
}

void OptionSources::check(const std::string& name, const std::set<std::string>& on_line,
                          const std::function<void()>& body) const {
  try {
    body();
  } catch (const UsageError& e) {
    const std::string where = named_in(name.empty() ? e.what() : "--" + name, on_line);
    if (where.empty()) throw;
    throw UsageError("{}: {}", where, e.what());
  }
}

}  // namespace nibble::apps
