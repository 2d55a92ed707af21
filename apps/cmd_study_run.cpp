// nibble study run
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/network_arguments.hpp"
#include "apps/options.hpp"
#include "apps/signals.hpp"
#include "apps/study/point_json.hpp"
#include "apps/study/recipe.hpp"
#include "apps/study/study_run.hpp"
#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "nn/atomic_file.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace {

const char* name_of(PointState s) {
  switch (s) {
    case PointState::kWaiting:
      return "waiting";
    case PointState::kBegun:
      return "begun";
    case PointState::kFailed:
      return "failed";
    case PointState::kDone:
      return "done";
  }
  return "";
}

class StudyRunCommand : public Command {
 public:
  const char* name() const override { return "run"; }
  const char* summary() const override { return "train and measure widths x precisions x seeds, one recipe for all"; }
  const char* examples() const override {
    return "  nibble study run --data imagenette --out studies/a --image-size 64 --dry-run\n"
           "  nibble study run --data imagenette --out studies/a --image-size 64 --epochs 20\n"
           "  nibble study run --out studies/a                      # continues where it stopped\n"
           "  nibble study run --out studies/a --extra-seeds 1:1    # adds a second seed at width 1\n"
           "  nibble study run --out studies/a --jobs 4             # four points at a time, for many cores\n"
           "  nibble study run --data imagenette --out studies/tuned --image-size 64 --weights studies/a --lr 0.005 "
           "--epochs 3     # from its bf16 models";
  }

  const char* notes() const override {
    return "\n\nPoints in the published arithmetic (--preset paper, --quant-mode fake) have neither bytes nor "
           "milliseconds:\nquantized ones cannot be served, and bf16 ones are not measured along with them. So nibble "
           "study pick finds them\nunder a budget of cost (--max-linear, ...), not under --max-bytes or --max-ms, and "
           "nibble study measure\nskips them.";
  }

  void declare(CLI::App& app) override {
    add_option(app, "--out", args_.out, "folder of the study, new or begun").required();
    add_option(app, "--widths", args_.grid.widths, "filter multipliers (new study: 0.5,0.75,1,1.5)").delimiter(',');
    add_option(app, "--precisions", args_.grid.precisions, "precisions (new study: bf16,w8a8,w4a4,w4a4-fl8)")
        .delimiter(',');
    add_option(app, "--seeds", args_.grid.seeds, "seeds (new study: 0)").delimiter(',');
    add_option(app, "--extra-seeds", extra_seeds_, "more seeds at one width, all precisions: WIDTH:SEED, such as 1:1")
        .delimiter(',');
    add_option(
        app, "--weights", args_.weights,
        "trained weights that every point starts from (safetensors, .pth, a checkpoint, a run), or a study: then "
        "those of its bf16 model of the same width, and seed if it has that");
    declare_weights_choice(app, args_.weights_choice);
    add_option(
        app, "--train-eval-images", args_.train_eval_images,
        "training images, spread over all classes, evaluated without augmentation, for the generalization gap (0: "
        "all; new study: 0)");
    add_option(app, "--config", args_.config,
               "TOML file with the recipe's options; width, precision and seed in it do not count, its [layers] apply "
               "to every point");
    add_flag(app, "--dry-run", args_.dry_run, "print the points and the time each will take, and stop");
    add_flag(app, "--json", json_, "print one JSON object");
    add_flag(app, "--quiet", quiet_, "no estimate and no progress, only warnings and errors");
    declare_threads(app, threads_);
    add_option(app, "--jobs", args_.jobs,
               "points trained at the same time, each by a process with its share of --threads; their models are timed "
               "at the end, in turn")
        .capture_default_str();
    add_option(app, "--worker", args_.worker, "").group("");  // what --jobs starts
    recipe_.declare(app, varied_options());
  }

  int run() override {
    if (quiet_) set_quiet();
    quiet_ = verbosity() == Verbosity::kQuiet;  // NIBBLE_LOG may say it, too
    apply_threads(threads_);
    install_signal_handlers();
    if (args_.train_eval_images.value_or(0) < 0)
      throw UsageError("--train-eval-images is {}; use 0 (all) or more", *args_.train_eval_images);
    require_weights_of_choice(args_.weights, args_.weights_choice);
    for (const std::string& text : extra_seeds_) args_.grid.extra_seeds.push_back(parse_extra_seed(text));
    std::error_code unknown;
    if (recipe_.given().contains("preset") && std::filesystem::exists(plan_path(args_.out), unknown))
      throw UsageError("the study '{}' has its recipe already; --preset is for a new one, leave it out", args_.out);
    recipe_.read_preset();
    args_.threads = threads();
    args_.quiet = quiet_;
    if (args_.jobs < 1 || args_.jobs > args_.threads)
      throw UsageError("--jobs is {}; use 1 to {}, the number of threads", args_.jobs, args_.threads);
    StudyRun study(args_, recipe_);
    if (!args_.worker.empty()) return static_cast<int>(study.run_worker() ? ExitCode::kFailed : ExitCode::kDone);
    warn_of_mixed_bf16(study.plan());
    if (!args_.weights.empty()) warn_of_rate_for_nothing(recipe_);
    std::vector<PointEstimate> estimates;
    if (!quiet_ || args_.dry_run) {
      estimates = study.estimate();
      if (args_.dry_run && json_)
        print_object(plan_json(estimates));
      else
        show_plan(estimates, study.seconds_to_go(estimates));
    }
    if (args_.dry_run) return 0;
    const StudyRun::Outcome outcome = study.run(estimates);
    finish(study, outcome);
    return static_cast<int>(outcome.failed.empty() ? ExitCode::kDone : ExitCode::kFailed);
  }

 private:
  /// The dry run's result, or what a study says before it starts.
  void show_plan(const std::vector<PointEstimate>& estimates, double seconds_to_go) const {
    std::vector<std::vector<std::string>> rows = {{"point", "linear cost", "state", "time"}};
    for (const PointEstimate& e : estimates) {
      rows.push_back({e.point.name(), fmt::format("{:.3f}", e.linear_ratio), name_of(e.state),
                      e.seconds > 0 ? duration(e.seconds) : "-"});
    }
    const std::string text =
        format_table(rows) +
        fmt::format("\n{}{}, about {} to go ({}, by a probe){}",
                    counted(static_cast<int64_t>(estimates.size()), "point"),
                    args_.jobs > 1 ? fmt::format(", {} at a time", args_.jobs) : "", duration(seconds_to_go),
                    recipe_.options.network.mode == QuantMode::kFake ? "what is still to train; evaluations come on top"
                                                                     : "what is still to train and to evaluate",
                    layers_text() + preset_text());
    args_.dry_run ? print(text) : message(text);
  }

  std::string preset_text() const {
    const std::string summary = recipe_.preset_summary();
    return summary.empty() ? "" : "\npreset " + summary;
  }

  /// The layers that every point has at a precision of their own.
  std::string layers_text() const {
    const std::string text = overrides_text(recipe_.options.network.overrides);
    return text.empty() ? "" : "\nin all points: " + text;
  }

  /// `[layers]` hold for every point, including those that others are compared with.
  void warn_of_mixed_bf16(const StudyPlan& plan) const {
    std::vector<PrecisionOverride> quantized = recipe_.options.network.overrides;
    std::erase_if(quantized, [](const PrecisionOverride& o) { return o.precision == Precision{}; });
    if (quantized.empty() ||
        std::none_of(plan.points.begin(), plan.points.end(), [](const StudyPoint& p) { return p.precision == "bf16"; }))
      return;
    warn(
        fmt::format("[layers] of the recipe apply to every point, so the bf16 points are not all bf16 ({}), and the "
                    "report compares with them as they are",
                    overrides_text(quantized)));
  }

  nlohmann::ordered_json plan_json(const std::vector<PointEstimate>& estimates) const {
    nlohmann::ordered_json j;
    j["points"] = nlohmann::ordered_json::array();
    for (const PointEstimate& e : estimates)
      j["points"].push_back({{"name", e.point.name()},
                             {"precision", e.point.precision},
                             {"width", e.point.width},
                             {"seed", e.point.seed},
                             {"state", name_of(e.state)},
                             {"linear_ratio", e.linear_ratio},
                             {"seconds", e.seconds}});
    j["layers"] = nlohmann::ordered_json::object();
    for (const PrecisionOverride& o : recipe_.options.network.overrides)
      j["layers"][o.layer] = precision_text(o.precision);
    if (const nlohmann::ordered_json preset = recipe_.preset_json(); !preset.is_null()) j["preset"] = preset;
    return j;
  }

  void finish(const StudyRun& study, const StudyRun::Outcome& outcome) const {
    nlohmann::ordered_json j;
    j["points"] = nlohmann::ordered_json::array();
    std::vector<std::vector<std::string>> rows = {{"point", "linear cost", "top1 best", "top1 last", "train", "bytes"}};
    for (const std::string& name : outcome.done) {
      const PointResult p = read_point_result(result_path(args_.out, name));
      j["points"].push_back(point_json(p));
      rows.push_back({name, fmt::format("{:.3f}", p.ratio.linear), fmt::format("{:.2f}", p.best.top1),
                      fmt::format("{:.2f}", p.last.top1), fmt::format("{:.2f}", p.train_unaugmented.top1),
                      p.served_bytes > 0 ? grouped(static_cast<int64_t>(p.served_bytes)) : "-"});
    }
    j["failed"] = nlohmann::ordered_json::array();
    for (const auto& f : outcome.failed) j["failed"].push_back({{"name", f.point}, {"error", f.sentence}});
    if (json_) {
      print_object(j);
      return;
    }
    if (!outcome.done.empty()) print(format_table(rows));
    for (const auto& f : outcome.failed) print(fmt::format("failed: {}: {}", f.point, f.sentence));
    if (!outcome.failed.empty())
      print(fmt::format("nibble study run --out {} tries the failed points again; remove {} to begin one from scratch",
                        shell_quoted(args_.out), shell_quoted(args_.out + "/" + outcome.failed.front().point)));
    print(fmt::format("done: {} of {}{}", outcome.done.size(),
                      counted(static_cast<int64_t>(study.plan().points.size()), "point"),
                      outcome.done.empty() ? "" : "; next: nibble study report " + shell_quoted(args_.out)));
  }

  StudyRunArgs args_;
  TrainArguments recipe_;
  std::vector<std::string> extra_seeds_;
  bool json_ = false, quiet_ = false;
  int64_t threads_ = 0;
};

}  // namespace

Command* study_run_command() {
  return new StudyRunCommand;
}

}  // namespace nibble::apps
