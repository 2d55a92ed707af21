// Options of a command without the parser's headers, which cost each file that includes them 5 to 12 s to compile.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace nibble::apps {

/// An option that has been declared; each call changes it and returns it.
class DeclaredOption {
 public:
  explicit DeclaredOption(CLI::Option* option) : option_(option) {}
  DeclaredOption& required();
  /// The help shows the value that the variable has now.
  DeclaredOption& capture_default_str();
  /// One word may hold several values with this character between them.
  DeclaredOption& delimiter(char separator);
  /// Given several times, the last one counts.
  DeclaredOption& take_last();
  /// The heading of the help that it stands under.
  DeclaredOption& group(const std::string& heading);

 private:
  CLI::Option* option_;
};

/// Declares --name or, without dashes, a positional argument that sets `value`. Compiled for the types that
/// command_line.cpp lists at its end. UsageError with the option's name, when the line is parsed, for an empty value (a
/// shell's unset variable is no wish for the default), for what is not a number, and for a number that does not fit.
template <typename Value>
DeclaredOption add_option(CLI::App& app, const std::string& name, Value& value, const std::string& help);
/// Declares a switch.
void add_flag(CLI::App& app, const std::string& name, bool& value, const std::string& help);
/// Whether the command line has the option.
bool has_option(const CLI::App& app, const std::string& name);

/// What a command writes may replace what it has written before and nothing else: UsageError when `out` is a file that
/// is not empty and does not begin with `begins_with`, in either case of its letters. `kind` is what it should be:
/// "an HTML page". What is not a file at all is left to the writer.
void refuse_to_replace(const std::filesystem::path& out, std::string_view begins_with, std::string_view kind);

}  // namespace nibble::apps
