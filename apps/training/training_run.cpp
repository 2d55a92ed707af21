#include "apps/training/training_run.hpp"

#include <chrono>
#include <cmath>

#include "apps/console.hpp"
#include "apps/loading_probe.hpp"
#include "apps/memory_forecast.hpp"
#include "apps/signals.hpp"
#include "nn/atomic_file.hpp"
#include "nn/sha256.hpp"

namespace nibble::apps {

namespace {

using Clock = StepMeter::Clock;

constexpr int64_t kLogEvery = 10;      // steps between lines of metrics.jsonl
constexpr int64_t kWorthProbing = 40;  // steps to come; the probe takes up to six

}  // namespace

TrainingRun::TrainingRun(const RunArgs& args) : args_(args), data_(open_run_data(args.options)) {
  if (!args.resume && !args.out.empty()) require_outside_images(args.out, args.options.data);
  args_.options.network.classes = data_.train->num_classes();
  plan_ = plan_run(args_.options, data_);
  note_ = note_of(data_, args_.config_text);
}

void TrainingRun::start() {
  if (!args_.resume) start_fresh();  // weights that are refused leave no folder behind
  open_folder();
  if (args_.resume) {
    start_from_checkpoint();
    keep_config();
  } else {
    // The config makes the folder a run, which may be resumed; without a checkpoint it would start at random weights.
    if (!args_.weights.empty()) save();
    write_file_atomically(folder_->config_path(), args_.config_text);
  }
}

void TrainingRun::open_folder() {
  folder_ = args_.resume ? RunFolder::resume(args_.out) : RunFolder::create(args_.out);
  store_ = std::make_unique<CheckpointStore>(folder_->checkpoints(static_cast<int>(args_.options.keep)));
}

void TrainingRun::start_fresh() {
  const TrainOptions& o = args_.options;
  Model model = make_model(build_resnet(o.network), {.seed = o.seed, .zero_last_gamma = o.zero_gamma});
  if (!args_.weights.empty()) {
    weights_sha256_ = sha256_of_file(args_.weights);
    if (!args_.weights_sha256.empty() && weights_sha256_ != args_.weights_sha256)
      throw ModelError("'{}' has changed since the study was planned; put the file back", args_.weights);
    take_weights(model);
  }
  trainer_ = std::make_unique<Trainer>(std::move(model), o.trainer(plan_.steps, plan_.steps_per_epoch));
}

void TrainingRun::take_weights(Model& model) const {
  const GivenWeights given =
      load_torchvision_weights(args_.weights, model, data_.train->class_names(), args_.weights_choice);
  message(fmt::format("start  from {} of {}{}", counted(given.tensors, "tensor"), args_.weights,
                      given.note.empty() ? "" : ": " + given.note));
  if (!given.fresh.empty()) message(fmt::format("{} starts from scratch: {}", given.fresh, given.because));
}

void TrainingRun::check_weights() const {
  if (args_.weights.empty()) return;
  Model model = make_model(build_resnet(args_.options.network), {.seed = args_.options.seed, .zero_last_gamma = false});
  take_weights(model);
}

void TrainingRun::start_from_checkpoint() {
  const FoundCheckpoint found = store_->find_latest();
  for (const SkippedCheckpoint& s : found.skipped) warn(fmt::format("skipped {}: {}", s.path.string(), s.reason));
  if (!found.found()) {
    if (!found.skipped.empty())
      throw ModelError(
          "{} has no checkpoint that can be read; {}", args_.out,
          args_.in_study ? "remove the folder to train the point again" : "start again with another --out");
    message("no checkpoint yet: starting at step 0");
    start_fresh();
    return;
  }
  Checkpoint c = load_checkpoint(found.path);
  const RunNote held = parse_run_note(c.run, found.path.string());
  const TrainOptions& o = args_.options;
  require_same_run(c, held, found.path.string(), {.folder = args_.out, .options = o, .data = data_, .note = note_});
  trainer_ = std::make_unique<Trainer>(std::move(c.model), o.trainer(plan_.steps, plan_.steps_per_epoch), c.momentum,
                                       c.steps_done);
  if (store_->keeps_best(held.best_step, c.steps_done)) {
    note_.best_top1 = held.best_top1;
    note_.best_step = held.best_step;
  } else {
    warn(
        fmt::format("the best checkpoint so far, of step {}, cannot be read any more: the best one from here on counts",
                    held.best_step));
  }
  saved_at_ = c.steps_done;
  store_->publish(c.steps_done);  // `latest` is older where the process ended between a checkpoint and its link
  message(fmt::format("resuming {} at step {}", args_.out, c.steps_done));
}

/// Options that were changed on resume keep their new values for the next resume, too.
void TrainingRun::keep_config() const {
  constexpr uint64_t kLongest = uint64_t{1} << 20;
  if (read_text_file(folder_->config_path(), kLongest) != args_.config_text)
    write_file_atomically(folder_->config_path(), args_.config_text);
}

/// Says before the first step how long the run takes. A run of a few steps, or one that no one watches, is not probed.
void TrainingRun::estimate_speed() {
  const TrainOptions& o = args_.options;
  const int64_t done = trainer_->steps_done();
  StepPace::Args run{.total_steps = plan_.steps, .quantized_from = plan_.quantized_from, .probe = {}};
  if (plan_.steps - done >= kWorthProbing && verbosity() != Verbosity::kQuiet) {
    run.probe = with_loading(probe_step(o), probe_loading(*data_.train, o), o);
    message("speed  " + describe_speed(run.probe, o.batch_size, done, run) + " (probed; evaluations come on top)");
  }
  pace_.emplace(run);
}

void TrainingRun::begin_loading() {
  const TrainOptions& o = args_.options;
  const int64_t done = trainer_->steps_done();
  loader_ =
      std::make_unique<TrainLoader>(TrainLoaderArgs{.dataset = data_.train,
                                                    .batch_size = o.batch_size,
                                                    .transform = {.size = static_cast<int>(o.network.image_size),
                                                                  .min_crop = static_cast<float>(o.min_crop),
                                                                  .upright = o.network.upright},
                                                    .seed = o.seed,
                                                    .workers = static_cast<int>(o.loader_threads),
                                                    .bad_images = o.strict_data ? BadImages::error : BadImages::skip,
                                                    .start_epoch = done / plan_.steps_per_epoch,
                                                    .start_batch = done % plan_.steps_per_epoch});
  MetricsLogArgs log;
  if (args_.resume) log.keep_to_step = done;
  log_ = std::make_unique<MetricsLog>(folder_->metrics_path(), log);
  if (done < plan_.steps)
    machine_.emplace(MachineNoteArgs{.path = folder_->machine_path(),
                                     .data = o.data,
                                     .decoder = data_.decoder,
                                     .image_sizes = data_.sizes,
                                     .weights = args_.weights,
                                     .weights_sha256 = weights_sha256_,
                                     .first_step = done});
  if (args_.resume && machine_ && !machine_->changed().empty())
    warn(fmt::format("the run continues with {}: from here on its bits may differ from those without the stop",
                     machine_->changed()));
}

double TrainingRun::epochs(int64_t steps) const {
  return static_cast<double>(steps) / static_cast<double>(plan_.steps_per_epoch);
}

/// Images that cannot be read, or for which there is no memory, end the run, but cost no step: what is done is logged
/// and saved first.
Batch TrainingRun::next_batch(StepMeter& meter) {
  try {
    return loader_->next();
  } catch (const std::exception&) {
    const int64_t done = trainer_->steps_done();
    if (done == 0) throw;
    try {
      if (meter.steps() > 0) report(meter);
      save();
      message(fmt::format("saved at step {}; when the data is whole again: nibble train --resume {}", done,
                          shell_quoted(args_.out)));
    } catch (const Error& e) {
      warn(fmt::format("step {} is not saved: {}", done, e.what()));
    }
    note_machine(meter.images_per_second());
    throw;
  }
}

void TrainingRun::one_step(StepMeter& meter) {
  const Clock::time_point began = Clock::now();
  const Batch batch = next_batch(meter);
  try {
    meter.add(trainer_->step(batch.images, batch.labels));
  } catch (const DivergedError& e) {
    diverged(e, meter);
  }
  pace_->add(trainer_->steps_done() - 1, std::chrono::duration<double>(Clock::now() - began).count());
}

/// The steps that led there are in the log. A run is resumed with its own options only: the way out is a new one.
void TrainingRun::diverged(const DivergedError& e, StepMeter& meter) {
  try {
    if (meter.steps() > 0) report(meter);
  } catch (const Error& unwritten) {
    warn(unwritten.what());
  }
  if (args_.in_study)
    throw DivergedError("{}, in another study: the points of this one share a recipe, and it would diverge again",
                        e.what());
  // The checkpoint of this step, if there is one, is the model that diverged.
  std::vector<int64_t> kept = store_->steps();
  std::erase_if(kept, [&](int64_t step) { return step >= trainer_->steps_done(); });
  if (kept.empty()) throw DivergedError("{}, in a new run (there is no earlier checkpoint)", e.what());
  throw DivergedError("{}, in a new run; it may start from the checkpoint before: --weights {}", e.what(),
                      shell_quoted(store_->path_for(kept.back()).string()));
}

void TrainingRun::show(StepMeter& meter) const {
  if (const auto line = meter.progress_line(trainer_->steps_done(), loader_->wait_seconds(), *pace_)) progress(*line);
}

void TrainingRun::report(StepMeter& meter) {
  log_->write(meter.take(trainer_->steps_done(), loader_->wait_seconds()));
  meter.go_on(loader_->wait_seconds());
  name_bad_images();
}

void TrainingRun::name_bad_images() {
  bad_images_.name_unreadable("replaced", loader_->skipped());
  bad_images_.name_damaged(loader_->damaged());
  bad_images_.name_turned(loader_->turned());
}

bool TrainingRun::evaluation_due(int64_t done) const {
  const int64_t every = args_.options.eval_every;
  return done == plan_.steps || (every > 0 && done > 0 && done % (every * plan_.steps_per_epoch) == 0);
}

/// The model of this step has been saved before: a process that is killed in here has lost only the evaluation, and the
/// resumed run makes up for it. False when a signal asked to stop meanwhile.
bool TrainingRun::evaluate() {
  const Model& model = trainer_->model();
  const EvaluationReport report = evaluate_in_training(model, data_.validation, args_.options, bad_images_);
  if (report.stopped) return false;
  const int64_t step = trainer_->steps_done();
  evaluated_at_ = step;
  last_evaluation_ = report.result;
  last_outcomes_ = report.outcomes;
  if (!std::isfinite(report.result.loss))
    throw DivergedError(
        "the model of step {} gives logits that are not finite for images of {}/val; lower --lr, lengthen "
        "--warmup-epochs or set --clip-grad-norm (best checkpoint: {})",
        step, args_.options.data, note_.best_step < 0 ? "none" : store_->path_for(note_.best_step).string());
  if (!logged_top1(folder_->metrics_path(), step)) log_->write(evaluation_record(step, epochs(step), report));
  note_result(report.result.top1_percent());
  message(evaluation_text(epochs(step), report, model, note_.best_step == step));
  return true;
}

/// The result of evaluating the checkpoint of this step: is it the best so far? One from before calibration is the best
/// until there is a quantized one, whatever their accuracies: it is another model, and not one that can be exported.
void TrainingRun::note_result(double top1_percent) {
  const int64_t step = trainer_->steps_done();
  const bool first_quantized =
      note_.best_step >= 0 && plan_.before_calibration(note_.best_step) && !plan_.before_calibration(step);
  if (!first_quantized && !(top1_percent > note_.best_top1)) return;
  note_.best_top1 = top1_percent;
  note_.best_step = step;
  store_->mark_best(step);
  store_->publish(step);  // the best until now may go
}

/// On resume: a checkpoint is written before its evaluation, so the evaluation may be in the log or missing.
void TrainingRun::settle_evaluation() {
  const int64_t done = trainer_->steps_done();
  if (saved_at_ != done || !evaluation_due(done)) return;
  if (const std::optional<double> top1 = logged_top1(folder_->metrics_path(), done))
    note_result(*top1);
  else if (!evaluate())
    interrupted(0);
}

/// The note in it holds the best result of the evaluations before this step, so that its bytes follow from the step.
void TrainingRun::save() {
  const int64_t step = trainer_->steps_done();
  if (saved_at_ == step) return;
  // The log first: a resumed run continues from the newest checkpoint, and then no line up to it may be missing. There
  // is no log yet when given weights are saved before the first step.
  if (log_ != nullptr) log_->sync();
  const Clock::time_point from = Clock::now();
  const uint64_t bytes = save_checkpoint(store_->path_for(step), trainer_->model(), trainer_->momentum(), step,
                                         to_json(note_), data_.train->class_names());
  store_->publish(step);
  saved_at_ = step;
  debug(fmt::format("saved step {}: {} bytes in {:.0f} ms", step, grouped(static_cast<int64_t>(bytes)),
                    std::chrono::duration<double, std::milli>(Clock::now() - from).count()));
}

/// A note, not state: a run that is saved or done does not fail because of it.
void TrainingRun::note_machine(double images_per_second) {
  if (!machine_) return;
  try {
    machine_->finish({.last_step = trainer_->steps_done(), .images_per_second = images_per_second});
  } catch (const Error& e) {
    warn(e.what());
  }
}

/// `images_per_second`: of the steps of this process; the lines about them have been written.
void TrainingRun::interrupted(double images_per_second) {
  save();
  name_bad_images();
  const int64_t done = trainer_->steps_done();
  note_machine(images_per_second);
  throw InterruptedError("interrupted at step {} and saved; continue with: nibble train --resume {}", done,
                         shell_quoted(args_.out));
}

void TrainingRun::warn_of_doubts() const {
  for (const std::string& others : data_.left_out) warn(others);
  for (const std::string& doubt : doubts_about(plan_, args_.options, args_.resume)) warn(doubt);
}

int64_t TrainingRun::peak_memory() const {
  return forecast_memory(args_.options);
}

std::string TrainingRun::memory_line(int64_t peak, int64_t available) const {
  return describe_memory(peak, available, args_.options);
}

/// Before the steps take it; like the speed, not of a run of a few steps, or one that no one watches. Its peak comes
/// before calibration. `available`: before the trainer took its part.
void TrainingRun::say_memory(int64_t available) const {
  const int64_t steps = plan_.steps - trainer_->steps_done();
  if (steps < kWorthProbing || verbosity() == Verbosity::kQuiet || trainer_->model().calibrated()) return;
  const int64_t peak = peak_memory();
  peak > available&& available > 0 ? warn(memory_line(peak, available)) : message(memory_line(peak, available));
}

RunSummary TrainingRun::run() {
  message(banner());
  warn_of_doubts();
  const int64_t available = available_memory();
  start();
  say_memory(available);
  estimate_speed();  // before the loader's threads take their share
  begin_loading();
  if (args_.resume) settle_evaluation();
  const TrainOptions& o = args_.options;
  const int64_t total = plan_.steps;
  StepMeter meter(total, plan_.steps_per_epoch);
  const auto stop = [&] {
    if (meter.steps() > 0) report(meter);
    interrupted(meter.images_per_second());
  };
  while (trainer_->steps_done() < total) {
    one_step(meter);
    const int64_t done = trainer_->steps_done();
    const bool epoch_ends = done % plan_.steps_per_epoch == 0, due = evaluation_due(done);
    show(meter);
    const bool asked = take_save_request();
    const bool saves = due || asked || (o.save_every > 0 ? done % o.save_every == 0 : epoch_ends);
    // Also before a save: a run that continues from it begins its next line there.
    if (done % kLogEvery == 0 || epoch_ends || saves) report(meter);
    const Clock::time_point from = Clock::now();
    if (due) trainer_->keep_usage(count_codes(trainer_->model(), data_.validation));
    if (saves) save();
    if (asked) message(fmt::format("saved at step {} (SIGUSR1)", done));
    const bool go_on = !stop_requested() && (!due || evaluate());
    meter.exclude(from);
    if (!go_on) stop();
  }
  if (evaluated_at_ != total && !evaluate()) stop();
  const double rate = meter.images_per_second();
  note_machine(rate);
  name_bad_images();
  const Model& model = trainer_->model();
  return {.evaluation = last_evaluation_,
          .outcomes = last_outcomes_,
          .skipped = static_cast<int64_t>(loader_->skipped().size()),
          .train_loss = meter.last_loss(),
          .exportable = is_servable(model.network) && !model.calibration_pending(),
          .steps = total,
          .images_per_second = rate};
}

}  // namespace nibble::apps
