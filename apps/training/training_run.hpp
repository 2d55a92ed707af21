// One training run: the order of starting, stepping, evaluating, saving and ending, in its folder.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "apps/bad_images.hpp"
#include "apps/machine_note.hpp"
#include "apps/step_probe.hpp"
#include "apps/training/run_data.hpp"
#include "apps/training/run_evaluation.hpp"
#include "apps/training/run_note.hpp"
#include "apps/training/run_plan.hpp"
#include "apps/training/step_meter.hpp"
#include "data/loader.hpp"
#include "nn/import/weights_file.hpp"
#include "nn/metrics_log.hpp"
#include "nn/run_folder.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

struct RunArgs {
  TrainOptions options;
  std::string config_text;  // the resolved config, written into the run folder
  std::string out;
  std::string weights;  // start from these (open_weights); empty: fresh
  WeightsChoice weights_choice = {};
  std::string weights_sha256 = {};  // that they must have; empty: whatever they have
  bool resume = false;
  bool in_study = false;  // its options are those of other runs, too
};

struct RunSummary {
  EvaluationResult evaluation;
  std::string outcomes;              // EvaluationReport::outcomes of the same evaluation
  int64_t skipped = 0;               // training images that were replaced, by this process
  std::optional<double> train_loss;  // of the last step; none when a finished run is asked for its result again
  bool exportable = false;
  int64_t steps = 0;
  double images_per_second = 0;  // of the steps and of waiting for their images; no evaluations, no checkpoints
};

/// Throws InterruptedError after saving when a signal asked to stop, DivergedError naming a checkpoint
/// before it.
class TrainingRun {
 public:
  /// Opens the images and plans; makes nothing. Errors: those of open_run_data, require_outside_images and
  /// plan_run.
  explicit TrainingRun(const RunArgs& args);
  const RunPlan& plan() const { return plan_; }
  /// The plan as text: shown before the first step, and the result of --dry-run.
  std::string banner() const { return plan_text(plan_, args_.options, data_); }
  /// Reads the given weights, if any, into a model and forgets it: for --dry-run. Errors: load_torchvision_weights.
  void check_weights() const;
  /// Warns of what the plan is hardly meant to do.
  void warn_of_doubts() const;
  /// Bytes of memory that it will take, and the line that says so.
  int64_t peak_memory() const;
  std::string memory_line(int64_t peak, int64_t available) const;
  RunSummary run();
  /// The images that are trained on, without augmentation.
  const DatasetPtr& training_set() const { return data_.train; }
  /// RunData::digest.
  const std::string& image_digest() const { return data_.digest; }
  const std::string& validation_digest() const { return data_.validation_digest; }

 private:
  void say_memory(int64_t available) const;
  void start();
  void start_fresh();
  void take_weights(Model& model) const;
  void start_from_checkpoint();
  void open_folder();
  void keep_config() const;
  void begin_loading();
  void estimate_speed();
  double epochs(int64_t steps) const;

  Batch next_batch(StepMeter& meter);
  void one_step(StepMeter& meter);
  [[noreturn]] void diverged(const DivergedError& e, StepMeter& meter);
  void show(StepMeter& meter) const;
  void report(StepMeter& meter);
  void name_bad_images();

  bool evaluation_due(int64_t done) const;
  bool evaluate();
  void note_result(double top1_percent);
  void settle_evaluation();

  void save();
  void note_machine(double images_per_second);
  [[noreturn]] void interrupted(double images_per_second);

  RunArgs args_;
  RunData data_;
  RunPlan plan_;
  RunNote note_;  // with the best result so far
  std::optional<RunFolder> folder_;
  std::unique_ptr<CheckpointStore> store_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<TrainLoader> loader_;
  std::unique_ptr<MetricsLog> log_;
  std::optional<MachineNote> machine_;  // none when no step is left
  std::optional<StepPace> pace_;
  EvaluationResult last_evaluation_;
  std::string last_outcomes_;
  int64_t evaluated_at_ = -1;  // steps done at the last evaluation of this process
  int64_t saved_at_ = -1;
  std::string weights_sha256_;  // of the given weights
  BadImageNames bad_images_;
};

}  // namespace nibble::apps
