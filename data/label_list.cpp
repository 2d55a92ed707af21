#include "data/label_list.hpp"

#include <fmt/format.h>

#include <array>
#include <system_error>

#include "engine/error.hpp"
#include "engine/utf8.hpp"

namespace nibble {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kBlanks = " \t\r\v\f";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  return begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

std::array<fs::path, 3> places(const fs::path& root) {
  fs::path split = root;
  if (!split.has_filename() || split.filename() == "." || split.filename() == "..") {
    std::error_code ignored;  // a folder that is not there has no list either
    split = fs::weakly_canonical(fs::absolute(root, ignored), ignored);
  }
  const std::string name = split.filename().string();
  const fs::path beside = split.parent_path();
  return {root / (name + "_annotations.txt"), beside / (name + ".txt"), beside / ("LOC_" + name + "_solution.csv")};
}

struct Fields {
  std::string_view file, class_name;
};

/// `boxes`: the competition's lists have a class and its boxes, with blanks between, as their second field.
Fields fields_of(std::string_view line, bool boxes) {
  constexpr size_t kNone = std::string_view::npos;
  const char separator = line.find('\t') != kNone ? '\t' : line.find(',') != kNone ? ',' : ' ';
  const size_t end = separator == ' ' ? line.find_first_of(kBlanks) : line.find(separator);
  if (end == kNone) return {line, ""};
  const std::string_view rest = trimmed(line.substr(end + 1));
  if (separator == ' ' && rest.find_first_of(kBlanks) != kNone) return {line, ""};  // two names, but where is the cut?
  return {trimmed(line.substr(0, end)), trimmed(rest.substr(0, boxes ? rest.find(' ') : rest.find(separator)))};
}

bool is_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.front() != '"' &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

}  // namespace

std::optional<fs::path> label_list_of(const fs::path& root) {
  for (const fs::path& place : places(root)) {
    std::error_code ignored;  // what cannot be looked at is not a list; without any, the folder is refused
    if (fs::is_regular_file(place, ignored)) return place;
  }
  return std::nullopt;
}

std::string label_list_names(const fs::path& root) {
  const std::array<fs::path, 3> all = places(root);
  return fmt::format("{}, {} or {}", all[1].string(), all[0].string(), all[2].string());
}

std::vector<LabelledFile> parse_label_list(std::string_view text, const std::string& source, size_t most) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf", kHeader = "ImageId,PredictionString";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  bool boxes = false;
  std::vector<LabelledFile> all;
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (number == 1 && line == kHeader) boxes = true;
    if (line.empty() || (number == 1 && boxes)) continue;
    const auto [file, class_name] = fields_of(line, boxes);
    if (!is_name(file) || !is_name(class_name) || !is_utf8(class_name))
      throw DataError(
          "{} line {} is '{}', not a file's name and its class with a tab, a comma or (where neither has blanks) a "
          "blank "
          "between, and no quotes; correct it or remove the line",
          source, number, shortened(line, 80));
    if (all.size() == most)
      throw DataError("{} line {} is one more than the {} images that are there; remove what is not there or twice",
                      source, number, most);
    all.push_back({.file = std::string(file) + (is_image_name(file) ? "" : ".JPEG"),
                   .class_name = std::string(class_name),
                   .line = number});
  }
  return all;
}

bool is_image_name(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0) return false;
  std::string extension(name.substr(dot + 1));
  for (char& c : extension)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return extension == "jpg" || extension == "jpeg" || extension == "png";
}

}  // namespace nibble
