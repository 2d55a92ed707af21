#include "apps/study/measure.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "apps/console.hpp"
#include "apps/dataset_evaluation.hpp"
#include "apps/inference_probe.hpp"
#include "apps/model_input.hpp"
#include "apps/report/run_report.hpp"
#include "apps/signals.hpp"
#include "data/subset.hpp"
#include "engine/cpu.hpp"
#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "engine/version.hpp"
#include "nn/run_folder.hpp"
#include "nn/runtime/served_file.hpp"
#include "nn/study/point_layers.hpp"

namespace nibble::apps {

namespace {

constexpr size_t kKeptSamples = 200;  // of training: what a chart shows; ten thousand steps would be 1 MiB a point

uint64_t write_served(const Checkpoint& checkpoint, const std::string& run) {
  ServedModel served = make_served(checkpoint.model);
  served.class_names = checkpoint.class_names;
  served.notes["steps"] = std::to_string(checkpoint.steps_done);
  return save_served(std::filesystem::path(run) / "served.safetensors", served).file_bytes;
}

Accuracy accuracy_of(const EvaluationResult& r) {
  return {.top1 = r.top1_percent(), .top5 = r.top5_percent(), .loss = r.loss, .images = r.images};
}

/// By its step, not by `latest`: a process that was killed before it moved the link left an older model there.
LoadedModel load_last(const MeasureArgs& args) {
  LoadedModel model = load_model(CheckpointStore(args.run, 1).path_for(args.steps).string());
  if (!model.checkpoint)
    throw ModelError("{} is a served model, not the checkpoint of step {}; remove {} to train the point anew",
                     model.path, args.steps, args.run);
  if (model.checkpoint->steps_done != args.steps)
    throw ModelError("{} is of step {}, but the run ended with step {}; remove {} to train the point anew", model.path,
                     model.checkpoint->steps_done, args.steps, args.run);
  return model;
}

/// Images lie in the order of their classes, so a few of them are spread over all.
DatasetPtr training_images(const MeasureArgs& args) {
  if (args.train_limit == 0) return args.train;
  return std::make_shared<Subset>(args.train, SubsetArgs{.evenly = args.train_limit});
}

Accuracy training_accuracy(const LoadedModel& model, const MeasureArgs& args) {
  const EvaluationReport report = evaluate_dataset(model.run, training_images(args), args.options.network.image_size,
                                                   {.batch_size = 64,
                                                    .loader_threads = args.options.loader_threads,
                                                    .strict_data = args.options.strict_data,
                                                    .stop = stop_requested});
  if (report.stopped) throw InterruptedError("interrupted while {} was measured", args.point.name());
  if (!std::isfinite(report.result.loss))
    throw DivergedError(
        "{} gives logits that are not finite for training images; try a study with a lower --lr, a longer "
        "--warmup-epochs or with --clip-grad-norm",
        model.path);
  return accuracy_of(report.result);
}

Provenance provenance_of(const RunFacts& facts, const MeasureArgs& args) {
  Provenance p{.command = fmt::format("nibble train --config config.resolved.toml --out {}", args.point.name()),
               .config = facts.config,
               .version = version(),
               .cpu = cpu_features().brand,
               .isa = std::string(name_of(active_isa())),
               .threads = threads(),
               .started = facts.sessions.empty() ? "" : facts.sessions.front().started,
               .seconds = 0};
  for (const RunSession& s : facts.sessions) p.seconds += std::max(0.0, s.seconds);
  return p;
}

/// A line that somebody edited may lack a number, and a result without it could not be read again. A training loss may
/// be missing.
void leave_out_incomplete(Curves& curves) {
  std::erase_if(curves.train, [](const TrainSample& s) { return !std::isfinite(s.epoch); });
  std::erase_if(curves.evaluations, [](const EvalSample& s) {
    return !std::isfinite(s.epoch) || !std::isfinite(s.top5) || !std::isfinite(s.loss);
  });
}

}  // namespace

PointResult measure_point(const MeasureArgs& args) {
  RunFacts facts = read_run(args.run);
  leave_out_incomplete(facts.curves);
  if (facts.curves.evaluations.empty())
    throw ModelError(
        "{}/metrics.jsonl has no evaluation with an epoch, accuracies and a loss, so the point has no result; remove "
        "{} to train it anew",
        args.run, args.run);
  const LoadedModel model = load_last(args);
  const NetworkOptions& network = model.network.options;
  PointResult p;
  p.name = args.point.name();
  p.arch = network.arch;
  p.precision = args.point.precision;
  p.width = args.point.width;
  p.seed = args.point.seed;
  p.image_size = network.image_size;
  p.classes = network.classes;
  p.steps = args.steps;
  p.epochs = args.options.steps > 0 ? 0 : args.options.epochs;
  p.cost = cost_of(model.network).total;
  p.ratio = cost_ratio(p.cost, reference_cost(network));
  p.last = accuracy_of(args.last);
  p.best = best_smoothed(facts.curves.evaluations,
                         model.network.quantizers.empty() ? 0 : args.options.calibrate_step(args.steps));
  p.train_unaugmented = training_accuracy(model, args);
  p.curves.train = thinned(facts.curves.train, kKeptSamples);
  p.curves.evaluations = facts.curves.evaluations;
  p.layers = point_layers(model.checkpoint->model);
  p.provenance = provenance_of(facts, args);
  if (model.executor == nullptr || network.mode == QuantMode::kFake) return p;
  p.served_bytes = write_served(*model.checkpoint, args.run);
  p.latency = measure_latency(*model.executor, network.image_size);
  return p;
}

}  // namespace nibble::apps
