// The options of a training run as the command line and a config file give them; shared by train and study.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "apps/options.hpp"
#include "apps/presets.hpp"

namespace nibble::apps {

/// Holds the options that its fields point to, so it is neither copied nor moved.
class TrainArguments {
 public:
  TrainArguments();
  TrainArguments(const TrainArguments&) = delete;
  TrainArguments& operator=(const TrainArguments&) = delete;

  /// Declares --preset, and every option of networks and runs as --name, except those in `without`.
  void declare(CLI::App& app, const std::set<std::string>& without = {});
  /// Names of the options that the command line has set, "preset" among them.
  std::set<std::string> given() const;
  /// Fills from --preset, if there is one, what the command line left alone; comes before read(), whose file wins.
  /// UsageError naming the presets.
  void read_preset();
  /// Fills from a config file what the command line left alone; UsageError (see read_config).
  void read(const std::string& file);
  /// The same from a text that errors call `source`.
  void read_text(const std::string& text, const std::string& source);
  /// Turns texts into enumerations and checks ranges; UsageError. With a preset, a learning rate that neither the
  /// command line nor a file gave follows from the batch size.
  void resolve();
  /// All options as TOML, except those in `without`; read() makes the same options of it.
  std::string config_text(const std::set<std::string>& without = {}) const;
  /// The name of the preset that was read, and its options with the values they have now: "paper: epochs = 250, ...";
  /// empty without one.
  std::string preset_summary() const;

  TrainOptions options;

 private:
  CLI::App* app_ = nullptr;
  NetworkTexts texts_;
  std::string preset_name_;
  const Preset* preset_ = nullptr;  // once it is read
  std::set<std::string> of_preset_, of_files_;
  std::vector<OptionField> data_, network_, training_, all_;
};

}  // namespace nibble::apps
