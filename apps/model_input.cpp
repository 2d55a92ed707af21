#include "apps/model_input.hpp"

#include <chrono>

#include "apps/console.hpp"
#include "data/loader.hpp"
#include "nn/run_folder.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble::apps {

RunModel runner_for(const Model& model) {
  if (!is_servable(model.network)) {
    auto weights = std::make_shared<StepWeights>(prepare_weights(model, Passes::kForward));
    return [&model, weights](const Tensor& images) { return evaluate_modules(model, *weights, images); };
  }
  auto executor = std::make_shared<Executor>(make_served(model));
  return [executor](const Tensor& images) { return executor->run(images); };
}

LoadedModel load_model(const std::string& path) {
  LoadedModel m;
  m.path = resolve_model_path(path).string();
  const SafetensorsFile file = SafetensorsFile::open(m.path);
  m.kind = kind_of(file);
  if (m.kind == ModelFileKind::kServed) {
    m.executor = std::make_shared<Executor>(load_served(file));
    m.class_names = m.executor->model().class_names;
    m.network = m.executor->model().network;
  } else if (m.kind == ModelFileKind::kCheckpoint) {
    m.checkpoint = load_checkpoint(file);
    m.class_names = m.checkpoint->class_names;
    m.network = m.checkpoint->model.network;
    if (!is_servable(m.network)) {
      auto model = std::make_shared<Model>(m.checkpoint->model);
      const RunModel run = runner_for(*model);
      m.run = [model, run](const Tensor& images) { return run(images); };
      return m;
    }
    m.executor = std::make_shared<Executor>(make_served(m.checkpoint->model));
  } else {
    throw ModelError("{} is a safetensors file of another program; start training from it with nibble train --weights",
                     m.path);
  }
  m.run = [executor = m.executor](const Tensor& images) { return executor->run(images); };
  return m;
}

EvaluationReport evaluate_dataset(const RunModel& run, const DatasetPtr& dataset, int64_t image_size,
                                  const EvaluationOptions& options) {
  EvalLoader loader({.dataset = dataset,
                     .batch_size = options.batch_size,
                     .image_size = static_cast<int>(image_size),
                     .workers = static_cast<int>(options.loader_threads),
                     .bad_images = options.strict_data ? BadImages::error : BadImages::skip,
                     .limit = options.limit});
  Evaluation evaluation;
  const auto began = std::chrono::steady_clock::now();
  int64_t done = 0;
  bool stopped = false;
  while (const std::optional<Batch> batch = loader.next()) {
    evaluation.add(run(batch->images), batch->labels);
    done += batch->size();
    stopped = options.stop != nullptr && options.stop();
    if (stopped) break;
    if (interactive()) progress(fmt::format("evaluating: {} of {} images", done, loader.images_total()));
  }
  std::set<std::string> own;
  std::set<std::string>& named = options.named != nullptr ? *options.named : own;
  for (const ImageNote& note : loader.skipped())
    if (named.insert(note.path).second) warn(fmt::format("skipped {}: {}", note.path, note.reason));
  for (const ImageNote& note : loader.damaged())
    if (named.insert(note.path).second) warn(fmt::format("{} is used although damaged: {}", note.path, note.reason));
  EvaluationReport report{.result = evaluation.result(),
                          .skipped = static_cast<int64_t>(loader.skipped().size()),
                          .damaged = static_cast<int64_t>(loader.damaged().size()),
                          .stopped = stopped};
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return report;
}

}  // namespace nibble::apps
