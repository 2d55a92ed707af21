#include "apps/training/run_note.hpp"

#include <nlohmann/json.hpp>

#include "apps/config_file.hpp"
#include "apps/console.hpp"
#include "engine/utf8.hpp"
#include "nn/json_text.hpp"
#include "nn/network_json.hpp"

namespace nibble::apps {

const std::set<std::string>& changeable_on_resume() {
  static const std::set<std::string> names = {"data", "loader-threads", "low-memory", "keep", "save-every", "decoder"};
  return names;
}

RunNote note_of(const RunData& data, const std::string& config_text) {
  return {
      .decoder = data.decoder, .options = without_options(config_text, changeable_on_resume()), .images = data.digest};
}

std::string to_json(const RunNote& note) {
  nlohmann::ordered_json j;
  j["decoder"] = note.decoder;
  j["options"] = note.options;
  j["images"] = note.images;
  j["best_top1"] = note.best_top1;
  j["best_step"] = note.best_step;
  return json_text(j);
}

RunNote parse_run_note(const std::string& text, const std::string& source) {
  try {
    const nlohmann::json j = parse_json(text);
    const std::optional<int64_t> best_step = whole_number(j.at("best_step"));
    if (!best_step || *best_step < -1)
      throw ModelError(
          "{}: nibble.run cannot be read (best_step is not a step); the checkpoint was made by another program",
          source);
    return {j.at("decoder"), j.value("options", ""), j.value("images", ""), j.at("best_top1"), *best_step};
  } catch (const nlohmann::json::exception& e) {
    throw ModelError("{}: nibble.run cannot be read ({}); the checkpoint was made by another program", source,
                     shortened(e.what()));
  }
}

std::string noted_decoder(const Checkpoint& checkpoint) {
  try {
    return parse_run_note(checkpoint.run, "").decoder;
  } catch (const ModelError&) {
    return "";
  }
}

void require_same_run(const Checkpoint& held, const RunNote& held_note, const std::string& path,
                      const ResumedRun& now) {
  const TrainOptions& o = now.options;
  const Dataset& train = *now.data.train;
  if (held_note.decoder != now.note.decoder)
    throw UsageError("{} was trained with the decoder {}, this is {}: their pixels differ; resume with --decoder {}",
                     now.folder, held_note.decoder, now.note.decoder, held_note.decoder);
  if (held.class_names != train.class_names())
    throw DataError(
        "{} was trained on other classes than {}/train holds ({} of them, now {}); resume with the same data",
        now.folder, o.data, held.class_names.size(), train.num_classes());
  if (!held_note.images.empty() && held_note.images != now.note.images)
    throw DataError("{} was trained on other images than {}/train holds ({} now); resume with the same data",
                    now.folder, o.data, grouped(train.size()));
  const NetworkOptions& network = held.model.network.options;
  if (network_options_to_json(network) != network_options_to_json(o.network))
    throw ModelError(
        "{} holds another network ({} x{} {}, {} classes) than {}/config.resolved.toml asks for ({} x{} {}, {} "
        "classes); put the run's own checkpoint back",
        path, network.arch, network.width, network.precision, network.classes, now.folder, o.network.arch,
        o.network.width, o.network.precision, o.network.classes);
  if (const ConfigDifference d = first_difference(held_note.options, now.note.options, {});
      !held_note.options.empty() && !d.name.empty())
    throw UsageError("{}/config.resolved.toml says {} = {}, the run began with {}; put it back, or start a new run",
                     now.folder, d.name, d.second, d.first);
}

}  // namespace nibble::apps
