#include "apps/command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/error.hpp"

namespace nibble::apps {

DeclaredOption& DeclaredOption::required() {
  option_->required();
  return *this;
}

DeclaredOption& DeclaredOption::capture_default_str() {
  option_->capture_default_str();
  return *this;
}

DeclaredOption& DeclaredOption::delimiter(char separator) {
  option_->delimiter(separator);
  return *this;
}

DeclaredOption& DeclaredOption::take_last() {
  option_->take_last();
  return *this;
}

DeclaredOption& DeclaredOption::group(const std::string& heading) {
  option_->group(heading);
  return *this;
}

namespace {

/// The type of one value: of a list's element, or of what may be missing.
template <typename T>
struct One {
  using Type = T;
};
template <typename T>
struct One<std::vector<T>> {
  using Type = T;
};
template <typename T>
struct One<std::optional<T>> {
  using Type = T;
};

/// To the parser 010 is 8, as it is to C.
std::string without_leading_zeros(const std::string& text) {
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  if (text.find_first_not_of("0123456789", sign) != std::string::npos) return text;
  const size_t first = std::min(text.find_first_not_of('0', sign), text.size() - 1);
  return text.substr(0, sign) + text.substr(first);
}

/// The parser takes any number, at the nearest end of its range when it lies beyond, and wraps -1 to 2^64 - 1.
template <typename Number>
void check_number(const std::string& name, const std::string& text) {
  using Limits = std::numeric_limits<Number>;
  if (std::isspace(static_cast<unsigned char>(text[0])) != 0)  // strtod and strtoll pass over blanks
    throw UsageError("{} is '{}', which begins with a blank; use a number", name, text);
  char* end = nullptr;
  errno = 0;
  if constexpr (std::is_floating_point_v<Number>) {
    const double v = std::strtod(text.c_str(), &end);
    if (*end != '\0') throw UsageError("{} is '{}'; use a number", name, text);
    if (errno == ERANGE && (v == 0 || std::isinf(v)))
      throw UsageError("{} is {}; use a number that a double can hold", name, text);
  } else if constexpr (std::is_unsigned_v<Number>) {
    std::strtoull(text.c_str(), &end, 0);
    if (*end != '\0' || errno == ERANGE || text.find('-') != std::string::npos)
      throw UsageError("{}: {} is not a whole number from 0 to {}", name, text, Limits::max());
  } else {
    const long long v = std::strtoll(text.c_str(), &end, 0);
    if (*end != '\0') throw UsageError("{} is '{}'; use a whole number", name, text);
    if (errno == ERANGE || v < Limits::min() || v > Limits::max())
      throw UsageError("{} is {}; use a whole number from {} to {}", name, text, Limits::min(), Limits::max());
  }
}

}  // namespace

template <typename Value>
DeclaredOption add_option(CLI::App& app, const std::string& name, Value& value, const std::string& help) {
  CLI::Option* option = app.add_option(name, value, help);
  using Element = typename One<Value>::Type;
  // Runs on each element before it is converted, and returns what to convert.
  const std::function<std::string(std::string)> checked = [option, name](std::string text) {
    if (text.empty())
      throw UsageError("{} is empty, as from a variable that is not set; give it a value{}", name,
                       option->get_required() ? "" : " or leave it out");
    if constexpr (std::is_integral_v<Element>) text = without_leading_zeros(text);
    if constexpr (!std::is_same_v<Element, std::string>) check_number<Element>(name, text);
    return text;
  };
  option->transform(checked);
  return DeclaredOption(option);
}

void add_flag(CLI::App& app, const std::string& name, bool& value, const std::string& help) {
  app.add_flag(name, value, help);
}

bool has_option(const CLI::App& app, const std::string& name) {
  return app.count(name) > 0;
}
#define NIBBLE_OPTION_TYPE(Value) \
  template DeclaredOption add_option(CLI::App&, const std::string&, Value&, const std::string&)
NIBBLE_OPTION_TYPE(std::string);
NIBBLE_OPTION_TYPE(int);
NIBBLE_OPTION_TYPE(int64_t);
NIBBLE_OPTION_TYPE(uint64_t);
NIBBLE_OPTION_TYPE(double);
NIBBLE_OPTION_TYPE(std::vector<std::string>);
NIBBLE_OPTION_TYPE(std::vector<uint64_t>);
NIBBLE_OPTION_TYPE(std::vector<double>);
NIBBLE_OPTION_TYPE(std::optional<int64_t>);
NIBBLE_OPTION_TYPE(std::optional<double>);
#undef NIBBLE_OPTION_TYPE

void refuse_to_replace(const std::filesystem::path& out, std::string_view begins_with, std::string_view kind) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(out, none) || std::filesystem::file_size(out, none) == 0) return;
  std::string start(begins_with.size(), '\0');
  std::ifstream in(out, std::ios::binary);
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(in.gcount()));
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  if (std::equal(start.begin(), start.end(), begins_with.begin(), begins_with.end(),
                 [&](char a, char b) { return lower(a) == lower(b); }))
    return;
  throw UsageError("{} exists and is not {}, so it is not replaced; choose another file", out.string(), kind);
}

}  // namespace nibble::apps
