#include "apps/train_arguments.hpp"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/command_line.hpp"
#include "apps/config_file.hpp"
#include "apps/console.hpp"
#include "data/decode.hpp"

namespace nibble::apps {

namespace {

std::vector<OptionField> leave_out(std::vector<OptionField> fields, const std::set<std::string>& without) {
  std::erase_if(fields, [&](const OptionField& f) { return without.contains(f.name); });
  return fields;
}

}  // namespace

TrainArguments::TrainArguments()
    : data_{{"data", "image folder: DIR/train/<class>/*, DIR/val/<class>/*; Tiny ImageNet or CIFAR as they come",
             &options.data}},
      network_(network_fields(options.network, texts_)),
      training_(training_fields(options)) {
  for (const auto* group : {&network_, &training_, &data_}) all_.insert(all_.end(), group->begin(), group->end());
}

void TrainArguments::declare(CLI::App& app, const std::set<std::string>& without) {
  app_ = &app;
  add_option(app, "--preset", preset_name_,
             "paper: the published recipe and arithmetic (which is not served) for all options that neither the "
             "command line nor --config gives; its learning rate is 0.1 for 256 images of --batch-size, its shard the "
             "largest divisor of --batch-size up to 64");
  declare_fields(app, leave_out(data_, without), "Options");
  declare_fields(app, leave_out(network_, without), "Network");
  declare_fields(app, leave_out(training_, without), "Training");
}

std::set<std::string> TrainArguments::given() const {
  if (app_ == nullptr) return {};
  std::set<std::string> names = given_fields(*app_, all_);
  if (!preset_name_.empty()) names.insert("preset");
  return names;
}

bool TrainArguments::is_given(const std::string& name) const {
  return sources_.contains(name) || given().contains(name);
}

void TrainArguments::read_preset() {
  if (preset_name_.empty()) return;
  preset_ = &preset_named(preset_name_);
  for (const auto& [name, where] :
       parse_config(preset_->options, "--preset " + preset_name_, all_, given(), options.network.overrides))
    of_preset_.insert(name);
  of_preset_.insert({"lr", "shard"});
}

void TrainArguments::read(const std::string& file) {
  sources_.took(read_config(file, all_, given(), options.network.overrides));
}

void TrainArguments::read_text(const std::string& text, const std::string& source) {
  sources_.took(parse_config(text, source, all_, given(), options.network.overrides));
}

void TrainArguments::resolve() {
  // Steps override epochs, but those of a file do not override the command line's epochs.
  if (given().contains("epochs") && !given().contains("steps")) {
    options.steps = 0;
    sources_.forget("steps");
  }
  if (preset_ != nullptr && !is_given("lr"))
    options.lr = preset_->lr_of_256 * static_cast<double>(options.batch_size) / 256;
  if (preset_ != nullptr && !is_given("shard") && options.batch_size > 0)
    options.shard = preset_->shard_of(options.batch_size);
  std::copy_if(of_preset_.begin(), of_preset_.end(), std::inserter(instead_, instead_.end()),
               [&](const std::string& name) { return is_given(name); });
  // Their sentences also serve other places, and do not name the option.
  const std::set<std::string> on_line = given();
  sources_.check("precision", on_line, [&] { parse_precision(options.network.precision); });
  sources_.check("decoder", on_line, [&] { decoder_from_name(options.decoder); });
  sources_.check("", on_line, [&] {
    resolve_texts(texts_, options.network);
    texts_ = texts_of(options.network);  // one way of writing each value, by which configs are compared
    options.validate();
    build_resnet(options.network);
  });
}

std::string TrainArguments::config_text(const std::set<std::string>& without) const {
  return write_config(leave_out(all_, without), options.network.overrides);
}

std::string TrainArguments::preset_summary() const {
  if (preset_ == nullptr) return "";
  const nlohmann::ordered_json preset = preset_json();
  std::istringstream lines(write_config(all_, {}));
  std::string summary, instead;
  for (std::string line; std::getline(lines, line);)
    if (preset["options"].contains(line.substr(0, line.find(" = ")))) summary += (summary.empty() ? ": " : ", ") + line;
  for (const auto& name : preset["overridden"])
    instead += (instead.empty() ? "; given instead: " : ", ") + name.get<std::string>();
  return preset_->name + summary + instead;
}

nlohmann::ordered_json TrainArguments::preset_json() const {
  if (preset_ == nullptr) return {};
  nlohmann::ordered_json j;
  j["name"] = preset_->name;
  j["options"] = nlohmann::ordered_json::object();
  j["overridden"] = nlohmann::ordered_json::array();
  for (const OptionField& field : all_) {
    if (!of_preset_.contains(field.name)) continue;
    if (instead_.contains(field.name))
      j["overridden"].push_back(field.name);
    else
      std::visit([&](const auto* value) { j["options"][field.name] = *value; }, field.value);
  }
  return j;
}

void warn_of_rate_for_nothing(const TrainArguments& arguments) {
  if (arguments.is_given("lr") || !arguments.preset_json().is_null()) return;
  warn(fmt::format("--lr is {}, the rate for training from nothing; with trained weights begin with a tenth of it",
                   arguments.options.lr));
}

}  // namespace nibble::apps
