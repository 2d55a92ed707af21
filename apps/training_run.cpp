#include "apps/training_run.hpp"

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/config_file.hpp"
#include "apps/console.hpp"
#include "apps/signals.hpp"
#include "data/image_folder.hpp"
#include "data/wrappers.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "nn/activation_usage.hpp"
#include "nn/atomic_file.hpp"
#include "nn/network_json.hpp"
#include "nn/sha256.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::apps {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

constexpr const char* kEvalTop1 = "eval/top1";
constexpr int64_t kUsageImages = 64;    // images all over the set whose codes are counted before an evaluation
constexpr int64_t kLogEvery = 10;       // steps between lines of metrics.jsonl
constexpr double kPlainLineEvery = 10;  // seconds between progress lines when stderr is no terminal
constexpr double kRedrawEvery = 0.2;
constexpr int64_t kWorthProbing = 40;  // steps to come; the probe takes up to six

/// What must be equal for a resumed run to continue bit for bit, and the best result so far.
struct RunNote {
  std::string decoder;
  std::string options;  // config text without what may change on resume; empty: an older version's note
  std::string images;   // digest of the training images' names and labels; empty: as above
  double best_top1 = -1;
  int64_t best_step = -1;
};

RunNote parse_note(const std::string& text, const std::string& source) {
  try {
    const nlohmann::json j = nlohmann::json::parse(text);
    return {j.at("decoder"), j.value("options", ""), j.value("images", ""), j.at("best_top1"), j.at("best_step")};
  } catch (const nlohmann::json::exception& e) {
    throw ModelError("{}: nibble.run cannot be read ({}); the checkpoint was made by another program", source,
                     e.what());
  }
}

/// Folder and file name of each image and its label: the same images in another place are the same images.
std::string digest_of(const Dataset& data) {
  Sha256 hash;
  for (int64_t i = 0; i < data.size(); ++i) {
    const std::filesystem::path path = data.path(i);
    const std::string line =
        fmt::format("{}/{} {}\n", path.parent_path().filename().string(), path.filename().string(), data.label(i));
    hash.update(std::as_bytes(std::span(line)));
  }
  return hash.hex();
}

}  // namespace

/// Sums since the last report, and over the whole run. Its time is that of the steps and of waiting for their images;
/// evaluations and checkpoints are left out by exclude().
struct TrainingRun::Meter {
  Clock::time_point since = Clock::now(), shown;
  double loss = 0, wait = 0, run_seconds = 0;
  int64_t top1 = 0, images = 0, steps = 0, run_images = 0;
  StepResult last;

  void add(const StepResult& r) {
    loss += r.loss;
    top1 += r.top1;
    images += r.images;
    run_images += r.images;
    ++steps;
    last = r;
  }
  double seconds() const { return std::max(1e-9, seconds_since(since)); }
  double run_rate() const {
    return static_cast<double>(run_images) / std::max(1e-9, run_seconds + (steps > 0 ? seconds() : 0));
  }
  void exclude(Clock::time_point from) { since += Clock::now() - from; }
  void clear(double elapsed, double wait_now) {
    run_seconds += elapsed;
    loss = 0;
    top1 = images = steps = 0;
    wait = wait_now;
    since = Clock::now();
  }
};

TrainingRun::TrainingRun(const RunArgs& args) : args_(args) {
  open_data();
}

TrainingRun::~TrainingRun() = default;

void TrainingRun::open_data() {
  const TrainOptions& o = args_.options;
  const Decoder decoder = decoder_from_name(o.decoder);
  decoder_ = std::string(name_of(resolve(decoder)));
  const SubsetArgs subset{.classes = static_cast<int>(o.limit_classes), .per_class = o.per_class, .seed = o.seed};
  train_ = std::make_shared<ImageFolder>(ImageFolderArgs{.dir = o.data, .split = "train", .decoder = decoder});
  validation_ = std::make_shared<ImageFolder>(ImageFolderArgs{.dir = o.data, .split = "val", .decoder = decoder});
  if (o.limit_classes > 0 || o.per_class > 0) train_ = std::make_shared<Subset>(train_, subset);
  if (o.limit_classes > 0)
    validation_ =
        std::make_shared<Subset>(validation_, SubsetArgs{.classes = subset.classes, .per_class = 0, .seed = 0});
  require_same_classes(*train_, *validation_, o.data + "/train", o.data + "/val");
  args_.options.network.classes = train_->num_classes();
  if (train_->num_classes() < 2)
    throw DataError("{}/train has {} class; training needs at least 2 class folders", o.data, train_->num_classes());
  images_digest_ = digest_of(*train_);
  steps_per_epoch_ = Sampler({.size = train_->size(), .batch_size = o.batch_size, .seed = o.seed}).batches_per_epoch();
}

int64_t TrainingRun::total_steps() const {
  return args_.options.steps > 0 ? args_.options.steps : args_.options.epochs * steps_per_epoch_;
}

RunPlan TrainingRun::plan() const {
  const Network net = build_resnet(args_.options.network);
  RunPlan plan{.train_images = train_->size(),
               .validation_images = validation_->size(),
               .classes = train_->num_classes(),
               .steps = total_steps(),
               .steps_per_epoch = steps_per_epoch_};
  for (const UnitSpec& u : net.units) {
    plan.parameters += u.weight_count() + (u.norm_name.empty() ? u.shape.oc : 2 * u.shape.oc);
    plan.macs += u.macs();
  }
  if (!net.quantizers.empty()) plan.quantized_from = args_.options.calibrate_step(plan.steps);
  return plan;
}

std::string TrainingRun::banner() const {
  const TrainOptions& o = args_.options;
  const RunPlan p = plan();
  kernels::active();  // probes the levels, which may change the one in use
  std::string text =
      fmt::format("nibble {}  {}, {}\n", NIBBLE_VERSION, isa_explanation(), counted(threads(), "thread"));
  text += fmt::format("data   {}  train {} / val {}, {} classes, decoder {}\n", o.data, grouped(p.train_images),
                      grouped(p.validation_images), p.classes, decoder_);
  text +=
      fmt::format("model  {} x{} {}  {} parameters, {} multiply-adds an image at {} px\n", o.network.arch,
                  o.network.width, o.network.precision, grouped(p.parameters), grouped(p.macs), o.network.image_size);
  text += fmt::format("plan   {} steps of {} images in shards of {} ({} an epoch), lr {} {}", grouped(p.steps),
                      o.batch_size, o.shard, p.steps_per_epoch, o.lr, o.schedule);
  if (p.quantized_from >= 0) text += fmt::format(", activations quantized from step {}", p.quantized_from);
  return text;
}

void TrainingRun::open_folder() {
  folder_ = args_.resume ? RunFolder::resume(args_.out) : RunFolder::create(args_.out);
  store_ = std::make_unique<CheckpointStore>(folder_->checkpoints(static_cast<int>(args_.options.keep)));
}

void TrainingRun::start_fresh() {
  const TrainOptions& o = args_.options;
  Model model = make_model(build_resnet(o.network), {.seed = o.seed, .zero_last_gamma = o.zero_gamma});
  if (!args_.weights.empty())
    for (const std::string& name : load_torchvision_weights(args_.weights, model))
      message(fmt::format("{} starts anew: {} has another number of classes", name, args_.weights));
  trainer_ = std::make_unique<Trainer>(std::move(model), o.trainer(total_steps(), steps_per_epoch_));
}

void TrainingRun::start_from_checkpoint() {
  const FoundCheckpoint found = store_->find_latest();
  for (const SkippedCheckpoint& s : found.skipped) warn(fmt::format("skipped {}: {}", s.path.string(), s.reason));
  if (!found.found()) {
    if (!found.skipped.empty())
      throw ModelError("{} has no checkpoint that can be read; start again with another --out", args_.out);
    message("no checkpoint yet: starting at step 0");
    start_fresh();
    return;
  }
  Checkpoint c = load_checkpoint(found.path);
  const RunNote note = parse_note(c.run, found.path.string());
  const TrainOptions& o = args_.options;
  if (note.decoder != decoder_)
    throw UsageError("{} was trained with the decoder {}, this is {}: their pixels differ; resume with --decoder {}",
                     args_.out, note.decoder, decoder_, note.decoder);
  if (c.class_names != train_->class_names())
    throw DataError(
        "{} was trained on other classes than {}/train holds ({} of them, now {}); resume with the same data",
        args_.out, o.data, c.class_names.size(), train_->num_classes());
  if (!note.images.empty() && note.images != images_digest_)
    throw DataError("{} was trained on other images than {}/train holds ({} now); resume with the same data", args_.out,
                    o.data, grouped(train_->size()));
  const NetworkOptions& held = c.model.network.options;
  if (network_options_to_json(held) != network_options_to_json(o.network))
    throw ModelError(
        "{} holds another network ({} x{} {}, {} classes) than {}/config.resolved.toml asks for ({} x{} {}, {} "
        "classes); put the run's own checkpoint back",
        found.path.string(), held.arch, held.width, held.precision, held.classes, args_.out, o.network.arch,
        o.network.width, o.network.precision, o.network.classes);
  if (const ConfigDifference d = first_difference(note.options, result_options(), {});
      !note.options.empty() && !d.name.empty())
    throw UsageError("{}/config.resolved.toml says {} = {}, the run began with {}; put it back, or start a new run",
                     args_.out, d.name, d.second, d.first);
  trainer_ = std::make_unique<Trainer>(std::move(c.model), o.trainer(total_steps(), steps_per_epoch_), c.momentum,
                                       c.steps_done);
  best_top1_ = note.best_top1;
  best_step_ = note.best_step;
  saved_at_ = c.steps_done;
  store_->publish(c.steps_done);  // `latest` is older where the process ended between a checkpoint and its link
  message(fmt::format("resuming {} at step {}", args_.out, c.steps_done));
}

void TrainingRun::begin_loading() {
  const TrainOptions& o = args_.options;
  const int64_t done = trainer_->steps_done();
  loader_ = std::make_unique<TrainLoader>(TrainLoaderArgs{
      .dataset = train_,
      .batch_size = o.batch_size,
      .transform = {.size = static_cast<int>(o.network.image_size), .min_crop = static_cast<float>(o.min_crop)},
      .seed = o.seed,
      .workers = static_cast<int>(o.loader_threads),
      .bad_images = o.strict_data ? BadImages::error : BadImages::skip,
      .start_epoch = done / steps_per_epoch_,
      .start_batch = done % steps_per_epoch_});
  MetricsLogArgs log;
  if (args_.resume) log.keep_to_step = done;
  log_ = std::make_unique<MetricsLog>(folder_->metrics_path(), log);
  if (done < total_steps())
    note_.emplace(
        MachineNoteArgs{.path = folder_->machine_path(), .data = o.data, .decoder = decoder_, .first_step = done});
}

/// What was given anew holds for the next resume, too.
void TrainingRun::keep_config() const {
  constexpr uint64_t kLongest = uint64_t{1} << 20;
  if (read_text_file(folder_->config_path(), kLongest) != args_.config_text)
    write_file_atomically(folder_->config_path(), args_.config_text);
}

const std::set<std::string>& changeable_on_resume() {
  static const std::set<std::string> names = {"data", "loader-threads", "keep", "save-every", "decoder"};
  return names;
}

std::string TrainingRun::result_options() const {
  return without_options(args_.config_text, changeable_on_resume());
}

std::string TrainingRun::run_note() const {
  nlohmann::ordered_json j;
  j["decoder"] = decoder_;
  j["options"] = result_options();
  j["images"] = images_digest_;
  j["best_top1"] = best_top1_;
  j["best_step"] = best_step_;
  return j.dump();
}

/// Images that cannot be read, or for which there is no memory, end the run, but cost no step: what is done is saved
/// first.
Batch TrainingRun::next_batch() {
  try {
    return loader_->next();
  } catch (const std::exception&) {
    const int64_t done = trainer_->steps_done();
    if (done == 0 || saved_at_ == done) throw;
    try {
      save();
      message(fmt::format("saved at step {}; when the data is whole again: nibble train --resume {}", done, args_.out));
    } catch (const Error& e) {
      warn(fmt::format("step {} is not saved: {}", done, e.what()));
    }
    throw;
  }
}

/// Says before the first step how long the run takes. A run of a few steps, or one that nobody watches, is not probed.
void TrainingRun::estimate_speed() {
  const TrainOptions& o = args_.options;
  const int64_t done = trainer_->steps_done(), total = total_steps();
  StepPace::Args run{.total_steps = total, .quantized_from = plan().quantized_from, .probe = {}};
  if (total - done >= kWorthProbing && verbosity() != Verbosity::kQuiet) {
    run.probe = probe_step(o);
    message("speed  " + describe_speed(run.probe, o.batch_size, done, run) + " (probed; evaluations come on top)");
  }
  pace_.emplace(run);
}

void TrainingRun::one_step(Meter& meter) {
  const Clock::time_point began = Clock::now();
  const Batch batch = next_batch();
  try {
    meter.add(trainer_->step(batch.images, batch.labels));
  } catch (const DivergedError& e) {
    throw DivergedError("{} (last good checkpoint: {})", e.what(), last_checkpoint());
  }
  pace_->add(trainer_->steps_done() - 1, seconds_since(began));
}

void TrainingRun::report(Meter& meter) {
  const int64_t done = trainer_->steps_done();
  const double elapsed = meter.seconds(), rate = static_cast<double>(meter.images) / elapsed;
  const double wait = (loader_->wait_seconds() - meter.wait) / elapsed;
  const double epoch = static_cast<double>(done) / static_cast<double>(steps_per_epoch_);
  const double loss = meter.loss / static_cast<double>(std::max<int64_t>(1, meter.steps));
  const double top1 = 100.0 * static_cast<double>(meter.top1) / static_cast<double>(std::max<int64_t>(1, meter.images));
  log_->write(MetricsRecord()
                  .add("step", done)
                  .add("epoch", epoch)
                  .add("train/loss", loss)
                  .add("train/top1", top1)
                  .add("lr", meter.last.rate)
                  .add("grad_norm", meter.last.gradient_norm)
                  .add("images_per_second", rate)
                  .add("data_wait", wait));
  meter.clear(elapsed, loader_->wait_seconds());
  name_bad_images();
}

/// Training images that were replaced or used although damaged, each once.
void TrainingRun::name_bad_images() {
  for (const ImageNote& note : loader_->skipped())
    if (named_images_.insert(note.path).second) warn(fmt::format("replaced {}: {}", note.path, note.reason));
  for (const ImageNote& note : loader_->damaged())
    if (named_images_.insert(note.path).second)
      warn(fmt::format("{} is used although damaged: {}", note.path, note.reason));
}

/// The progress line, when it is due; a step of a large network takes seconds, so it does not wait for report().
void TrainingRun::show(Meter& meter) {
  const int64_t done = trainer_->steps_done(), total = total_steps();
  if (done != total && seconds_since(meter.shown) < (interactive() ? kRedrawEvery : kPlainLineEvery)) return;
  meter.shown = Clock::now();
  const double elapsed = std::max(1e-9, seconds_since(meter.since));
  const double images = static_cast<double>(meter.images), rate = images / elapsed;
  const double epoch_steps = static_cast<double>(steps_per_epoch_);
  progress(fmt::format(
      "epoch {:.2f}/{:.4g}  step {}/{}  loss {:.3f}  top1 {:.1f}  lr {:.4g}  {:.1f} img/s  wait {:.0f} %  {} left",
      static_cast<double>(done) / epoch_steps, static_cast<double>(total) / epoch_steps, done, total,
      meter.loss / static_cast<double>(meter.steps), 100.0 * static_cast<double>(meter.top1) / images, meter.last.rate,
      rate, 100 * (loader_->wait_seconds() - meter.wait) / elapsed, duration(pace_->seconds_left(done))));
}

bool TrainingRun::evaluation_due(int64_t done) const {
  const int64_t every = args_.options.eval_every;
  return done == total_steps() || (every > 0 && done > 0 && done % (every * steps_per_epoch_) == 0);
}

/// How the codes are used, on images all over the set: kept in the checkpoint for inspect. No reason not to save one.
void TrainingRun::count_codes() {
  Model& model = trainer_->model();
  model.usage.clear();
  if (!model.calibrated() || !is_servable(model.network)) return;
  try {
    EvalLoader few({.dataset = std::make_shared<Subset>(validation_, SubsetArgs{.evenly = kUsageImages}),
                    .batch_size = kUsageImages,
                    .image_size = static_cast<int>(args_.options.network.image_size)});
    if (const std::optional<Batch> batch = few.next()) model.usage = measure_usage(model, batch->images);
  } catch (const Error& e) {
    warn(fmt::format("the use of codes is not counted: {}", e.what()));
  }
}

/// The model of this step has been saved before: a process that is killed in here has lost the evaluation alone, and
/// the resumed run makes it up. False when a signal asked to stop meanwhile.
bool TrainingRun::evaluate() {
  const TrainOptions& o = args_.options;
  const Model& model = trainer_->model();
  const EvaluationReport report = evaluate_dataset(runner_for(model), validation_, o.network.image_size,
                                                   {.batch_size = 64,
                                                    .loader_threads = o.loader_threads,
                                                    .strict_data = o.strict_data,
                                                    .stop = stop_requested,
                                                    .named = &named_images_});
  if (report.stopped) return false;
  last_evaluation_ = report;
  evaluated_at_ = trainer_->steps_done();
  const EvaluationResult& r = last_evaluation_.result;
  if (!std::isfinite(r.loss))
    throw DivergedError(
        "the model of step {} gives logits that are not finite for images of {}/val; lower --lr, lengthen "
        "--warmup-epochs or set --clip-grad-norm (best checkpoint: {})",
        evaluated_at_, o.data, best_step_ < 0 ? "none" : store_->path_for(best_step_).string());
  const double epoch = static_cast<double>(evaluated_at_) / static_cast<double>(steps_per_epoch_);
  if (!logged_value(folder_->metrics_path(), evaluated_at_, kEvalTop1))
    log_->write(
        MetricsRecord()
            .add("step", evaluated_at_)
            .add("epoch", epoch)
            .add(kEvalTop1, r.top1_percent())
            .add("eval/top5", r.top5_percent())
            .add("eval/loss", r.loss)
            .add("eval/images", r.images)
            .add("eval/images_per_second", static_cast<double>(r.images) / std::max(1e-9, last_evaluation_.seconds)));
  note_result(r.top1_percent());
  const char* arithmetic = !model.calibrated()          ? "bf16 activations"
                           : is_servable(model.network) ? "integer engine"
                                                        : "fake quantization";
  message(fmt::format("epoch {:.4g}  eval  top1 {:.2f}  top5 {:.2f}  loss {:.3f}  [{}, {} images, {}]{}", epoch,
                      r.top1_percent(), r.top5_percent(), r.loss, arithmetic, r.images,
                      duration(last_evaluation_.seconds), best_step_ == evaluated_at_ ? "  best" : ""));
  return true;
}

/// Whether the activations of the model of this step are not quantized yet, and will be.
bool TrainingRun::before_calibration(int64_t step) const {
  const RunPlan p = plan();
  return step < p.quantized_from && p.quantized_from <= p.steps;
}

/// The result of evaluating the checkpoint of this step: is it the best so far? One from before calibration is the best
/// until there is a quantized one, whatever their accuracies: it is another model, and none that can be exported.
void TrainingRun::note_result(double top1_percent) {
  const int64_t step = trainer_->steps_done();
  const bool first_quantized = best_step_ >= 0 && before_calibration(best_step_) && !before_calibration(step);
  if (!first_quantized && !(top1_percent > best_top1_)) return;
  best_top1_ = top1_percent;
  best_step_ = step;
  store_->mark_best(step);
  store_->publish(step);  // the best until now may go
}

/// On resume: a checkpoint is written before its evaluation, so the evaluation may be in the log or missing.
void TrainingRun::settle_evaluation() {
  const int64_t done = trainer_->steps_done();
  if (saved_at_ != done || !evaluation_due(done)) return;
  if (const std::optional<double> top1 = logged_value(folder_->metrics_path(), done, kEvalTop1))
    note_result(*top1);
  else if (Meter nothing; !evaluate())
    interrupted(nothing);
}

/// The note in it holds the best result of the evaluations before this step, so that its bytes follow from the step.
void TrainingRun::save() {
  const int64_t step = trainer_->steps_done();
  if (saved_at_ == step) return;
  save_checkpoint(store_->path_for(step), trainer_->model(), trainer_->momentum(), step, run_note(),
                  train_->class_names());
  if (log_ != nullptr) log_->sync();  // there is none yet when given weights are saved before the first step
  store_->publish(step);
  saved_at_ = step;
}

std::string TrainingRun::last_checkpoint() const {
  return saved_at_ < 0 ? "none" : store_->path_for(saved_at_).string();
}

void TrainingRun::interrupted(Meter& meter) {
  if (meter.steps > 0) report(meter);
  save();
  name_bad_images();
  if (note_) note_->finish({.last_step = trainer_->steps_done(), .images_per_second = meter.run_rate()});
  throw InterruptedError("interrupted at step {} and saved; continue with: nibble train --resume {}",
                         trainer_->steps_done(), args_.out);
}

RunSummary TrainingRun::run() {
  message(banner());
  if (const RunPlan p = plan(); p.quantized_from > p.steps)
    warn(
        fmt::format("--calibrate-at gives step {}, after the last of {}: activations are never quantized, and the "
                    "model cannot be exported",
                    p.quantized_from, p.steps));
  if (const double warm_up = args_.options.warmup_epochs * static_cast<double>(steps_per_epoch_);
      !args_.resume && args_.options.warmup_epochs > 0 && warm_up >= static_cast<double>(total_steps()))
    warn(fmt::format("--warmup-epochs {} are {:.0f} steps, the run has {}: the rate rises to the end; give fewer",
                     args_.options.warmup_epochs, warm_up, total_steps()));
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
  estimate_speed();  // before the loader's threads take their share
  begin_loading();
  const TrainOptions& o = args_.options;
  const int64_t total = total_steps();
  if (args_.resume) settle_evaluation();
  std::optional<double> train_loss;
  Meter meter;
  while (trainer_->steps_done() < total) {
    one_step(meter);
    train_loss = meter.last.loss;
    const int64_t done = trainer_->steps_done();
    const bool epoch_ends = done % steps_per_epoch_ == 0, due = evaluation_due(done);
    show(meter);
    if (done % kLogEvery == 0 || epoch_ends || due) report(meter);
    const Clock::time_point from = Clock::now();
    if (due) count_codes();
    if (due || (o.save_every > 0 ? done % o.save_every == 0 : epoch_ends)) save();
    if (stop_requested() || (due && !evaluate())) interrupted(meter);
    meter.exclude(from);
  }
  if (evaluated_at_ != total && !evaluate()) interrupted(meter);
  const double rate = meter.run_rate();
  if (note_) note_->finish({.last_step = total, .images_per_second = rate});
  name_bad_images();
  return {.evaluation = last_evaluation_.result,
          .skipped = static_cast<int64_t>(loader_->skipped().size()),
          .train_loss = train_loss,
          .exportable = is_servable(trainer_->model().network) &&
                        (trainer_->model().calibrated() || trainer_->model().network.quantizers.empty()),
          .steps = total,
          .images_per_second = rate};
}

}  // namespace nibble::apps
