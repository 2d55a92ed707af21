#include "nn/run_folder.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <system_error>
#include <utility>

#include "engine/error.hpp"
#include "engine/files.hpp"
#include "nn/atomic_file.hpp"
#include "nn/folder_lock.hpp"
#include "nn/safetensors.hpp"

namespace nibble {

namespace fs = std::filesystem;

namespace {

constexpr const char* kCheckpoints = "checkpoints";
constexpr const char* kLatest = "latest";
constexpr const char* kBest = "best";
constexpr const char* kBusy = "training in";  // what another holder of the lock does

std::string file_name_for(int64_t step) {
  return fmt::format("step-{:06}.safetensors", step);
}

/// The step in a checkpoint's name; nothing for names that file_name_for does not make.
std::optional<int64_t> step_of(const std::string& file_name) {
  constexpr std::string_view kPrefix = "step-";
  if (!file_name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = -1;
  const char* end = file_name.data() + file_name.size();
  const auto [stop, error] = std::from_chars(file_name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || step < 0 || file_name_for(step) != file_name) return std::nullopt;
  return step;
}

/// Makes the directory and the missing ones above it. Their names survive a power cut; what was already there is not
/// synced, as it need not be ours.
void make_directories(const fs::path& path) {
  std::vector<fs::path> changed;
  std::error_code ignored;  // of an empty path, which create_directories refuses
  for (fs::path made = fs::absolute(path, ignored); !made.empty() && !path_exists(made); made = made.parent_path())
    changed.push_back(made.parent_path());
  make_folders(path);
  for (const fs::path& directory : changed) sync_directory(directory);
}

/// Where the link leads; nothing when there is no link of that name.
std::optional<fs::path> target_of(const fs::path& link) {
  std::error_code error;
  fs::path target = fs::read_symlink(link, error);
  if (!error) return target;
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory ||
      error == std::errc::invalid_argument)  // something other than a link
    return std::nullopt;
  throw DiskError("cannot read the link '{}': {}", link.string(), disk_reason(error.value()));
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path run, int keep) : run_(std::move(run)), keep_(keep) {
  if (keep < 1) throw UsageError("{} checkpoints cannot be kept; keep at least 1", keep);
}

fs::path CheckpointStore::path_for(int64_t step) const {
  if (step < 0) throw UsageError("a checkpoint of step {} cannot be named; steps start at 0", step);
  return run_ / kCheckpoints / file_name_for(step);
}

void CheckpointStore::publish(int64_t step) const {
  replace_symlink(fs::path(kCheckpoints) / path_for(step).filename(), run_ / kLatest);
  prune(step);
}

void CheckpointStore::mark_best(int64_t step) const {
  replace_symlink(fs::path(kCheckpoints) / path_for(step).filename(), run_ / kBest);
}

bool CheckpointStore::keeps_best(int64_t noted, int64_t from) const {
  if (best_step() == from) return true;
  const auto readable = [](const fs::path& file) {
    try {
      verify(file);
      return true;
    } catch (const ModelError&) {
      return false;
    }
  };
  if (noted >= 0 && path_exists(path_for(noted)) && readable(path_for(noted))) {
    mark_best(noted);
    return true;
  }
  const fs::path link = run_ / kBest;
  if (::unlink(link.c_str()) != 0 && errno != ENOENT) throw_disk_error("remove the link", link, errno);
  return noted < 0;
}

void CheckpointStore::prune(int64_t newest) const {
  const std::vector<int64_t> all = steps();
  const std::optional<int64_t> best = best_step();
  int kept = 0;
  for (auto step = all.rbegin(); step != all.rend(); ++step) {
    const bool recent = *step <= newest && kept < keep_;
    if (recent) ++kept;
    if (recent || best == *step) continue;
    const fs::path old = path_for(*step);
    if (::unlink(old.c_str()) != 0 && errno != ENOENT) throw_disk_error("remove the old checkpoint", old, errno);
  }
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> result;
  std::error_code error;
  const fs::path directory = run_ / kCheckpoints;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    const std::optional<int64_t> step = step_of(it->path().filename().string());
    if (step && !it->is_directory(ignored)) result.push_back(*step);
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw DiskError("cannot list '{}': {}", directory.string(), disk_reason(error.value()));
  std::sort(result.begin(), result.end());
  return result;
}

std::optional<int64_t> CheckpointStore::linked_step(const char* link) const {
  // A link that cannot be read is an error: taken for none, it would let prune remove the best checkpoint.
  const std::optional<fs::path> target = target_of(run_ / link);
  if (!target || !path_exists(run_ / link)) return std::nullopt;
  return step_of(target->filename().string());
}

std::optional<int64_t> CheckpointStore::best_step() const {
  return linked_step(kBest);
}

void CheckpointStore::verify(const fs::path& checkpoint) {
  SafetensorsFile::open(checkpoint, {.require_integrity = true});
}

FoundCheckpoint CheckpointStore::find_latest(const std::function<void(const fs::path&)>& check) const {
  FoundCheckpoint result;
  const std::optional<fs::path> target = target_of(run_ / kLatest);
  if (target && !path_exists(run_ / kLatest))
    result.skipped.push_back({run_ / kLatest, fmt::format("it points to '{}', which is not there", target->string())});
  const std::vector<int64_t> all = steps();
  for (auto step = all.rbegin(); step != all.rend(); ++step) {
    try {
      check(path_for(*step));
    } catch (const ModelError& refusal) {  // nothing else: publish removes the newer ones that were skipped
      result.skipped.push_back({path_for(*step), refusal.what()});
      continue;
    }
    result.path = path_for(*step);
    result.step = *step;
    return result;
  }
  return result;
}

RunFolder::RunFolder(fs::path path, std::shared_ptr<FolderLock> lock) : path_(std::move(path)), lock_(std::move(lock)) {
  make_directories(path_ / kCheckpoints);
  leftovers_removed_ = remove_temporary_files(path_) + remove_temporary_files(path_ / kCheckpoints);
}

fs::path run_config_path(const fs::path& run) {
  return run / "config.resolved.toml";
}

fs::path run_metrics_path(const fs::path& run) {
  return run / "metrics.jsonl";
}

fs::path run_machine_path(const fs::path& run) {
  return run / "machine.json";
}

namespace {

/// UsageError where a new run at `path` would take the place of what is in that folder, DiskError where it is not one.
void require_free(const fs::path& path) {
  std::error_code ignored;  // path_exists has said it
  if (path_exists(path) && !fs::is_directory(path, ignored))
    throw DiskError("cannot make the folder '{}': a file of that name is in the way; choose another name",
                    path.string());
  if (path_exists(run_config_path(path)))
    throw UsageError("'{}' already holds a run; continue it with --resume or choose another folder", path.string());
  // A lone checkpoint of step 0 is what a full disk left of a run from given weights that never began.
  const std::vector<int64_t> steps = CheckpointStore(path, 1).steps();
  const bool checkpoints = !steps.empty() && steps != std::vector<int64_t>{0};
  if (checkpoints || path_exists(run_metrics_path(path)))  // a new run would take the old log's evaluations for its own
    throw UsageError("'{}' holds {} but no config.resolved.toml, so no run can resume from {}; choose another folder",
                     path.string(), checkpoints ? "checkpoints" : "a metrics.jsonl", checkpoints ? "them" : "it");
  for (const fs::path& file : {path / kLatest, path / kBest, run_machine_path(path)})
    if (path_exists(file) && (steps.empty() || file != path / kLatest))
      throw UsageError("'{}' exists, and a run would replace it; choose another folder", file.string());
}

/// Removes what require_free lets pass: a run that starts at random weights must not go on from given ones.
void remove_unbegun(const fs::path& path) {
  for (const fs::path& file : {path / kLatest, CheckpointStore(path, 1).path_for(0)})
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) throw_disk_error("remove", file, errno);
}

}  // namespace

RunFolder RunFolder::create(const fs::path& path) {
  require_free(path);  // first: a refused run leaves its folder as it is
  make_directories(path);
  auto lock = std::make_shared<FolderLock>(path, kBusy);
  require_free(path);  // another process may have begun a run meanwhile
  remove_unbegun(path);
  return RunFolder(path, std::move(lock));
}

void RunFolder::require_run(const fs::path& path) {
  std::error_code ignored;  // path_exists has said it
  if (!path_exists(path) || !fs::is_directory(path, ignored))
    throw UsageError("'{}' is not a run folder, there is no such directory; check the path", path.string());
  if (!path_exists(run_config_path(path)))
    throw UsageError("'{}' is not a run folder, it has no config.resolved.toml; check the path", path.string());
}

RunFolder RunFolder::resume(const fs::path& path) {
  require_run(path);
  return RunFolder(path, std::make_shared<FolderLock>(path, kBusy));
}

fs::path resolve_model_path(const fs::path& path) {
  if (!path_exists(path))
    throw ModelError("'{}' does not exist; check the path of the model or checkpoint", path.string());
  std::error_code ignored;  // path_exists has said it
  if (!fs::is_directory(path, ignored)) return path;
  for (const char* link : {kBest, kLatest})
    if (path_exists(path / link)) return path / link;
  throw ModelError("'{}' is a directory without a checkpoint (best or latest); give a model file or a run folder",
                   path.string());
}

}  // namespace nibble
