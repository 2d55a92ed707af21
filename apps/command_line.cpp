#include "apps/command_line.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

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

template <typename Value>
DeclaredOption add_option(CLI::App& app, const std::string& name, Value& value, const std::string& help) {
  CLI::Option* option = app.add_option(name, value, help);
  if constexpr (std::is_same_v<Value, uint64_t> || std::is_same_v<Value, std::vector<uint64_t>>)
    option->check([](const std::string& text) {  // the parser wraps -1 to 2^64 - 1
      return text.find('-') != std::string::npos ? text + " is no whole number from 0" : std::string();
    });
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

}  // namespace nibble::apps
