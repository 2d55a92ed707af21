#include "apps/network_arguments.hpp"

#include "apps/command_line.hpp"
#include "apps/config_file.hpp"
#include "apps/console.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

NetworkArguments::NetworkArguments(const NetworkOptions& defaults)
    : options(defaults), texts_(texts_of(defaults)), fields_(network_fields(options, texts_)) {}

void NetworkArguments::declare(CLI::App& app, const std::string& heading) {
  app_ = &app;
  add_option(app, "--config", config_,
             "TOML file with these options and per-layer precisions; of a run's config only the network counts")
      .group(heading);
  add_option(app, "--classes", options.classes, "classes of the model").capture_default_str().group(heading);
  declare_fields(app, fields_, heading);
}

void NetworkArguments::take_from_weights(const NetworkOptions& trained) {
  const std::set<std::string> given = given_fields(*app_, fields_);
  const auto take = [&](const char* name, auto NetworkOptions::*field) {
    if (!given.contains(name)) options.*field = trained.*field;
  };
  const NetworkTexts own = texts_of(trained);
  const auto take_text = [&](const char* name, std::string NetworkTexts::*field) {
    if (!given.contains(name)) texts_.*field = own.*field;
  };
  take("arch", &NetworkOptions::arch);
  take("width", &NetworkOptions::width);
  take("image-size", &NetworkOptions::image_size);
  take("same-padding", &NetworkOptions::same_padding);
  take("signed-block-input", &NetworkOptions::signed_block_input);
  take("bf16-weights", &NetworkOptions::bf16_weights);
  take("crop-share", &NetworkOptions::crop_share);
  take("upright", &NetworkOptions::upright);
  take_text("pixel-mean", &NetworkTexts::pixel_mean);
  take_text("pixel-std", &NetworkTexts::pixel_std);
  take_classes(trained.classes);
}

void NetworkArguments::take_quantizers(const NetworkOptions& trained) {
  const std::set<std::string> given = given_fields(*app_, fields_);
  const NetworkTexts own = texts_of(trained);
  const auto take = [&](const char* name, std::string NetworkTexts::*field) {
    if (!given.contains(name)) texts_.*field = own.*field;
  };
  take("granularity", &NetworkTexts::granularity);
  take("per-channel-by", &NetworkTexts::per_channel_by);
  take("quant-scheme", &NetworkTexts::quant_scheme);
}

void NetworkArguments::take_classes(int64_t classes) {
  classes_known_ = true;
  if (!has_option(*app_, "--classes")) options.classes = classes;
}

void declare_weights_choice(CLI::App& app, WeightsChoice& choice) {
  add_option(app, "--weights-key", choice.key,
             "of a .pth checkpoint with several state_dicts: the one to take, such as state_dict_ema (a/b: b in a)");
  add_option(app, "--weights-prefix", choice.prefix,
             "what the names of the network's tensors begin with, such as model.; the others are left out");
}

void require_weights_of_choice(const std::string& weights, const WeightsChoice& choice) {
  if (weights.empty() && !(choice.key.empty() && choice.prefix.empty()))
    throw UsageError("--weights-key and --weights-prefix choose from the file of --weights; name it");
}

bool NetworkArguments::given() const {
  return !config_.empty() || has_option(*app_, "--classes") || !given_fields(*app_, fields_).empty();
}

void NetworkArguments::read() {
  TrainOptions ignored;
  ignored.limit_classes = 1000;  // not 0, which only a file that says so has
  std::vector<OptionField> fields = fields_;
  for (const OptionField& f : training_fields(ignored)) fields.push_back(f);
  fields.push_back({"data", "", &ignored.data});
  sources_.took(read_config(config_, fields, given_fields(*app_, fields_), options.overrides));
  if (has_option(*app_, "--classes")) return;
  if (ignored.limit_classes != 0 && sources_.contains("classes")) options.classes = ignored.limit_classes;
  if (ignored.limit_classes == 0 && !classes_known_)
    warn(fmt::format(
        "{} says classes = 0 (all of the data set, however many), so the {} of ImageNet are taken; use --classes N",
        config_, grouped(options.classes)));
}

void NetworkArguments::resolve() {
  if (!config_.empty()) read();
  std::set<std::string> on_line = given_fields(*app_, fields_);
  if (has_option(*app_, "--classes")) on_line.insert("classes");
  sources_.check("precision", on_line, [&] { parse_precision(options.precision); });
  sources_.check("", on_line, [&] {
    resolve_texts(texts_, options);
    build_resnet(options);
  });
}

}  // namespace nibble::apps
