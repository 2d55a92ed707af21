#include "apps/train_arguments.hpp"

#include <algorithm>
#include <sstream>

#include "apps/command_line.hpp"
#include "apps/config_file.hpp"

namespace nibble::apps {

namespace {

std::vector<OptionField> leave_out(std::vector<OptionField> fields, const std::set<std::string>& without) {
  std::erase_if(fields, [&](const OptionField& f) { return without.contains(f.name); });
  return fields;
}

}  // namespace

TrainArguments::TrainArguments()
    : data_{{"data", "image folder: DIR/train/<class>/*, DIR/val/<class>/*", &options.data}},
      network_(network_fields(options.network, texts_)),
      training_(training_fields(options)) {
  for (const auto* group : {&network_, &training_, &data_}) all_.insert(all_.end(), group->begin(), group->end());
}

void TrainArguments::declare(CLI::App& app, const std::set<std::string>& without) {
  app_ = &app;
  add_option(app, "--preset", preset_name_,
             "paper: the published recipe and arithmetic (which is not served) for all options that neither the "
             "command line nor --config gives; its learning rate is 0.1 for 256 images of --batch-size");
  declare_fields(app, leave_out(data_, without), "Options");
  declare_fields(app, leave_out(network_, without), "Network");
  declare_fields(app, leave_out(training_, without), "Training");
}

std::set<std::string> TrainArguments::given() const {
  std::set<std::string> names = given_fields(*app_, all_);
  if (!preset_name_.empty()) names.insert("preset");
  return names;
}

void TrainArguments::read_preset() {
  if (preset_name_.empty()) return;
  preset_ = &preset_named(preset_name_);
  of_preset_ = parse_config(preset_->options, "--preset " + preset_name_, all_, given(), options.network.overrides);
  of_preset_.insert("lr");
}

void TrainArguments::read(const std::string& file) {
  of_files_.merge(
      read_config(file, all_, app_ != nullptr ? given() : std::set<std::string>(), options.network.overrides));
}

void TrainArguments::read_text(const std::string& text, const std::string& source) {
  of_files_.merge(
      parse_config(text, source, all_, app_ != nullptr ? given() : std::set<std::string>(), options.network.overrides));
}

void TrainArguments::resolve() {
  if (preset_ != nullptr && !given().contains("lr") && !of_files_.contains("lr"))
    options.lr = preset_->lr_of_256 * static_cast<double>(options.batch_size) / 256;
  resolve_texts(texts_, options.network);
  options.validate();
}

std::string TrainArguments::config_text(const std::set<std::string>& without) const {
  return write_config(leave_out(all_, without), options.network.overrides);
}

std::string TrainArguments::preset_summary() const {
  if (preset_ == nullptr) return "";
  std::istringstream lines(write_config(all_, {}));
  std::string summary;
  for (std::string line; std::getline(lines, line);)
    if (of_preset_.contains(line.substr(0, line.find(" = ")))) summary += (summary.empty() ? ": " : ", ") + line;
  return preset_->name + summary;
}

}  // namespace nibble::apps
