// Where options came from: the file and line of each, for sentences that refuse one.
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>

namespace nibble::apps {

class OptionSources {
 public:
  /// What read_config returned; an option in two files is set by the one read last.
  void took(std::map<std::string, std::string> options_of_file);
  void forget(const std::string& name) { of_files_.erase(name); }
  bool contains(const std::string& name) const { return of_files_.contains(name); }

  /// Runs a check; its UsageError gets the file and line that set the option --`name` (empty: the layer, or else
  /// the first --option, that its sentence names), unless the command line did: `on_line` has the names that it gave.
  void check(const std::string& name, const std::set<std::string>& on_line, const std::function<void()>& body) const;

 private:
  /// The file and line, or empty.
  std::string named_in(const std::string& sentence, const std::set<std::string>& on_line) const;

  std::map<std::string, std::string> of_files_;  // name of an option, or layer_key() -> file:line
};

}  // namespace nibble::apps
