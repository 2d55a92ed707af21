#include "apps/train_arguments.hpp"

#include <algorithm>

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
  declare_fields(app, leave_out(data_, without), "Options");
  declare_fields(app, leave_out(network_, without), "Network");
  declare_fields(app, leave_out(training_, without), "Training");
}

std::set<std::string> TrainArguments::given() const {
  return given_fields(*app_, all_);
}

void TrainArguments::read(const std::string& file) {
  read_config(file, all_, app_ != nullptr ? given() : std::set<std::string>(), options.network.overrides);
}

void TrainArguments::read_text(const std::string& text, const std::string& source) {
  parse_config(text, source, all_, app_ != nullptr ? given() : std::set<std::string>(), options.network.overrides);
}

void TrainArguments::resolve() {
  resolve_texts(texts_, options.network);
  options.validate();
}

std::string TrainArguments::config_text(const std::set<std::string>& without) const {
  return write_config(leave_out(all_, without), options.network.overrides);
}

}  // namespace nibble::apps
