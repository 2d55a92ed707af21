#include "apps/model_input.hpp"

#include <fmt/format.h>

#include "apps/console.hpp"
#include "apps/training/run_note.hpp"
#include "nn/evaluate_modules.hpp"
#include "nn/run_folder.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble::apps {

namespace {

/// `model` must outlive the result and not change.
RunModel by_modules(const Model& model) {
  auto weights = std::make_shared<StepWeights>(prepare_weights(model, Passes::kForward));
  return [&model, weights](const Tensor& images) { return evaluate_modules(model, *weights, images); };
}

}  // namespace

EvalTransform eval_transform(const NetworkOptions& options) {
  return {.size = static_cast<int>(options.image_size), .crop_share = options.crop_share, .upright = options.upright};
}

RunModel runner_for(const Model& model) {
  if (!is_servable(model.network)) return by_modules(model);
  auto executor = std::make_shared<Executor>(make_served(model));
  return [executor](const Tensor& images) { return executor->run(images); };
}

Decoder decoder_for(const std::string& trained_with, const std::string& asked) {
  const Decoder wanted = decoder_from_name(asked),
                usable = wanted == Decoder::auto_ ? decoder_like(trained_with) : resolve(wanted);
  if (trained_with.empty() || trained_with == name_of(usable)) return usable;
  warn(
      fmt::format("the model's training images were read by the decoder {}, these are by {}{}: their pixels differ a "
                  "little, and with them the logits",
                  one_line(trained_with), name_of(usable),
                  wanted == Decoder::auto_ && usable == Decoder::stb ? ", the only one of this build" : ""));
  return usable;
}

const QuantizedNetwork& LoadedModel::model() const {
  if (checkpoint) return checkpoint->model;
  return executor->model();
}

LoadedModel load_model(const std::string& path, RunBy by) {
  LoadedModel m;
  m.path = resolve_model_path(path).string();
  const SafetensorsFile file = SafetensorsFile::open(m.path);
  m.kind = kind_of(file);
  if (m.kind == ModelFileKind::kServed) {
    if (by == RunBy::kModules)
      throw UsageError("{} is a served file, which the executor alone runs; give --by modules a checkpoint", m.path);
    m.executor = std::make_shared<Executor>(load_served(file));
    m.class_names = m.executor->model().class_names;
    const auto& notes = m.executor->model().notes;
    if (const auto noted = notes.find("decoder"); noted != notes.end()) m.decoder = noted->second;
  } else if (m.kind == ModelFileKind::kCheckpoint) {
    m.checkpoint = load_checkpoint(file);
    m.class_names = m.checkpoint->class_names;
    m.decoder = noted_decoder(*m.checkpoint);
    if (by == RunBy::kModules || !is_servable(m.network())) {
      auto model = std::make_shared<Model>(m.checkpoint->model);
      const RunModel run = by_modules(*model);
      m.run = [model, run](const Tensor& images) { return run(images); };
      return m;
    }
    m.executor = std::make_shared<Executor>(make_served(m.checkpoint->model));
  } else {
    throw ModelError(
        "{} is a safetensors file from another program; make a served model of it with nibble quantize, or start "
        "training "
        "from it with nibble train --weights",
        m.path);
  }
  m.run = [executor = m.executor](const Tensor& images) { return executor->run(images); };
  return m;
}

}  // namespace nibble::apps
