// The options of a network alone, as the command line and the config of a run give them; for commands that do not train
// one.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "apps/option_sources.hpp"
#include "apps/options.hpp"
#include "nn/import/weights_file.hpp"

namespace nibble::apps {

/// Holds the options that its fields point to, so it is neither copied nor moved.
class NetworkArguments {
 public:
  explicit NetworkArguments(const NetworkOptions& defaults = {});
  NetworkArguments(const NetworkArguments&) = delete;
  NetworkArguments& operator=(const NetworkArguments&) = delete;

  /// Declares --config, --classes and every option of networks as --name under a heading of the help.
  void declare(CLI::App& app, const std::string& heading);
  /// Fills from --config what the command line did not set (a run's own config serves: its other keys are checked and
  /// do not matter here), and checks all; UsageError, with file:line for what the file set.
  void resolve();
  /// For options that neither command line nor --config gives, in place of their defaults: what a trained model's
  /// weights fit (architecture, width, sizes, classes, padding, rounding of weights). Before resolve().
  void take_from_weights(const NetworkOptions& trained);
  /// The form of its quantizers: granularity, how scales pass a sum, scheme.
  void take_quantizers(const NetworkOptions& trained);
  /// The classes alone of that.
  void take_classes(int64_t classes);
  /// Whether the command line has any of them.
  bool given() const;

  NetworkOptions options;

 private:
  void read();

  CLI::App* app_ = nullptr;
  NetworkTexts texts_;
  std::vector<OptionField> fields_;
  OptionSources sources_;
  std::string config_;
  bool classes_known_ = false;  // from the weights
};

/// --weights-key and --weights-prefix.
void declare_weights_choice(CLI::App& app, WeightsChoice& choice);
/// UsageError for a choice without --weights.
void require_weights_of_choice(const std::string& weights, const WeightsChoice& choice);

}  // namespace nibble::apps
