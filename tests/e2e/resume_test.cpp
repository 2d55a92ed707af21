// A resumed run is the same run: it continues from the same weights, with the same options, on the same images, or not
// at all.
#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;

constexpr const char* kThreeSteps =
    " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 3 --calibrate-at 1 --save-every 1"
    " --strict-data --quiet";
constexpr const char* kLast = "/checkpoints/step-000003.safetensors";

/// A run of three steps, taken back to its second checkpoint.
std::string begun_run(const TemporaryFolder& folder, const std::string& data) {
  std::string run = folder / "run";
  train_run(data, run, kThreeSteps);
  std::filesystem::remove(run + kLast);
  return run;
}

}  // namespace

TEST_CASE("a run that starts from given weights and ends before its first step resumes from those weights") {
  if (no_program()) return;
  const TemporaryFolder folder("given");
  const std::string data = synthetic_data(folder), whole = folder / "whole", broken = folder / "broken";
  train_run(data, folder / "base", std::string(kThreeSteps) + " --seed 9");
  const std::string options = " --weights " + (folder / "base") + kLast + kThreeSteps;
  train_run(data, whole, options);
  const nlohmann::json session = nlohmann::json::parse(read_text(whole + "/machine.json")).at("sessions").at(0);
  CHECK(session.at("weights") == folder / "base" + kLast);
  CHECK(session.at("weights_sha256").get<std::string>().size() == 64);

  std::filesystem::rename(data + "/train", data + "/kept");
  std::filesystem::copy(data + "/kept", data + "/train", std::filesystem::copy_options::recursive);
  for (const auto& image : std::filesystem::recursive_directory_iterator(data + "/train"))
    if (image.is_regular_file()) write_text(image.path(), "no image");
  CHECK(run_program("train --data " + data + " --out " + broken + options).code == 3);
  std::filesystem::remove_all(data + "/train");
  std::filesystem::rename(data + "/kept", data + "/train");
  CHECK(run_program("train --resume " + broken + " --quiet").code == 0);
  CHECK(read_text(broken + kLast) == read_text(whole + kLast));
}

TEST_CASE(
    "a run that goes on from an older checkpoint names the damaged one that it skipped, and ends as it would have") {
  if (no_program()) return;
  const TemporaryFolder folder("skipped");
  const std::string data = synthetic_data(folder), run = folder / "run", last = run + kLast;
  train_run(data, run, std::string(kThreeSteps) + " --save-every 1 --keep 9");
  const std::string whole = read_text(last);
  std::string damaged = whole;
  damaged[damaged.size() / 2] ^= 1;
  write_text(last, damaged);
  const Result r = run_program("train --quiet --resume " + run);
  CHECK(r.code == 0);
  CHECK(has(r.err, "skipped " + last + ": "));
  CHECK((read_text(last) == whole));
}

TEST_CASE("a run that continues with another build says that its bits may differ") {
  if (no_program()) return;
  const TemporaryFolder folder("build");
  const std::string data = synthetic_data(folder), run = begun_run(folder, data), notes = run + "/machine.json";
  nlohmann::json held = nlohmann::json::parse(read_text(notes));
  const auto now = held.at("sessions").at(0).at("nibble").get<std::string>();
  held.at("sessions").at(0)["nibble"] = "0.0.0";
  write_text(notes, held.dump());
  const Result r = run_program("train --resume " + run);
  CHECK(r.code == 0);
  CHECK(has(r.err, "the run continues with build " + now + " (before: 0.0.0): from here on"));
}

TEST_CASE("a run that continues with other kernels says that its bits may differ") {
  if (no_program()) return;
  const TemporaryFolder folder("kernels");
  const std::string data = synthetic_data(folder), run = begun_run(folder, data);
  const auto sessions = nlohmann::json::parse(read_text(run + "/machine.json")).at("sessions");
  const auto isa = sessions.at(0).at("isa").get<std::string>();
  const Result same = run_program("train --resume " + run);
  CHECK(same.code == 0);
  CHECK_FALSE(has(same.err, "continues with"));
  if (isa == "scalar") return;  // another level may not be there
  std::filesystem::remove(run + kLast);
  const Result other = run_program("train --resume " + run, "NIBBLE_ISA=scalar");
  CHECK(other.code == 0);
  CHECK(has(other.err, "the run continues with kernels of scalar (before: " + isa + "): from here on"));
}

TEST_CASE("a dry run reads the given weights, says what they start, and refuses what a run would refuse") {
  if (no_program()) return;
  const TemporaryFolder folder("dry");
  const std::string data = synthetic_data(folder), base = folder / "base";
  train_run(data, base, std::string(kThreeSteps) + " --seed 9");
  std::string options = kThreeSteps;
  options.erase(options.rfind(" --quiet"));
  const std::string dry = "train --dry-run --data " + data + options + " --weights ";
  const Result good = run_program(dry + base + kLast);
  CAPTURE(good.err);
  CHECK(good.code == 0);
  CHECK(has(good.err, "tensors of " + base + kLast));
  CHECK(run_program(dry + base + "/config.resolved.toml").code == 4);
  const Result narrow = run_program(dry + base + kLast + " --width 0.5");
  CHECK(narrow.code == 4);
  CHECK(has(narrow.err, "another arch or width"));
}

TEST_CASE("of a run calibrated since its last evaluation, export names the checkpoint that it can export") {
  if (no_program()) return;
  const TemporaryFolder folder("since");
  const std::string run = folder / "run", out = " --out " + (folder / "model.safetensors");
  std::string options = kThreeSteps;
  options.replace(options.find("--calibrate-at 1"), 16, "--calibrate-at 2");
  train_run(synthetic_data(folder), run, options);
  std::filesystem::remove(run + "/best");  // as after an evaluation of step 1 alone
  std::filesystem::create_symlink("checkpoints/step-000001.safetensors", run + "/best");
  check_refused("export " + run + out, 4, "has not been evaluated since; export " + run + "/latest");
  CHECK(run_program("export " + run + "/latest" + out).code == 0);
  std::filesystem::remove(run + "/latest");
  std::filesystem::create_symlink("checkpoints/step-000001.safetensors", run + "/latest");
  check_refused("export " + run + out, 4, "train past --calibrate-at first");
}

TEST_CASE("a run whose config was edited is not resumed, and the option is named") {
  if (no_program()) return;
  const TemporaryFolder folder("edited");
  const std::string run = begun_run(folder, synthetic_data(folder)), config = run + "/config.resolved.toml";
  const std::string text = read_text(config);
  const size_t at = text.find("\nlr = ") + 1;
  write_text(config, text.substr(0, at) + "lr = 0.0625" + text.substr(text.find('\n', at)));
  const Result r = run_program("train --resume " + run + " --quiet");
  CAPTURE(r.err);
  CHECK(r.code == 2);
  CHECK(has(r.err, "lr = 0.0625, the run began with 0.05"));
  write_text(config, text);
  CHECK(run_program("train --resume " + run + " --keep 9 --quiet").code == 0);
}

TEST_CASE("a dry run of a run to resume prints its plan and changes nothing, and a folder without a run is refused") {
  if (no_program()) return;
  const TemporaryFolder folder("dry");
  const std::string data = synthetic_data(folder), run = begun_run(folder, data);
  std::filesystem::remove(run + "/.lock");
  const nlohmann::json plan = json_of(run_program("train --dry-run --json --resume " + run));
  CHECK(plan.at("train_images") == 20);
  CHECK_FALSE(std::filesystem::exists(run + "/.lock"));
  check_refused("train --dry-run --resume " + data, 2, "it has no config.resolved.toml");
  check_refused("train --dry-run --resume " + (folder / "none"), 2, "there is no such directory");
}

TEST_CASE("a run is not resumed with other options than those that cannot change its result") {
  if (no_program()) return;
  const TemporaryFolder folder("changed");
  const std::string run = folder / "run";
  train_run(synthetic_data(folder), run, std::string(kThreeSteps) + " --shard 4");
  const std::string config = read_text(run + "/config.resolved.toml"), whole = read_text(run + kLast);
  std::filesystem::remove(run + kLast);
  for (const std::string option : {"lr 0.1", "epochs 9", "steps 9", "weight-decay 0.1", "eval-every 3",
                                   "precision w8a8", "image-size 64", "seed 1", "calibrate-at 0.5", "per-class 1"}) {
    CAPTURE(option);
    const Result r = run_program("train --resume " + run + " --quiet --" + option);
    CAPTURE(r.err);
    CHECK(r.code == 2);
    CHECK(has(r.err, "--" + option.substr(0, option.find(' ')) + " cannot change when a run is resumed"));
  }
  CHECK(read_text(run + "/config.resolved.toml") == config);
  const std::string same = " --keep 9 --save-every 7 --loader-threads 2 --low-memory --quiet";
  CHECK(run_program("train --resume " + run + same).code == 0);
  CHECK(read_text(run + kLast) == whole);
}

TEST_CASE("a run is not resumed on other images or other classes, and is on the same ones in another place") {
  if (no_program()) return;
  const TemporaryFolder folder("images");
  const std::string data = synthetic_data(folder), run = begun_run(folder, data), moved = folder / "moved";
  const std::string disk = data + "/train/striped_disk";
  std::filesystem::copy(disk + "/00000.jpg", disk + "/00009.jpg");
  Result r = run_program("train --resume " + run + " --quiet");
  CHECK(r.code == 3);
  CHECK(has(r.err, "trained on other images than"));
  std::filesystem::remove(disk + "/00009.jpg");
  for (const std::string split : {"train", "val"})
    std::filesystem::rename(data + "/" + split + "/striped_disk", data + "/" + split + "/disk");
  r = run_program("train --resume " + run + " --quiet");
  CHECK(r.code == 3);
  CHECK(has(r.err, "trained on other classes than"));
  for (const std::string split : {"train", "val"})
    std::filesystem::rename(data + "/" + split + "/disk", data + "/" + split + "/striped_disk");
  std::filesystem::rename(data, moved);
  r = run_program("train --resume " + run + " --data " + moved + " --quiet");
  CHECK(r.code == 0);
  CHECK_FALSE(has(r.err, "continues with"));
  for (const std::string split : {"train", "val"}) {
    CAPTURE(split);
    std::filesystem::remove(run + kLast);
    std::ofstream(moved + "/" + split + "/striped_disk/00000.jpg", std::ios::app) << "after the end";
    r = run_program("train --resume " + run + " --data " + moved + " --quiet");
    CHECK(r.code == 0);
    CHECK(has(r.err, "the run continues with other image files in train or val (their sizes or number): from here on"));
  }
}

/// Each step of it multiplies the weights by about a thousand, until a convolution's output is not finite.
TEST_CASE(
    "a step that diverges ends its run with exit code 6, its log whole, and says from where a new run may start") {
  if (no_program()) return;
  const TemporaryFolder folder("step");
  const std::string data = synthetic_data(folder), run = folder / "run";
  const std::string options =
      " --precision bf16 --lr 1000 --weight-decay 1 --warmup-epochs 0 --no-zero-gamma --steps 20 --eval-every 0";
  const Result r = run_program("train --data " + data + " --out " + run + kThreeSteps + options);
  CAPTURE(r.err);
  CHECK(r.code == 6);
  const nlohmann::json last = metrics_of(run).back();
  const std::string step = std::to_string(last.at("step").get<int>());
  CHECK(has(r.err, "is not finite at step " + step));
  const int64_t before = last.at("step").get<int64_t>() - 1;  // every step is saved, and the last is what diverged
  REQUIRE(before > 0);
  CHECK(has(r.err, "--weights " + run + "/" + checkpoint_of(before)));
}

/// Each step of it multiplies the weights by about a thousand: batch norm hides that from training, not from
/// evaluation.
TEST_CASE("a model whose logits are not finite ends its run with exit code 6 and is not the best") {
  if (no_program()) return;
  const TemporaryFolder folder("diverged");
  const std::string data = synthetic_data(folder), run = folder / "run";
  const std::string options =
      " --precision bf16 --lr 1000 --weight-decay 1 --warmup-epochs 0 --no-zero-gamma --steps 6";
  for (const std::string& command : {"--data " + data + " --out " + run + kThreeSteps + options, "--resume " + run}) {
    const Result r = run_program("train --quiet " + command);
    CAPTURE(r.err);
    CHECK(r.code == 6);
    CHECK(has(r.err, "logits that are not finite"));
    CHECK_FALSE(std::filesystem::exists(run + "/best"));
  }
  const Result evaluated = run_program("eval " + run + "/latest --json --data " + data);
  CHECK(evaluated.code == 6);
  CHECK(has(evaluated.err, "logits that are not finite"));
  const nlohmann::json result = nlohmann::json::parse(evaluated.out);
  CHECK(result.at("images") == 10);
  CHECK(result.at("loss").is_null());  // JSON has no NaN
  // For a single image they may be finite, depending on the level of the kernels; what is printed is a probability
  // anyway.
  const Result one = run_program("predict " + run + "/latest --json " + data + "/val/striped_disk/00000.jpg");
  CHECK((one.code == 6 ? one.out.empty() : one.code == 0 && !has(one.out, "null")));
}

TEST_CASE("a run or a study among its own images would be one of their classes, and is refused") {
  if (no_program()) return;
  const TemporaryFolder folder("among");
  const std::string data = synthetic_data(folder);
  std::filesystem::create_directory_symlink(data, folder / "link");
  for (const std::string& out : {data + "/train/run", (folder / "link") + "/val/striped_disk/run", data + "/train"}) {
    for (const std::string& command : {std::string("train") + kThreeSteps, std::string("study run --quiet")}) {
      const Result r = run_program(command + " --data " + data + " --out " + out);
      CAPTURE(command);
      CAPTURE(r.err);
      CHECK(r.code == 2);
      CHECK(has(r.err, "lies among the images of"));
    }
    CHECK(std::filesystem::exists(out) == (out == data + "/train"));
    CHECK_FALSE(std::filesystem::exists(out + "/.lock"));
  }
  // A name of which nothing exists yet, given relative to where it would be made.
  const Result here = run_program(std::string("train --data .. --out run") + kThreeSteps, "cd " + data + "/train && ");
  CHECK(here.code == 2);
  CHECK(has(here.err, "--out run lies among the images of ../train"));
  CHECK_FALSE(std::filesystem::exists(data + "/train/run"));
}

TEST_CASE("a class folder whose name models could not keep is refused before training") {
  if (no_program()) return;
  const TemporaryFolder folder("bytes");
  const std::string data = synthetic_data(folder);
  for (const std::string split : {"train", "val"})
    std::filesystem::rename(data + "/" + split + "/striped_disk", data + "/" + split + "/caf\xe9");
  const Result r = run_program("train --data " + data + " --out " + (folder / "run") + kThreeSteps);
  CAPTURE(r.err);
  CHECK(r.code == 3);
  CHECK(has(r.err, "is not UTF-8"));
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}
