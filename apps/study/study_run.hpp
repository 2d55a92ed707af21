// The sweep: every point of a plan trained, measured and written down, one after another or some at a time, resumable
// at any moment.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/step_probe.hpp"
#include "apps/study/plan.hpp"
#include "apps/study/point_processes.hpp"
#include "apps/study/study_progress.hpp"
#include "apps/train_arguments.hpp"
#include "apps/training/training_run.hpp"
#include "nn/folder_lock.hpp"
#include "nn/study/point_result.hpp"

namespace nibble::apps {

struct StudyRunArgs {
  std::string out;      // the study's folder
  std::string config;   // TOML file with options of the recipe; empty: none
  std::string weights;  // see StudyStart; empty: the plan's
  WeightsChoice weights_choice = {};
  StudyGrid grid;                            // empty: the plan's points, or the default grid for a new study
  std::optional<int64_t> train_eval_images;  // see StudyPlan; none: the plan's, or all for a new study
  bool dry_run = false;                      // nothing is written
  bool quiet = false;                        // of the processes that --jobs starts
  int64_t jobs = 1;                          // points trained at the same time, each by a process of its own
  int64_t threads = 1;                       // of all of them together, at least `jobs`
  std::string worker;                        // the one point that this process trains, for another that has the lock
};

/// Where a point stands.
enum class PointState { kWaiting, kBegun, kFailed, kDone };

/// Seconds that a point will take by a probe of its narrowest and widest relatives: its steps, its evaluations (as fast
/// as the served model; of fake mode, which is not served, none are counted) and that of its training images.
struct PointEstimate {
  StudyPoint point;
  PointState state = PointState::kWaiting;
  double linear_ratio = 0;  // cost to bf16 at width 1
  double seconds = 0;       // 0: done, or not probed
};

/// A study's folder, opened to work on it: the recipe is settled, the plan is complete and written, the lock is held.
/// Nothing is written before all of it is found valid.
class StudyRun {
 public:
  /// `recipe` holds what the command line said; --config and, for an existing study, its recipe fill the rest.
  /// A new study's decoder `auto` becomes the one of this machine, for all points.
  /// UsageError when another process works on the study, when the recipe differs from the study's own or from that of
  /// a run or result that lies in the folder already (planned or not), naming the first difference, when this build
  /// lacks the study's decoder, when a file of the user's would be replaced; DataError when the data differ;
  /// ModelError when the weights to start from are not those that the study began with, or do not fit.
  StudyRun(const StudyRunArgs& args, TrainArguments& recipe);

  const StudyPlan& plan() const { return plan_; }
  /// Seconds until all points are done, as many at a time as the arguments say.
  double seconds_to_go(const std::vector<PointEstimate>& estimates) const;
  /// Every point with its state and, where it is not done, the time it will take. Cost: some steps of the narrowest and
  /// the widest network of each precision.
  std::vector<PointEstimate> estimate();

  /// Trains and measures what is not done. A point that fails (diverges, cannot be read or served) is noted and does
  /// not stop the others, and is tried again by the next call; a disk error, missing data and a signal do stop
  /// (InterruptedError names the command to continue with).
  struct Outcome {
    std::vector<std::string> done;  // names of all finished points
    struct Failure {
      std::string point, sentence;
    };
    std::vector<Failure> failed;
  };
  Outcome run(const std::vector<PointEstimate>& estimates);
  /// What run() does for the point that the arguments name as this process's, except for its time: the sentence of its
  /// failure, if any. UsageError when the plan has no such point.
  std::optional<std::string> run_worker();

 private:
  void lock();
  void settle_recipe();
  void settle_decoder(const std::string& own);
  void settle_plan();
  void settle_start(bool known);
  void check_start(const PointStart& start);
  void read_kept();
  void unpack_kept();
  void refuse_foreign_files(const std::string& recipe) const;
  void refuse_other_recipes();
  void refuse_other_recipe(const std::string& config, const StudyPoint& point, const std::filesystem::path& source,
                           const std::filesystem::path& remedy);
  void refuse_other_start(const PointResult& result, const std::filesystem::path& source,
                          const std::filesystem::path& remedy) const;
  void stop_if_asked() const;
  StudyProgress progress_of(const std::vector<PointEstimate>& estimates) const;
  void announce(size_t point, const StudyProgress& progress) const;
  void note_end(size_t point, const std::optional<std::string>& failure, StudyProgress& progress);
  void run_in_turn(StudyProgress& progress);
  void run_at_once(StudyProgress& progress);
  std::vector<std::string> worker_arguments(const StudyPoint& point, int slot) const;
  std::optional<std::string> failure_of(const EndedProcess& ended, const StudyPoint& point) const;
  int threads_of(int slot) const;
  void time_what_is_not() const;
  void set_point(const StudyPoint& point);
  StudyData describe_data();
  StudyData same_data();
  void work_on(const StudyPoint& point);
  std::optional<std::string> failure_of(const StudyPoint& point);
  PointState state_of(const StudyPoint& point) const;
  std::string folder_of(const StudyPoint& point) const;
  std::string config_of(const StudyPoint& point) const;
  struct Sample {
    double macs = 0;
    PhaseSeconds image;   // of a training step
    double evaluate = 0;  // seconds per image
  };
  Sample probe(const std::string& precision, double width);
  int64_t images_to_evaluate(int64_t steps_done) const;
  double seconds_of(const StudyPoint& point, double macs, const Sample& low, const Sample& high) const;

  StudyRunArgs args_;
  TrainArguments& recipe_;
  std::unique_ptr<FolderLock> lock_;
  StudyPlan plan_;
  std::filesystem::path kept_file_;            // STUDY/study.json where it counts (source_in)
  std::map<std::string, PointResult> kept_;    // its points by name
  std::map<std::string, std::string> failed_;  // sentences by name
  int64_t steps_ = 0, steps_per_epoch_ = 0;    // of each point's training
  DatasetPtr train_;
  double loading_ = 0;  // seconds per image and thread, by the probe
};

}  // namespace nibble::apps
