// The options of a training run as the command line and a config file give them; shared by train and study.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "apps/option_sources.hpp"
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
  /// Names of the options that the command line has set, "preset" among them; none without declare().
  std::set<std::string> given() const;
  /// Fills from --preset, if there is one, what the command line left alone; comes before read(), whose file wins.
  /// UsageError naming the presets.
  void read_preset();
  /// Fills from a config file what the command line left alone; UsageError (see read_config).
  void read(const std::string& file);
  /// The same from a text that errors call `source`.
  void read_text(const std::string& text, const std::string& source);
  /// Turns texts into enumerations and checks ranges; UsageError, with file:line for what a file set. With a preset, a
  /// learning rate and a shard that neither the command line nor a file gave follow from the batch size.
  void resolve();
  /// All options as TOML, except those in `without`; read() makes the same options of it.
  std::string config_text(const std::set<std::string>& without = {}) const;
  /// The name of the preset that was read, those of its options that are in use with their values, and the names of
  /// those that the command line or a file gave instead: "paper: epochs = 250, ...; given instead: shard"; empty
  /// without one.
  std::string preset_summary() const;
  /// The same: {"name": "paper", "options": {"epochs": 250, ...}, "overridden": ["shard"]}; null without one.
  nlohmann::ordered_json preset_json() const;

  /// Given by the command line or a file.
  bool is_given(const std::string& name) const;

  TrainOptions options;

 private:
  CLI::App* app_ = nullptr;
  NetworkTexts texts_;
  std::string preset_name_;
  const Preset* preset_ = nullptr;             // once it is read
  std::set<std::string> of_preset_, instead_;  // instead_: of the preset's, once they are resolved
  OptionSources sources_;
  std::vector<OptionField> data_, network_, training_, all_;
};

/// Says so where the learning rate is the default: that is for training from nothing.
void warn_of_rate_for_nothing(const TrainArguments& arguments);

}  // namespace nibble::apps
