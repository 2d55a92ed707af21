// One training run: data, trainer, run folder, progress, checkpoints, resume.
#pragma once
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "apps/machine_note.hpp"
#include "apps/model_input.hpp"
#include "apps/step_probe.hpp"
#include "data/loader.hpp"
#include "nn/metrics_log.hpp"
#include "nn/run_folder.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

struct RunArgs {
  TrainOptions options;
  std::string config_text;  // the resolved config, written into the run folder
  std::string out;
  std::string weights;  // start from these (safetensors, torchvision's names); empty: fresh
  bool resume = false;
};

struct RunSummary {
  EvaluationResult evaluation;
  int64_t skipped = 0;               // training images that were replaced, by this process
  std::optional<double> train_loss;  // of the last step; none when a finished run is asked for its result again
  bool exportable = false;
  int64_t steps = 0;
  double images_per_second = 0;  // of the steps and of waiting for their images; no evaluations, no checkpoints
};

/// What a run is going to do, in numbers.
struct RunPlan {
  int64_t train_images = 0, validation_images = 0, classes = 0;
  int64_t parameters = 0, macs = 0;  // macs: of one image, forward
  int64_t steps = 0, steps_per_epoch = 0;
  int64_t quantized_from = -1;  // first step with quantized activations; -1: never
};

/// Options that a run may be given anew when it is resumed: no result depends on them, or (decoder) it is checked
/// apart.
const std::set<std::string>& changeable_on_resume();

/// Throws InterruptedError after saving when a signal asked to stop, DivergedError naming the last good checkpoint.
class TrainingRun {
 public:
  explicit TrainingRun(const RunArgs& args);
  ~TrainingRun();
  RunPlan plan() const;
  /// The plan as text: data, model, steps; shown before the first step, and the result of --dry-run.
  std::string banner() const;
  RunSummary run();
  /// The images that are trained on, without augmentation.
  const DatasetPtr& training_set() const { return train_; }

 private:
  struct Meter;
  void open_data();
  void open_folder();
  void start_fresh();
  void start_from_checkpoint();
  void keep_config() const;
  void begin_loading();
  int64_t total_steps() const;
  std::string result_options() const;
  std::string run_note() const;
  Batch next_batch();
  void estimate_speed();
  void one_step(Meter& meter);
  void report(Meter& meter);
  void show(Meter& meter);
  bool evaluation_due(int64_t done) const;
  bool before_calibration(int64_t step) const;
  void name_bad_images();
  void count_codes();
  bool evaluate();
  void note_result(double top1_percent);
  void settle_evaluation();
  void save();
  [[noreturn]] void interrupted(Meter& meter);
  std::string last_checkpoint() const;

  RunArgs args_;
  DatasetPtr train_, validation_;
  std::string decoder_;
  std::optional<RunFolder> folder_;
  std::unique_ptr<CheckpointStore> store_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<TrainLoader> loader_;
  std::unique_ptr<MetricsLog> log_;
  std::optional<MachineNote> note_;  // none when no step is left
  std::optional<StepPace> pace_;
  EvaluationReport last_evaluation_;
  int64_t evaluated_at_ = -1;  // steps done at the last evaluation of this process
  int64_t saved_at_ = -1;
  double best_top1_ = -1;
  int64_t best_step_ = -1;
  int64_t steps_per_epoch_ = 0;
  std::string images_digest_;
  std::set<std::string> named_images_;  // bad ones that were named on stderr
};

}  // namespace nibble::apps
