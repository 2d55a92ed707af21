// How a study is opened: its recipe and plan are settled, and what lies in its folder is judged, before anything is
// written.
#include <algorithm>
#include <filesystem>
#include <list>
#include <set>

#include "apps/config_file.hpp"
#include "apps/console.hpp"
#include "apps/study/recipe.hpp"
#include "apps/study/study_run.hpp"
#include "data/decode.hpp"
#include "engine/error.hpp"
#include "engine/files.hpp"
#include "nn/atomic_file.hpp"
#include "nn/checkpoint.hpp"
#include "nn/run_folder.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace fs = std::filesystem;

namespace {

constexpr const char* kUnpacking = "unpacking";  // while results of study.json get folders of their own

/// Results of study.json are being unpacked: an empty file, so that no file of the user's is taken for the mark.
bool is_mark(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && fs::file_size(path, ignored) == 0;
}

StudyPoint point_of(const PointResult& result) {
  return {result.precision, result.width, result.seed};
}

}  // namespace

StudyRun::StudyRun(const StudyRunArgs& args, TrainArguments& recipe) : args_(args), recipe_(recipe) {
  if (path_exists(run_config_path(args_.out)))
    throw UsageError("'{}' is a training run, not a study; choose another folder for --out", args_.out);
  const std::string& data = recipe.options.data;  // of the command line; a file's is known to describe_data
  if (!data.empty()) require_outside_images(args_.out, data);
  const bool begun = path_exists(plan_path(args_.out));
  const bool worker = !args_.worker.empty();
  if (worker && !begun)
    throw UsageError("'{}' is not a study yet; --worker is for those that study run starts", args_.out);
  if (begun && !args_.dry_run && !worker) lock();
  settle_recipe();
  settle_plan();
  if (worker) return;
  read_kept();
  refuse_other_recipes();
  const std::string text = recipe_.config_text(varied_options());  // refuses what no file can hold
  refuse_foreign_files(text);
  if (args_.dry_run) return;
  if (!begun) {  // a refused study leaves no folder behind, and nothing in a user's
    make_folders(args_.out);
    lock();
    if (path_exists(plan_path(args_.out)))
      throw UsageError("meanwhile another process has begun the study '{}'; try again", args_.out);
  }
  unpack_kept();
  write_file_atomically(recipe_path(args_.out), text);
  write_file_atomically(plan_path(args_.out), to_json(plan_));  // last: its presence makes the folder a study
}

void StudyRun::lock() {
  lock_ = std::make_unique<FolderLock>(args_.out, "working on the study");
}

/// A folder without a plan is no study yet: what lies there under its files' names is the user's. The recipe that this
/// call would write may be there, from a call that was stopped between its two writes.
void StudyRun::refuse_foreign_files(const std::string& recipe) const {
  const fs::path file = recipe_path(args_.out), mark = fs::path(args_.out) / kUnpacking;
  if (path_exists(mark) && !is_mark(mark))
    throw UsageError("'{}' is in the way of the study, which makes a file of that name; move it away", mark.string());
  if (path_exists(plan_path(args_.out)) || !path_exists(file) || read_text_file(file, kLongestConfig) == recipe) return;
  throw UsageError(
      "'{}' is there already and would be replaced by this study's recipe; move it away (--config takes it from any "
      "place, also where the study's plan was lost) or choose another folder for --out",
      file.string());
}

void StudyRun::settle_recipe() {
  TrainArguments own;
  std::vector<PrecisionOverride>& layers = recipe_.options.network.overrides;
  const bool known = path_exists(plan_path(args_.out));
  if (known) {
    own.read(recipe_path(args_.out).string());
    recipe_.read(recipe_path(args_.out).string());
    layers.clear();
  }
  if (!args_.config.empty()) recipe_.read(args_.config);
  if (known && layers.empty()) layers = own.options.network.overrides;
  recipe_.resolve();
  if (recipe_.options.data.empty())
    throw UsageError("--data is missing{}; name the image folder (nibble synth makes one)",
                     path_exists(one_file_path(args_.out))
                         ? fmt::format(" ('{}' has results, but no {}, with which it would go on by itself)", args_.out,
                                       plan_path(args_.out).filename().string())
                         : "");
  settle_decoder(known ? own.options.decoder : "");
  if (!known) return;
  const ConfigDifference d = recipe_difference(recipe_.config_text(), own.config_text(), varied_options());
  if (!d.name.empty())
    throw UsageError(
        "the study '{}' has {} = {}, not {}: all its points share one recipe; leave the option out or begin another "
        "study",
        args_.out, d.name, d.second, d.first);
}

/// `auto` may be another decoder where the study continues, so the recipe names the one it began with (`own`; empty: it
/// begins now). A study of an older version has `auto`, and keeps it until a decoder is asked for.
void StudyRun::settle_decoder(const std::string& own) {
  std::string& decoder = recipe_.options.decoder;
  const Decoder asked = decoder_from_name(decoder);
  if (own.empty()) {
    decoder = name_of(resolve(asked));
    return;
  }
  const Decoder begun = decoder_from_name(own);
  if (begun == Decoder::auto_) return;
  if (begun == Decoder::turbo && resolve(Decoder::auto_) != Decoder::turbo)
    throw UsageError(
        "the study '{}' was begun with the decoder {}, which this build does not have, and the pixels of {} differ: "
        "build with libturbojpeg0-dev installed, or begin another study",
        args_.out, own, name_of(Decoder::stb));
  if (asked == Decoder::auto_) decoder = name_of(resolve(asked));
}

/// What lies in the image folder now, which must be what the plan says.
StudyData StudyRun::same_data() {
  const StudyData data = describe_data();
  StudyData begun = plan_.data;
  if (begun.images.empty()) begun.images = data.images;  // of a version that did not note them
  if (!(data == begun))
    throw DataError(
        "{} has {} training and {} validation images of {} classes, the study '{}' was begun with {}, {} and {} (or "
        "with images or classes of other names): use the same images or begin another study",
        recipe_.options.data, data.train_images, data.validation_images, data.class_names.size(), args_.out,
        plan_.data.train_images, plan_.data.validation_images, plan_.data.class_names.size());
  return data;
}

void StudyRun::settle_plan() {
  const bool known = path_exists(plan_path(args_.out));
  if (known) plan_ = read_plan(args_.out);
  plan_.data = known ? same_data() : describe_data();
  const int64_t limit = args_.train_eval_images.value_or(plan_.train_eval_images);
  if (known && limit != plan_.train_eval_images)
    throw UsageError("the study '{}' has train-eval-images = {}, not {}: leave the option out or begin another study",
                     args_.out, plan_.train_eval_images, limit);
  plan_.train_eval_images = limit;
  if (limit > 0 && !plan_.train_eval_spread && args_.worker.empty())
    warn(
        fmt::format("the study '{}' was begun by a version that evaluated its first {} training images, of few "
                    "classes; now they are spread over all: remove older results to measure them again",
                    args_.out, grouped(limit)));
  if (!known || !args_.grid.empty()) plan_.add(args_.grid);
  if (plan_.points.empty()) throw UsageError("the study '{}' has no points; give --widths and --precisions", args_.out);
  settle_start(known);
  for (const StudyPoint& p : plan_.points) {  // what cannot be trained is refused before anything is written
    set_point(p);
    recipe_.options.validate();
    const Network net = build_resnet(recipe_.options.network);
    if (const int64_t at = recipe_.options.calibrate_step(steps_); !net.quantizers.empty() && at >= steps_)
      throw UsageError(
          "--calibrate-at gives step {} of {}: no step would train {} with quantized activations; use a smaller value",
          at, steps_, p.name());
  }
}

/// Where each point starts, in a study that was begun with weights or is begun with them now.
void StudyRun::settle_start(bool known) {
  StudyStart& start = plan_.start;
  const std::vector<PointStart> begun = start.points;
  if (!args_.weights.empty()) {
    if (known && start.weights.empty())
      throw UsageError(
          "the study '{}' was begun without --weights: all its points start alike; leave the option out or begin "
          "another study",
          args_.out);
    start = {.weights = args_.weights, .choice = args_.weights_choice, .points = {}};
    for (const PointStart& s : begun) start.add({"", s.width, s.seed});
  }
  for (const PointStart& before : begun)
    if (const PointStart* now = start.of({"", before.width, before.seed}); now->sha256 != before.sha256)
      throw ModelError(
          "'{}' has other bytes than the weights that the study '{}' was begun with ({}); give these, or "
          "begin another study",
          now->file, args_.out, before.file);
  if (start.weights.empty() || !args_.worker.empty()) return;
  for (const StudyPoint& p : plan_.points) start.add(p);
  std::set<std::pair<double, std::string>> checked;
  for (const PointStart& s : start.points) {
    const bool is_new = std::find(begun.begin(), begun.end(), s) == begun.end();
    if (is_new && checked.emplace(s.width, s.file).second) check_start(s);
  }
}

/// Errors: load_torchvision_weights.
void StudyRun::check_start(const PointStart& start) {
  set_point({"bf16", start.width, start.seed});
  Model model = make_model(build_resnet(recipe_.options.network), {});
  const GivenWeights given = load_torchvision_weights(start.file, model, plan_.data.class_names, plan_.start.choice);
  if (!given.fresh.empty())
    message(fmt::format("x{}: {} starts from scratch: {}", start.width, given.fresh, given.because));
}

void StudyRun::refuse_other_start(const PointResult& result, const fs::path& source, const fs::path& remedy) const {
  const PointStart* start = plan_.start.of(point_of(result));
  const std::string& made_from = result.provenance.weights_sha256;
  if (start == nullptr && !plan_.start.weights.empty()) return;  // it is not in the plan
  if (made_from == (start == nullptr ? "" : start->sha256)) return;
  throw UsageError("{} was trained from {}, the points of the study start from {}; remove {}", source.string(),
                   made_from.empty() ? "nothing" : result.provenance.weights,
                   start == nullptr ? "nothing" : start->file, remedy.string());
}

/// Results that a repository keeps in one file, as the report writes it, are finished points too.
void StudyRun::read_kept() {
  if (path_exists(args_.out)) kept_file_ = source_in(args_.out).file;
  // Next to results it counts only where the machine stopped while it was unpacked.
  const fs::path one_file = one_file_path(args_.out);
  if (kept_file_.empty() && is_mark(fs::path(args_.out) / kUnpacking) && path_exists(one_file)) kept_file_ = one_file;
  if (kept_file_.empty()) return;
  for (PointResult& p : read_study(kept_file_)) {
    try {
      parse_precision(p.precision);
    } catch (const UsageError& e) {
      throw DataError("{} has a point '{}' that no study can have: {}", kept_file_.string(), p.name, e.what());
    }
    if (const std::string name = point_of(p).name(); p.name != name)
      throw DataError("{} has a point called '{}' that is {}; put the file back or remove it", kept_file_.string(),
                      p.name, name);
    if (!path_exists(result_path(args_.out, p.name))) kept_.emplace(p.name, std::move(p));
  }
}

/// Each into a folder of its own: next to other results the one file does not count. All are written before the first
/// gets its name, so that a full disk does not leave some of them alone; a mark says so where the machine stops
/// between.
void StudyRun::unpack_kept() {
  const fs::path mark = fs::path(args_.out) / kUnpacking;
  std::list<AtomicFile> files;
  for (const auto& [name, result] : kept_) {
    make_folders(fs::path(args_.out) / name);
    files.emplace_back(result_path(args_.out, name)).append(to_json(result));
  }
  if (!files.empty()) write_file_atomically(mark, "");
  for (AtomicFile& file : files) file.commit();
  std::error_code left;  // a mark that stays does no harm: all its results are there
  if (is_mark(mark)) fs::remove(mark, left);
  kept_.clear();
}

/// A result from elsewhere, or a run begun before the plan was lost, counts only when it is of this recipe; so do those
/// not in the plan, which the report shows with the others.
void StudyRun::refuse_other_recipes() {
  for (const auto& [name, result] : kept_) {
    refuse_other_recipe(result.provenance.config, point_of(result), kept_file_, kept_file_);
    refuse_other_start(result, kept_file_, kept_file_);
  }
  if (path_exists(args_.out))
    for (const fs::path& file : source_in(args_.out).results) {
      const PointResult result = read_point_result(file);
      const StudyPoint point = point_of(result);
      if (file.parent_path().filename() != point.name())
        throw DataError("{} is the result of {} in a folder of another name; move it out of the study or remove it",
                        file.string(), point.name());
      refuse_other_recipe(result.provenance.config, point, file, file.parent_path());
      refuse_other_start(result, file, file.parent_path());
    }
  for (const StudyPoint& p : plan_.points)
    if (state_of(p) != PointState::kDone && path_exists(config_of(p)))
      refuse_other_recipe(read_text_file(config_of(p), kLongestConfig), p, config_of(p), folder_of(p));
}

/// Options that the version of `config` did not have yet were at their defaults.
void StudyRun::refuse_other_recipe(const std::string& config, const StudyPoint& point, const fs::path& source,
                                   const fs::path& remedy) {
  if (config.empty()) return;
  set_point(point);
  const std::string whole = with_missing_options(config, TrainArguments().config_text());
  const ConfigDifference d = recipe_difference(recipe_.config_text(), whole, {});
  if (!d.name.empty())
    throw UsageError("{} was made with {} = {}, the study has {}: all its points share one recipe; remove {}",
                     source.string(), d.name, d.second, d.first, remedy.string());
}

StudyData StudyRun::describe_data() {
  require_outside_images(args_.out, recipe_.options.data);
  const TrainingRun run({.options = recipe_.options, .config_text = {}, .out = {}, .weights = {}, .resume = false});
  const RunPlan p = run.plan();
  recipe_.options.network.classes = p.classes;
  steps_ = p.steps;
  steps_per_epoch_ = p.steps_per_epoch;
  train_ = run.training_set();
  return {.class_names = run.training_set()->class_names(),
          .train_images = p.train_images,
          .validation_images = p.validation_images,
          .images = (recipe_.options.per_class > 0 ? "" : run.image_digest() + " ") + run.validation_digest()};
}

}  // namespace nibble::apps
