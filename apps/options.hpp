// Options by name: one table serves the command line, the config file and the resolved config.
#pragma once
#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "nn/train_options.hpp"

namespace CLI {
class App;
}

namespace nibble::apps {

struct OptionField {
  std::string name;  // without dashes: "batch-size"
  std::string help;
  std::variant<std::string*, int64_t*, uint64_t*, double*, bool*> value;
};

/// Enumerations are parsed late, so that command line and file give the same sentences: the text forms live here.
struct NetworkTexts {
  std::string granularity = "per_channel";
  std::string per_channel_by = "fold";
  std::string quant_mode = "integer";
  std::string quant_scheme = "paper";
  std::string pixel_mean = "0.485,0.456,0.406";
  std::string pixel_std = "0.229,0.224,0.225";
};

/// The names of those that `options` has.
NetworkTexts texts_of(const NetworkOptions& options);

/// The options that describe a network, bound to `options` and `texts`.
std::vector<OptionField> network_fields(NetworkOptions& options, NetworkTexts& texts);
/// The options of a training run besides the network's.
std::vector<OptionField> training_fields(TrainOptions& options);
/// Turns the texts into the options' enumerations; UsageError.
void resolve_texts(const NetworkTexts& texts, NetworkOptions& options);

/// "0.485,0.456,0.406".
std::string colours_text(const std::array<double, 3>& rgb);

/// "layer1.0.conv1 w8a8, layer3.0.conv2 bf16"; empty for none.
std::string overrides_text(const std::vector<PrecisionOverride>& overrides);

/// "resnet50 x1 w4a4-fl8", with its overrides in brackets after it: "resnet50 x1 w4a4-fl8 (fc bf16)".
std::string network_text(const NetworkOptions& options);

/// Declares every field as --name on the command line.
void declare_fields(CLI::App& app, const std::vector<OptionField>& fields, const std::string& group);

/// Names of the fields that the command line has set.
std::set<std::string> given_fields(const CLI::App& app, const std::vector<OptionField>& fields);

/// Declares --threads (default: NIBBLE_THREADS, else all cores).
void declare_threads(CLI::App& app, int64_t& threads);
/// Applies the choice of --threads.
void apply_threads(int64_t threads);

/// The known name that `wrong` was meant to be: one that it begins or is a word of, one that other programs call by
/// that name, or the nearest within an edit or a third of its letters; empty when nothing is near.
std::string nearest_name(const std::string& wrong, const std::vector<std::string>& known);

}  // namespace nibble::apps
