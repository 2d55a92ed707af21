#include "apps/class_names.hpp"

#include <cstdint>
#include <nlohmann/json.hpp>

#include "engine/error.hpp"
#include "engine/utf8.hpp"
#include "nn/atomic_file.hpp"
#include "nn/json_text.hpp"

namespace nibble::apps {

namespace {

constexpr uint64_t kLongestFile = 32 << 20;  // 100,000 classes of 300 bytes
constexpr size_t kMostClasses = 100'000;
constexpr const char* kForms = R"(a name per line, ["a", "b"], or {"0": "a", "1": ["folder", "b"]})";

std::string name_of_json(const nlohmann::json& value, const std::string& source, size_t k) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_string())
    throw UsageError("{}: class {} is no name; write {}", source, k, kForms);
  return value[0].get<std::string>() + " " + value[1].get<std::string>();
}

std::vector<std::string> names_of_json(const nlohmann::json& all, const std::string& source) {
  if (!all.is_array() && !all.is_object())  // a discarded value, too
    throw UsageError("{} begins as JSON does but is not a list of names; write {}", source, kForms);
  std::vector<std::string> names;
  for (size_t k = 0; k < all.size(); ++k) {
    if (all.is_array()) {
      names.push_back(name_of_json(all[k], source, k));
      continue;
    }
    const auto entry = all.find(std::to_string(k));
    if (entry == all.end())
      throw UsageError("{} has {} classes but none of number {}; number them from 0 on", source, all.size(), k);
    names.push_back(name_of_json(*entry, source, k));
  }
  return names;
}

std::vector<std::string> names_of_lines(std::string_view text, const std::string& source) {
  std::vector<std::string> names;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (names.size() > kMostClasses)
      throw UsageError("{} has more than {} lines; give a name to each class", source, kMostClasses);
    names.emplace_back(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  while (!names.empty() && names.back().empty()) names.pop_back();
  return names;
}

}  // namespace

std::vector<std::string> parse_class_names(std::string_view text, const std::string& source) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const size_t begin = text.find_first_not_of(" \t\r\n");
  const bool json = begin != text.npos && (text[begin] == '[' || text[begin] == '{');
  std::vector<std::string> names =
      json ? names_of_json(parse_json_or_discard(text), source) : names_of_lines(text, source);
  for (size_t k = 0; k < names.size(); ++k)
    if (names[k].empty() || !is_utf8(names[k]))
      throw UsageError("{}: the name in {} {} is {}; write a name of UTF-8 text for every class", source,
                       json ? "class" : "line", json ? k : k + 1, names[k].empty() ? "empty" : "not UTF-8");
  return names;
}

std::vector<std::string> read_class_names(const std::filesystem::path& file, int64_t classes) {
  std::vector<std::string> names = parse_class_names(read_text_file(file, kLongestFile), file.string());
  if (std::ssize(names) != classes)
    throw UsageError("{} has {} names, the model {} classes; give a name to each class, in the order of its outputs",
                     file.string(), names.size(), classes);
  return names;
}

}  // namespace nibble::apps
