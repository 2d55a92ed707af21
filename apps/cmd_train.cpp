// nibble train
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/memory_forecast.hpp"
#include "apps/network_arguments.hpp"
#include "apps/signals.hpp"
#include "apps/study/plan.hpp"
#include "apps/train_arguments.hpp"
#include "apps/training/run_note.hpp"
#include "apps/training/training_run.hpp"
#include "nn/atomic_file.hpp"
#include "nn/run_folder.hpp"

namespace nibble::apps {

namespace {

class Train : public Command {
 public:
  const char* name() const override { return "train"; }
  const char* summary() const override { return "train a ResNet on an image folder"; }
  const char* examples() const override {
    return "  nibble train --data imagenette --out runs/a --precision w4a4-fl8 --image-size 128\n"
           "  nibble train --resume runs/a\n"
           "  nibble train --data DIR --out runs/b --weights resnet50.pth --lr 0.005\n"
           "  nibble train --data DIR --preset paper --batch-size 64 --dry-run   # the published recipe";
  }

  void declare(CLI::App& app) override {
    add_option(app, "--out", out_, "run folder to make");
    add_option(app, "--resume", resume_, "run folder to continue");
    add_option(app, "--weights", weights_,
               "start from a safetensors or .pth file with torchvision's names, a checkpoint or a run folder (its "
               "best, else its latest)");
    declare_weights_choice(app, weights_choice_);
    add_option(app, "--config", config_,
               "TOML file with the options below, for data, network and training; the command line wins");
    add_flag(app, "--dry-run", dry_run_, "print the plan and stop");
    add_flag(app, "--json", json_, "print the result (with --dry-run: the plan) as one JSON object");
    add_flag(app, "--quiet", quiet_, "no progress, only warnings and errors");
    declare_threads(app, threads_);
    arguments_.declare(app);
  }

  int run() override {
    if (quiet_) set_quiet();
    apply_threads(threads_);
    if (!dry_run_) install_signal_handlers();
    read_options();
    RunArgs args{.options = arguments_.options,
                 .config_text = {},
                 .out = resume_.empty() ? out_ : resume_,
                 .weights = weights_file(),
                 .weights_choice = weights_choice_,
                 .resume = !resume_.empty()};
    args.config_text = arguments_.config_text();
    if (!weights_.empty()) warn_of_rate_for_nothing(arguments_);
    TrainingRun run(args);
    if (dry_run_) {
      run.warn_of_doubts();
      run.check_weights();
      const int64_t memory = run.peak_memory();
      if (json_)
        print_object(plan_json(run.plan(), memory));
      else
        print(run.banner() + "\n" + run.memory_line(memory, available_memory()) + preset_line());
      return 0;
    }
    const RunSummary summary = run.run();
    finish(summary, args.out);
    return 0;
  }

 private:
  /// For a run folder the checkpoint that its link leads to now, so that what is noted of the start is what was read.
  std::string weights_file() const {
    if (weights_.empty()) return "";
    const std::filesystem::path file = resolve_model_path(weights_);
    std::error_code unknown;
    const std::filesystem::path target = file == weights_ ? file : std::filesystem::canonical(file, unknown);
    return unknown ? file.string() : target.string();
  }

  /// Flag > environment > file > preset > default: the file fills what the command line left alone.
  void read_options() {
    if (!resume_.empty() && !out_.empty()) throw UsageError("--resume continues in its own folder; leave out --out");
    if (!resume_.empty() && !config_.empty())
      throw UsageError("--resume uses the run's own options; leave out --config");
    if (!resume_.empty() && !weights_.empty())
      throw UsageError("--resume continues from the run's own checkpoint; leave out --weights");
    require_weights_of_choice(weights_, weights_choice_);
    if (!resume_.empty()) {
      RunFolder::require_run(resume_);
      refuse_changed_options();
    }
    const std::string file = resume_.empty() ? config_ : run_config_path(resume_).string();
    arguments_.read_preset();
    if (!file.empty()) arguments_.read(file);
    arguments_.resolve();
    if (arguments_.options.data.empty())
      throw UsageError("--data is missing; name the image folder (nibble synth makes one)");
    if (!dry_run_ && resume_.empty() && out_.empty())
      throw UsageError("--out is missing; name the folder the run is kept in");
    if (resume_.empty() && !out_.empty() && path_exists(plan_path(out_)))
      throw UsageError("--out {} is a study, which could not continue with a run in its place; choose another folder",
                       out_);
  }

  /// A resumed run is the same run: only options that cannot change the result may be given.
  void refuse_changed_options() const {
    for (const std::string& name : arguments_.given())
      if (!changeable_on_resume().contains(name))
        throw UsageError("--{} cannot change when a run is resumed; start a new run with it", name);
  }

  std::string preset_line() const {
    const std::string summary = arguments_.preset_summary();
    return summary.empty() ? "" : "\npreset " + summary;
  }

  nlohmann::ordered_json plan_json(const RunPlan& p, int64_t memory) const {
    nlohmann::ordered_json j;
    j["train_images"] = p.train_images;
    j["val_images"] = p.validation_images;
    j["classes"] = p.classes;
    j["parameters"] = p.parameters;
    j["macs"] = p.macs;
    j["steps"] = p.steps;
    j["steps_per_epoch"] = p.steps_per_epoch;
    j["quantized_from"] = p.quantized_from;
    j["peak_memory_bytes"] = memory;
    j["layers"] = nlohmann::ordered_json::object();
    for (const PrecisionOverride& o : arguments_.options.network.overrides)
      j["layers"][o.layer] = precision_text(o.precision);
    if (const nlohmann::ordered_json preset = arguments_.preset_json(); !preset.is_null()) j["preset"] = preset;
    return j;
  }

  void finish(const RunSummary& s, const std::string& out) const {
    if (json_) {
      nlohmann::ordered_json j;
      j["top1"] = s.evaluation.top1_percent();
      j["top5"] = s.evaluation.top5_percent();
      j["loss"] = s.evaluation.loss;
      if (s.train_loss) j["train_loss"] = *s.train_loss;
      j["steps"] = s.steps;
      j["images_per_second"] = s.images_per_second;
      j["skipped"] = s.skipped;
      j["logits_sha256"] = s.evaluation.logits_sha256;
      j["out"] = out;
      print_object(j);
      return;
    }
    const bool trained = s.images_per_second > 0;  // not when a finished run is asked for its result again
    print(fmt::format("done: top1 {:.2f}  top5 {:.2f}  loss {:.3f}  {} steps  {}{}{}", s.evaluation.top1_percent(),
                      s.evaluation.top5_percent(), s.evaluation.loss, s.steps,
                      trained ? fmt::format("{:.1f} img/s  ", s.images_per_second) : "",
                      s.skipped > 0 ? counted(s.skipped, "unreadable image") + " replaced  " : "", out));
    if (s.exportable)
      print(fmt::format("next: nibble export {} --out model.safetensors", shell_quoted(out + "/latest")));
  }

  TrainArguments arguments_;
  std::string out_, resume_, weights_, config_;
  WeightsChoice weights_choice_;
  bool dry_run_ = false, json_ = false, quiet_ = false;
  int64_t threads_ = 0;
};

}  // namespace

Command* train_command() {
  return new Train;
}

}  // namespace nibble::apps
