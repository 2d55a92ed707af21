// The folder of one training run: which process may write it, where its files are, which checkpoint to continue from.
//
//   RUN/config.resolved.toml   every option of the run; its presence makes a folder a run
//   RUN/metrics.jsonl          see metrics_log.hpp
//   RUN/machine.json           threads, paths, times: what may differ between machines, none of it in a checkpoint
//   RUN/checkpoints/step-000123.safetensors
//   RUN/latest, RUN/best       symbolic links into checkpoints/, relative, replaced by rename
//   RUN/.lock                  locked (flock) by the process that trains; freed by the kernel however it ends
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nibble {

class FolderLock;

/// A checkpoint or link that could not be used, and the sentence why.
struct SkippedCheckpoint {
  std::filesystem::path path;
  std::string reason;
};

struct FoundCheckpoint {
  std::filesystem::path path;  // empty when there is none
  int64_t step = 0;
  std::vector<SkippedCheckpoint> skipped;  // newest first; the caller tells the user

  bool found() const { return !path.empty(); }
};

/// The checkpoints of a run folder. Writers hold the folder's lock (RunFolder); reading needs none.
class CheckpointStore {
 public:
  /// `keep`: how many of the newest checkpoints stay, at least 1 (UsageError); 2 or more survive a damaged disk block.
  CheckpointStore(std::filesystem::path run, int keep);

  /// RUN/checkpoints/step-<step, six digits or more>.safetensors; step >= 0.
  std::filesystem::path path_for(int64_t step) const;
  /// Called when path_for(step) has been written completely: points `latest` to it, then removes all but the newest
  /// `keep` and the best. Later steps than this one are removed too: they belong to a future that a resume from an
  /// earlier or undamaged checkpoint gave up. DiskError; a process killed inside leaves a usable folder.
  void publish(int64_t step) const;
  /// Points `best` to the checkpoint of `step`; before publish(step), so that the older best may go.
  void mark_best(int64_t step) const;
  /// For a run that goes on from the checkpoint of step `from`, before publish(from): `best` stays at that step, which
  /// is known to be whole, or leads to `noted`, the best one that the checkpoint of `from` knew (-1: none), or is
  /// removed. False: the noted one cannot be read. Cost: one read of the noted file. DiskError.
  bool keeps_best(int64_t noted, int64_t from) const;

  /// The newest checkpoint that `check` accepts, whatever `latest` says: the process may have been killed between
  /// writing a checkpoint and moving the link. `check` throws a ModelError to refuse; other errors pass through, as a
  /// DiskError does: publish would remove the newer file that could not be read. The default reads the whole file and
  /// verifies its checksums (cost: one read). A dangling `latest` is listed in `skipped`. With nothing found and
  /// nothing skipped the run was stopped before its first checkpoint and starts at step 0.
  FoundCheckpoint find_latest(const std::function<void(const std::filesystem::path&)>& check = verify) const;
  /// Steps that have a checkpoint file, ascending; files of other names are ignored.
  std::vector<int64_t> steps() const;
  /// Step of the checkpoint that `best` points to, if that file is there; DiskError when that cannot be told.
  std::optional<int64_t> best_step() const;

  static void verify(const std::filesystem::path& checkpoint);

 private:
  std::optional<int64_t> linked_step(const char* link) const;
  void prune(int64_t newest) const;

  std::filesystem::path run_;
  int keep_;
};

/// What files of the run folder `run` are called.
std::filesystem::path run_config_path(const std::filesystem::path& run);
std::filesystem::path run_metrics_path(const std::filesystem::path& run);
std::filesystem::path run_machine_path(const std::filesystem::path& run);

/// The right to write one run folder, held from construction to destruction.
class RunFolder {
 public:
  /// Makes the folder (and parents) for a new run. UsageError when it already holds a run, the remains of one or a file
  /// that it would replace, or when another process trains in it; DiskError when it cannot be made. A
  /// folder that is refused stays as it is.
  static RunFolder create(const std::filesystem::path& path);
  /// UsageError when there is no run at `path`, saying what is missing. Writes and locks nothing.
  static void require_run(const std::filesystem::path& path);
  /// Opens an existing run. UsageError when there is none (require_run) or another process trains in it.
  static RunFolder resume(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_path() const { return run_config_path(path_); }
  std::filesystem::path metrics_path() const { return run_metrics_path(path_); }
  std::filesystem::path machine_path() const { return run_machine_path(path_); }
  CheckpointStore checkpoints(int keep) const { return CheckpointStore(path_, keep); }
  /// Unfinished files of a killed process that were removed on opening.
  int leftovers_removed() const { return leftovers_removed_; }

 private:
  RunFolder(std::filesystem::path path, std::shared_ptr<FolderLock> lock);

  std::filesystem::path path_;
  std::shared_ptr<FolderLock> lock_;
  int leftovers_removed_ = 0;
};

/// The file that a MODEL argument means: the file itself, or in a run folder its `best`, else its `latest`. ModelError
/// when there is no such file, DiskError when that cannot be told.
std::filesystem::path resolve_model_path(const std::filesystem::path& path);

}  // namespace nibble
