#include "apps/study/measure.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "apps/console.hpp"
#include "apps/dataset_evaluation.hpp"
#include "apps/inference_probe.hpp"
#include "apps/model_input.hpp"
#include "apps/report/run_report.hpp"
#include "apps/served_export.hpp"
#include "apps/signals.hpp"
#include "data/subset.hpp"
#include "engine/cpu.hpp"
#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "engine/version.hpp"
#include "nn/run_folder.hpp"
#include "nn/study/point_layers.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace {

constexpr size_t kKeptSamples = 200;  // of training: what a chart shows; ten thousand steps would be 1 MiB per point

Accuracy accuracy_of(const EvaluationResult& r) {
  return {.top1 = r.top1_percent(), .top5 = r.top5_percent(), .loss = r.loss, .images = r.images};
}

/// By its step, not by `latest`: a process that was killed before it moved the link left an older model there.
LoadedModel load_last(const MeasureArgs& args) {
  LoadedModel model = load_model(CheckpointStore(args.run, 1).path_for(args.steps).string());
  if (!model.checkpoint)
    throw ModelError("{} is a served model, not the checkpoint of step {}; remove {} to train the point again",
                     model.path, args.steps, args.run);
  if (model.checkpoint->steps_done != args.steps)
    throw ModelError("{} is of step {}, but the run ended with step {}; remove {} to train the point again", model.path,
                     model.checkpoint->steps_done, args.steps, args.run);
  return model;
}

/// Images lie in the order of their classes, so a few of them are spread over all.
DatasetPtr training_images(const MeasureArgs& args) {
  if (args.train_limit == 0) return args.train;
  return std::make_shared<Subset>(args.train, SubsetArgs{.evenly = args.train_limit});
}

Accuracy training_accuracy(const LoadedModel& model, const MeasureArgs& args) {
  const EvaluationReport report =
      evaluate_dataset(model.run, training_images(args), eval_transform(args.options.network),
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

/// The different texts of all sessions, in their order: a run may continue on another machine or version.
std::string over_sessions(const std::vector<RunSession>& sessions, std::string RunSession::*field,
                          const std::string& now) {
  std::vector<std::string> seen;
  for (const RunSession& s : sessions)
    if (!(s.*field).empty() && std::find(seen.begin(), seen.end(), s.*field) == seen.end()) seen.push_back(s.*field);
  return seen.empty() ? now : fmt::format("{}", fmt::join(seen, ", then "));
}

/// Of the processes that trained it, as the run noted them; this process, which measures, may be on another machine.
Provenance provenance_of(const RunFacts& facts, const MeasureArgs& args) {
  const std::vector<RunSession>& sessions = facts.sessions;
  const std::string weights = args.start == nullptr ? "" : " --weights " + shell_quoted(args.start->file);
  Provenance p{
      .command = fmt::format("nibble train --config config.resolved.toml{} --out {}", weights, args.point.name()),
      .config = facts.config,
      .version = over_sessions(sessions, &RunSession::version, build_version()),
      .cpu = over_sessions(sessions, &RunSession::cpu, cpu_features().brand),
      .isa = over_sessions(sessions, &RunSession::isa, std::string(name_of(active_isa()))),
      .threads = threads(),
      .started = sessions.empty() ? "" : sessions.front().started,
      .seconds = 0};
  if (args.start != nullptr) {
    p.weights = args.start->file;
    p.weights_sha256 = args.start->sha256;
  }
  // The note is read as it stands; what is not a number of threads, or of seconds, does not count.
  if (!sessions.empty() && sessions.back().threads >= 1 && sessions.back().threads <= 65536)
    p.threads = static_cast<int64_t>(sessions.back().threads);
  for (const RunSession& s : sessions)
    if (can_be_kept_seconds(p.seconds + s.seconds) && s.seconds > 0) p.seconds += s.seconds;
  return p;
}

/// A line edited by hand may lack a number or have 101 %, and a result with it could not be read again.
void leave_out_unreadable(Curves& curves) {
  std::erase_if(curves.train, [](const TrainSample& s) { return !can_be_kept(s); });
  std::erase_if(curves.evaluations, [](const EvalSample& s) { return !can_be_kept(s); });
}

int64_t missing_evaluations(const Curves& curves, const MeasureArgs& args) {
  std::set<int64_t> steps;
  for (const EvalSample& s : curves.evaluations) steps.insert(s.step);
  int64_t missing = steps.contains(args.steps) ? 0 : 1;
  for (int64_t step = args.eval_steps; args.eval_steps > 0 && step < args.steps; step += args.eval_steps)
    missing += steps.contains(step) ? 0 : 1;
  return missing;
}

}  // namespace

PointResult measure_point(const MeasureArgs& args) {
  RunFacts facts = read_run(args.run);
  leave_out_unreadable(facts.curves);
  if (facts.curves.evaluations.empty())
    throw ModelError(
        "{}/metrics.jsonl has no evaluation with an epoch, accuracies of 0 to 100 % and a loss, so the point has no "
        "result; remove {} to train it again",
        args.run, args.run);
  if (const int64_t missing = missing_evaluations(facts.curves, args); missing > 0)
    throw ModelError(
        "{}/metrics.jsonl lacks {} of the run's evaluations, so its best epoch is not known; put the whole log back, "
        "or remove {} to train the point again",
        args.run, missing, args.run);
  const LoadedModel model = load_last(args);
  const NetworkOptions& network = model.network().options;
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
  p.cost = cost_of(model.network()).total;
  p.ratio = cost_ratio(p.cost, reference_cost(network));
  p.last = accuracy_of(args.last);
  p.outcomes = args.outcomes;
  p.best = best_smoothed(facts.curves.evaluations,
                         model.network().quantizers.empty() ? 0 : args.options.calibrate_step(args.steps));
  p.train_unaugmented = training_accuracy(model, args);
  p.curves.train = thinned(facts.curves.train, kKeptSamples);
  p.curves.evaluations = facts.curves.evaluations;
  p.layers = point_layers(model.checkpoint->model);
  p.provenance = provenance_of(facts, args);
  if (model.executor == nullptr || network.mode == QuantMode::kFake) return p;
  p.served_bytes = export_served(*model.checkpoint, served_path(args.run)).sizes.file_bytes;
  if (args.time) p.latency = measure_latency(*model.executor, network.image_size);
  return p;
}

}  // namespace nibble::apps
