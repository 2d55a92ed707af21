// Run folders: one writer, checkpoints that are kept and found again, whatever was damaged or cut short.
#include "nn/run_folder.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/safetensors.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace nibble;
namespace fs = std::filesystem;
using Steps = std::vector<int64_t>;

void write_checkpoint(const CheckpointStore& store, int64_t step) {
  SafetensorsWriter writer;
  Tensor weight = Tensor::zeros(DType::f32, {4});
  weight.data<float>()[0] = static_cast<float>(step);
  writer.add("fc.weight", weight);
  writer.write(store.path_for(step));
}

void write_and_publish(const CheckpointStore& store, int64_t step) {
  write_checkpoint(store, step);
  store.publish(step);
}

void flip_last_bit(const fs::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.peek() ^ 1);
  file.seekp(-1, std::ios::end);
  file.put(last);
}

std::vector<fs::path> synced;

int noting_fsync(int fd) {
  synced.push_back(fs::read_symlink(fmt::format("/proc/self/fd/{}", fd)));
  return ::fsync(fd);
}

/// What creating a run in `path` makes durable.
std::vector<fs::path> synced_by_create(const fs::path& path) {
  synced.clear();
  const DiskCalls saved = disk_calls();
  disk_calls().fsync = noting_fsync;
  CHECK_NOTHROW(RunFolder::create(path));
  disk_calls() = saved;
  return synced;
}

RunFolder new_run(const fs::path& path) {
  RunFolder run = RunFolder::create(path);
  write_file_atomically(run.config_path(), "seed = 0\n");
  return run;
}

}  // namespace

TEST_CASE("run folder: a new one is made with its parents and is not made twice") {
  testing::TempDir dir;
  const fs::path path = dir / "a" / "b";
  {
    const RunFolder run = new_run(path);
    CHECK(fs::is_directory(path / "checkpoints"));
    CHECK(run.metrics_path() == path / "metrics.jsonl");
    CHECK(run.machine_path() == path / "machine.json");
  }
  CHECK_THROWS_AS(RunFolder::create(path), UsageError);
  CHECK_NOTHROW(RunFolder::resume(path));
  fs::remove(path / "config.resolved.toml");
  CHECK_NOTHROW(RunFolder::create(path));
  write_checkpoint(CheckpointStore(path, 1), 1);
  CHECK_THROWS_AS(RunFolder::create(path), UsageError);
}

TEST_CASE("run folder: a log without a config is refused, because a new run would take its evaluations for its own") {
  testing::TempDir dir;
  const fs::path path = dir / "run";
  {
    const RunFolder run = new_run(path);
    write_file_atomically(run.metrics_path(), "{\"step\":10,\"eval/top1\":50}\n");
    fs::remove(run.config_path());
  }
  CHECK_THROWS_WITH_AS(RunFolder::create(path),
                       fmt::format("'{}' holds a metrics.jsonl but no config.resolved.toml, so no run can resume from "
                                   "it; choose another folder",
                                   path.string())
                           .c_str(),
                       UsageError);
  CHECK(read_text_file(path / "metrics.jsonl", 100) == "{\"step\":10,\"eval/top1\":50}\n");
  fs::remove(path / "metrics.jsonl");
  CHECK_NOTHROW(RunFolder::create(path));
}

TEST_CASE("run folder: what a full disk left of a run that did not begin is not a run") {
  const testing::TempDir dir;
  RunFolder::create(dir / "run");  // as the first call did, which then could not write the config
  const CheckpointStore store(dir / "run", 2);
  write_and_publish(store, 0);
  CHECK_NOTHROW(RunFolder::create(dir / "run"));
  CHECK(store.steps().empty());  // nor the beginning of the next one
  CHECK_FALSE(fs::is_symlink(fs::symlink_status(dir / "run" / "latest")));
  write_and_publish(store, 1);
  CHECK_THROWS_WITH_AS(RunFolder::create(dir / "run"), doctest::Contains("holds checkpoints but no config"),
                       UsageError);
}

TEST_CASE("run folder: a file that a run would replace is kept, and no run is made") {
  for (const char* name : {"best", "latest", "machine.json"}) {
    CAPTURE(name);
    testing::TempDir dir;
    fs::create_directories(dir / "models");
    write_file_atomically(dir / "models" / name, "of someone");
    CHECK_THROWS_WITH_AS(RunFolder::create(dir / "models"), doctest::Contains("exists, and a run would replace it"),
                         UsageError);
    CHECK(read_text_file(dir / "models" / name, 100) == "of someone");
    CHECK(std::distance(fs::directory_iterator(dir / "models"), {}) == 1);  // no lock, no folder for checkpoints
    fs::remove(dir / "models" / name);
    CHECK_NOTHROW(RunFolder::create(dir / "models"));
  }
}

TEST_CASE("run folder: a file in its place is named as the user named it, and kept") {
  testing::TempDir dir;
  write_file_atomically(dir / "run", "of someone");
  CHECK_THROWS_WITH_AS(RunFolder::create(dir / "run"),
                       ("cannot make the folder '" + (dir / "run").string() +
                        "': a file of that name is in the way; choose another name")
                           .c_str(),
                       DiskError);
  CHECK(read_text_file(dir / "run", 100) == "of someone");
}

TEST_CASE("run folder: what create makes is durable, what was there already is not synced") {
  testing::TempDir dir;
  const fs::path root = fs::canonical(dir.path());
  using Paths = std::vector<fs::path>;
  CHECK(synced_by_create(root / "a" / "b") == Paths{root / "a", root, root / "a" / "b"});
  CHECK(synced_by_create(root / "a" / "b").empty());
  fs::create_directory(root / "c");
  CHECK(synced_by_create(root / "c") == Paths{root / "c"});
  fs::create_directory_symlink(root / "a", root / "link");
  CHECK(synced_by_create(root / "link" / ".." / "d") == Paths{root, root / "d"});
  CHECK_THROWS_AS(RunFolder::create(""), DiskError);
}

TEST_CASE("run folder: a place that cannot be looked at is a DiskError, not a place without a run") {
  testing::TempDir dir;
  fs::create_symlink("loop", dir / "loop");
  CHECK_THROWS_AS(RunFolder::create(dir / "loop" / "run"), DiskError);
  CHECK_THROWS_AS(RunFolder::resume(dir / "loop" / "run"), DiskError);
  CHECK_THROWS_AS(resolve_model_path(dir / "loop" / "model"), DiskError);
  { new_run(dir / "run"); }
  fs::remove(dir / "run/config.resolved.toml");
  fs::create_symlink("config.resolved.toml", dir / "run/config.resolved.toml");
  CHECK_THROWS_AS(RunFolder::create(dir / "run"), DiskError);
  CHECK_THROWS_AS(RunFolder::resume(dir / "run"), DiskError);
  fs::create_symlink("../loop/model", dir / "run/best");
  CHECK_THROWS_AS(resolve_model_path(dir / "run"), DiskError);
}

TEST_CASE("run folder: what is not a run folder is refused with a sentence") {
  testing::TempDir dir;
  write_file_atomically(dir / "file", "x");
  CHECK_THROWS_AS(RunFolder::resume(dir / "missing"), UsageError);
  CHECK_THROWS_AS(RunFolder::resume(dir / "file"), UsageError);
  CHECK_THROWS_AS(RunFolder::resume(dir.path()), UsageError);
  CHECK_THROWS_AS(RunFolder::create(dir / "file"), DiskError);
  CHECK_THROWS_AS(RunFolder::create(dir / "file" / "run"), DiskError);
  CHECK_FALSE(fs::exists(dir / ".lock"));
}

TEST_CASE("run folder: two writers are refused, in this process and in another, until the first ends") {
  testing::TempDir dir;
  {
    const RunFolder first = new_run(dir / "run");
    CHECK_THROWS_AS(RunFolder::resume(dir / "run"), UsageError);
    const RunFolder same = first;  // a copy shares the lock
  }
  int ready[2], release[2];
  REQUIRE(::pipe(ready) == 0);
  REQUIRE(::pipe(release) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunFolder other = RunFolder::resume(dir / "run");
    char c = 'r';
    if (::write(ready[1], &c, 1) != 1 || ::read(release[0], &c, 1) != 1) ::_exit(1);
    ::_exit(9);  // as killed: no destructor runs
  }
  char c = 0;
  REQUIRE(::read(ready[0], &c, 1) == 1);
  CHECK_THROWS_AS(RunFolder::resume(dir / "run"), UsageError);
  REQUIRE(::write(release[1], &c, 1) == 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WEXITSTATUS(status) == 9);
  CHECK_NOTHROW(RunFolder::resume(dir / "run"));
  for (int fd : {ready[0], ready[1], release[0], release[1]}) ::close(fd);
}

TEST_CASE("run folder: unfinished files of a killed process are removed on opening") {
  testing::TempDir dir;
  { new_run(dir / "run"); }
  write_file_atomically(dir / "run/checkpoints/step-000005.safetensors.nibble-tmp-5000012-3", "half");
  fs::create_symlink("nowhere", dir / "run/latest.nibble-tmp-5000012-4");
  const RunFolder run = RunFolder::resume(dir / "run");
  CHECK(run.leftovers_removed() == 2);
  CHECK(fs::is_empty(dir / "run/checkpoints"));
}

TEST_CASE("checkpoints: the newest keep stay, and the best") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  const CheckpointStore store = run.checkpoints(2);
  CHECK(store.path_for(123) == dir / "run/checkpoints/step-000123.safetensors");
  CHECK(store.path_for(1234567) == dir / "run/checkpoints/step-1234567.safetensors");
  for (int64_t step : {10, 20, 30, 40}) {
    write_checkpoint(store, step);
    if (step == 20) store.mark_best(step);
    store.publish(step);
  }
  CHECK(store.steps() == Steps{20, 30, 40});
  CHECK(store.best_step() == 20);
  CHECK(fs::read_symlink(dir / "run/latest") == "checkpoints/step-000040.safetensors");
  CHECK(fs::read_symlink(dir / "run/best") == "checkpoints/step-000020.safetensors");
  CHECK(resolve_model_path(dir / "run") == dir / "run/best");
  write_checkpoint(store, 50);
  store.mark_best(50);
  store.publish(50);
  CHECK(store.steps() == Steps{40, 50});
  CHECK_THROWS_AS(run.checkpoints(0), UsageError);
  CHECK_THROWS_AS(store.path_for(-1), UsageError);
}

TEST_CASE("checkpoints: the best of a run that resumes from an earlier step is one that can be read, or none") {
  const testing::TempDir dir;
  RunFolder::create(dir / "run");
  const CheckpointStore store(dir / "run", 9);
  for (const int64_t step : {10, 20, 30, 40}) write_and_publish(store, step);
  store.mark_best(40);  // of a future that is given up
  CHECK(store.keeps_best(20, 30));
  CHECK(store.best_step() == 20);
  store.mark_best(30);  // the checkpoint itself, which was written before it was known to be the best
  CHECK(store.keeps_best(20, 30));
  CHECK(store.best_step() == 30);
  store.mark_best(40);
  flip_last_bit(store.path_for(20));
  CHECK_FALSE(store.keeps_best(20, 30));
  CHECK_FALSE(fs::is_symlink(fs::symlink_status(dir / "run" / "best")));
  CHECK_FALSE(store.keeps_best(11, 30));  // no such file
  fs::remove(store.path_for(40));
  store.mark_best(40);  // leads nowhere
  CHECK(store.keeps_best(10, 30));
  CHECK(store.best_step() == 10);
  flip_last_bit(store.path_for(10));
  CHECK_FALSE(store.keeps_best(10, 30));
  store.mark_best(40);
  CHECK(store.keeps_best(-1, 30));  // there was none when step 30 was written
  CHECK_FALSE(fs::is_symlink(fs::symlink_status(dir / "run" / "best")));
}

TEST_CASE("checkpoints: publishing an earlier step than a resume gave up removes the later ones, not the best") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  const CheckpointStore store = run.checkpoints(10);
  for (int64_t step : {10, 20, 30, 40}) write_and_publish(store, step);
  store.mark_best(30);
  write_and_publish(store, 25);
  CHECK(store.steps() == Steps{10, 20, 25, 30});
}

TEST_CASE("checkpoints: the newest valid one is found, and each damaged newer one is named with the reason") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  const CheckpointStore store = run.checkpoints(5);
  CHECK_FALSE(store.find_latest().found());
  CHECK(store.find_latest().skipped.empty());
  for (int64_t step : {10, 20, 30, 40}) write_and_publish(store, step);
  CHECK(store.find_latest().step == 40);
  CHECK(store.find_latest().skipped.empty());

  flip_last_bit(store.path_for(40));
  fs::resize_file(store.path_for(30), fs::file_size(store.path_for(30)) - 1);
  FoundCheckpoint found = store.find_latest();
  CHECK(found.step == 20);
  CHECK(found.path == store.path_for(20));
  REQUIRE(found.skipped.size() == 2);
  CHECK(found.skipped[0].path == store.path_for(40));
  CHECK(found.skipped[0].reason.find("header does not match its SHA-256") != std::string::npos);
  CHECK(found.skipped[1].path == store.path_for(30));

  // What is not the file's fault ends the search: publishing an older step would remove the newer files.
  const auto no_memory = [](const fs::path& path) {
    throw UnsupportedError("'{}' needs more memory than there is", path.string());
  };
  CHECK_THROWS_AS(store.find_latest(no_memory), UnsupportedError);

  fs::remove(store.path_for(40));
  found = store.find_latest();
  CHECK(found.step == 20);
  REQUIRE(found.skipped.size() == 2);
  CHECK(found.skipped[0].path == dir / "run/latest");
  CHECK(found.skipped[0].reason == "it points to 'checkpoints/step-000040.safetensors', which is not there");

  fs::remove(store.path_for(10));
  flip_last_bit(store.path_for(20));
  found = store.find_latest();
  CHECK_FALSE(found.found());
  CHECK(found.skipped.size() == 3);
}

TEST_CASE("checkpoints: one written but not yet published is found after a kill") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  const CheckpointStore store = run.checkpoints(2);
  write_and_publish(store, 10);
  write_checkpoint(store, 20);
  CHECK(store.find_latest().step == 20);
}

TEST_CASE("checkpoints: the caller's own check decides, foreign files and names are ignored") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  const CheckpointStore store = run.checkpoints(2);
  write_checkpoint(store, 10);
  write_checkpoint(store, 20);
  for (const char* name : {"step-30.safetensors", "step-000030", "step-.safetensors", "step--00001.safetensors",
                           "step-99999999999999999999.safetensors", "xstep-000030.safetensors"})
    write_file_atomically(dir / "run" / "checkpoints" / name, "x");
  fs::create_directory(dir / "run/checkpoints/step-000099.safetensors");
  CHECK(store.steps() == Steps{10, 20});
  const FoundCheckpoint found = store.find_latest([&](const fs::path& path) {
    if (path == store.path_for(20)) throw ModelError("another architecture");
  });
  CHECK(found.step == 10);
  REQUIRE(found.skipped.size() == 1);
  CHECK(found.skipped[0].reason == "another architecture");
}

TEST_CASE("checkpoints: a file that cannot be read is not a damaged one, so no older one takes its place") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  const CheckpointStore store = run.checkpoints(2);
  for (int64_t step : {10, 20, 30}) write_checkpoint(store, step);
  const auto check = [&](const fs::path& path) {
    if (path == store.path_for(30)) throw ModelError("damaged");
    if (path == store.path_for(20)) throw DiskError("permission is denied");
  };
  CHECK_THROWS_WITH_AS(store.find_latest(check), "permission is denied", DiskError);
  fs::create_symlink("loop", dir / "run/loop");
  fs::create_symlink("loop/step-000030.safetensors", dir / "run/latest");
  CHECK_THROWS_AS(store.find_latest(), DiskError);
}

TEST_CASE("checkpoints: while it cannot be told which one is the best, none is removed") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  const CheckpointStore store = run.checkpoints(1);
  for (int64_t step : {10, 20, 30}) write_checkpoint(store, step);
  fs::create_symlink("loop", dir / "run/loop");
  fs::create_symlink("loop/step-000010.safetensors", dir / "run/best");
  CHECK_THROWS_AS(store.best_step(), DiskError);
  CHECK_THROWS_AS(store.publish(30), DiskError);
  CHECK(store.steps() == Steps{10, 20, 30});
  write_file_atomically(dir / "run/best", "a file is not a link");
  CHECK_FALSE(store.best_step());
}

TEST_CASE("checkpoints: a process killed at any call of writing and publishing leaves a folder to resume from") {
  testing::TempDir dir;
  { new_run(dir / "run"); }
  static int calls_left = 0;
  const auto strike = [] {
    if (calls_left-- == 0) ::_exit(9);
  };
  static void (*const hit)() = strike;
  int killed = 0;
  for (int instant = 0;; ++instant) {
    fs::remove_all(dir / "run/checkpoints");
    fs::remove(dir / "run/latest");
    {
      const RunFolder run = RunFolder::resume(dir / "run");
      write_and_publish(run.checkpoints(1), 10);
    }
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      const RunFolder run = RunFolder::resume(dir / "run");
      calls_left = instant;
      disk_calls().write = [](int fd, const void* data, size_t bytes) { return hit(), ::write(fd, data, bytes); };
      disk_calls().fsync = [](int fd) { return hit(), ::fsync(fd); };
      disk_calls().rename = [](const char* from, const char* to) { return hit(), std::rename(from, to); };
      disk_calls().symlink = [](const char* target, const char* path) { return hit(), ::symlink(target, path); };
      write_and_publish(run.checkpoints(1), 20);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    const RunFolder run = RunFolder::resume(dir / "run");
    const FoundCheckpoint found = run.checkpoints(1).find_latest();
    CHECK(found.skipped.empty());
    if (WEXITSTATUS(status) == 0) {
      CHECK(found.step == 20);
      break;
    }
    REQUIRE(WEXITSTATUS(status) == 9);
    ++killed;
    CHECK((found.step == 10 || found.step == 20));
    write_and_publish(run.checkpoints(1), 20);
    CHECK(run.checkpoints(1).steps() == Steps{20});
  }
  // header, tensor, digest, fsync, rename, fsync; symlink, rename, fsync
  CHECK(killed == 9);
}

TEST_CASE("a MODEL argument is a file, or a run folder's best, else its latest") {
  testing::TempDir dir;
  const RunFolder run = new_run(dir / "run");
  CHECK_THROWS_AS(resolve_model_path(dir / "run"), ModelError);
  CHECK_THROWS_AS(resolve_model_path(dir / "missing"), ModelError);
  const CheckpointStore store = run.checkpoints(2);
  write_and_publish(store, 10);
  CHECK(resolve_model_path(dir / "run") == dir / "run/latest");
  CHECK(resolve_model_path(store.path_for(10)) == store.path_for(10));
  CHECK(SafetensorsFile::open(resolve_model_path(dir / "run")).find("fc.weight") != nullptr);
}
