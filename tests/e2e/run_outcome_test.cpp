// What a run leaves behind and says on its way: best, latest, the log, bad images, options that do not fit.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;

constexpr const char* kNetwork = " --arch resnet26 --width 0.1 --image-size 32";
const std::string kTrain = std::string(kNetwork) + " --batch-size 8 --shard 8";

}  // namespace

TEST_CASE("the best checkpoint of a run that quantizes is a quantized one, whatever came before calibration") {
  if (no_program()) return;
  const TemporaryFolder folder("best");
  const std::string data = synthetic_data(folder);
  for (int seed : thorough() ? std::vector{2, 3, 5, 6} : std::vector{2}) {
    CAPTURE(seed);
    const std::string run = folder / ("run" + std::to_string(seed));
    // 8 steps: evaluations at 2, 4 before and at 6, 8 after the calibration.
    train_run(data, run,
              kTrain + " --epochs 4 --calibrate-at 6 --precision w4a4 --quiet --seed " + std::to_string(seed));
    CHECK(std::filesystem::read_symlink(run + "/best") >= checkpoint_of(6));
    CHECK(run_program("export " + run + " --out " + run + ".safetensors").code == 0);
  }
}

TEST_CASE("best is the first of the most accurate evaluations from calibration on, and it is kept") {
  if (no_program()) return;
  const TemporaryFolder folder("first-best");
  const std::string data = synthetic_data(folder, {.val = 2});
  for (int seed : thorough() ? std::vector{1, 2, 3} : std::vector{1}) {
    CAPTURE(seed);
    const std::string run = folder / ("run" + std::to_string(seed));
    // 16 steps, an evaluation every second one, seven of them from calibration on.
    train_run(data, run, kTrain + " --epochs 8 --calibrate-at 4 --keep 1 --quiet --seed " + std::to_string(seed));
    int64_t step = -1;
    double top1 = -1;
    int evaluations = 0;
    for (const nlohmann::json& line : metrics_of(run)) {
      if (!line.contains("eval/top1") || line.at("step") < 4) continue;
      ++evaluations;
      if (line.at("eval/top1") <= top1) continue;
      top1 = line.at("eval/top1");
      step = line.at("step");
    }
    CHECK(evaluations == 7);
    CHECK(std::filesystem::read_symlink(run + "/best") == checkpoint_of(step));
    CHECK(json_of(run_program("eval " + run + "/best --json --data " + data)).at("top1") == top1);
  }
}

TEST_CASE("images that cannot be read keep no step from being saved, however many come first") {
  if (no_program()) return;
  const TemporaryFolder folder("usage");
  const std::string data = synthetic_data(folder, {.val = 7}), run = folder / "run";
  int64_t left = 64;  // as many as the count of codes looks at
  std::vector<std::filesystem::path> images;
  for (const auto& image : std::filesystem::recursive_directory_iterator(data + "/val"))
    if (image.is_regular_file()) images.push_back(image.path());
  std::sort(images.begin(), images.end());
  for (const auto& image : images)
    if (left-- > 0) write_text(image.string(), "no image");
  const Result r = run_program("train --data " + data + " --out " + run + kTrain +
                               " --steps 4 --calibrate-at 1 --eval-every 1 --json --quiet");
  CAPTURE(r.err);
  CHECK(r.code == 0);
  CHECK(nlohmann::json::parse(r.out).at("steps") == 4);
  CHECK(std::filesystem::exists(run + "/" + checkpoint_of(4)));
  const std::string named = "skipped " + images.front().string() + ":";
  CHECK(has(r.err, named));  // once, though it was met at two evaluations
  CHECK(r.err.find(named) == r.err.rfind(named));
}

TEST_CASE(
    "a resumed run leads latest to its checkpoint, keeps what was newly given, and says nothing of steps it had") {
  if (no_program()) return;
  const TemporaryFolder folder("latest");
  const std::string data = synthetic_data(folder), run = folder / "run", moved = folder / "moved";
  train_run(data, run, kTrain + " --steps 3 --calibrate-at 1 --save-every 1 --keep 9 --quiet");
  // As a process leaves it that ends between a checkpoint and its link.
  std::filesystem::remove(run + "/latest");
  std::filesystem::create_symlink(checkpoint_of(2), run + "/latest");
  std::filesystem::rename(data, moved);
  Result r = run_program("train --resume " + run + " --data " + moved + " --json --quiet");
  CAPTURE(r.err);
  REQUIRE(r.code == 0);
  CHECK(std::filesystem::read_symlink(run + "/latest") == checkpoint_of(3));
  CHECK_FALSE(nlohmann::json::parse(r.out).contains("train_loss"));
  CHECK(nlohmann::json::parse(read_text(run + "/machine.json")).at("sessions").size() == 1);
  CHECK(run_program("train --resume " + run + " --quiet").code == 0);  // the data's new place is known
}

TEST_CASE("a class that one split lacks is refused by name before training, as every later label would be another's") {
  if (no_program()) return;
  const TemporaryFolder folder("lacking");
  const std::string data = synthetic_data(folder), run = folder / "run";
  std::filesystem::remove_all(data + "/val/plain_disk");
  check_refused("train --data " + data + " --out " + run + kTrain, 3,
                "class 'plain_disk' is in " + data + "/train but not in " + data + "/val");
  CHECK_FALSE(std::filesystem::exists(run));
}

TEST_CASE("images that are used although damaged are named and counted") {
  if (no_program()) return;
  const TemporaryFolder folder("damaged");
  const std::string data = synthetic_data(folder), run = folder / "run";
  for (const char* split : {"train", "val"}) {
    const std::string image = data + "/" + split + "/striped_disk/00000.jpg";
    const std::string bytes = read_text(image);
    write_text(image, bytes.substr(0, bytes.size() * 3 / 4));
  }
  const Result r =
      run_program("train --data " + data + " --out " + run + kTrain + " --steps 4 --calibrate-at 1 --quiet");
  CAPTURE(r.err);
  REQUIRE(r.code == 0);
  for (const char* split : {"/train", "/val"})
    CHECK(has(r.err, data + split + "/striped_disk/00000.jpg is used although damaged: "));
  const Result e = run_program("eval " + run + " --data " + data + " --json");
  CHECK(nlohmann::json::parse(e.out).at("damaged") == 1);
  CHECK(nlohmann::json::parse(e.out).at("calibrated") == true);
}

TEST_CASE("a model before calibration is said to be one, and no one is told to export it") {
  if (no_program()) return;
  const TemporaryFolder folder("uncalibrated");
  const std::string data = synthetic_data(folder), run = folder / "run";
  const Result r = run_program("train --data " + data + " --out " + run + kTrain + " --steps 2 --calibrate-at 9");
  REQUIRE(r.code == 0);
  CHECK_FALSE(has(r.out, "nibble export"));
  const Result e = run_program("eval " + run + " --data " + data);
  CHECK(has(e.out, "not calibrated"));
  CHECK(nlohmann::json::parse(run_program("eval " + run + " --json --data " + data).out).at("calibrated") == false);
}

TEST_CASE(
    "a shard of one value per channel is refused before anything is made, a run shorter than its warm-up is not") {
  if (no_program()) return;
  const TemporaryFolder folder("shapes");
  const std::string data = synthetic_data(folder), run = folder / "run";
  Result r = run_program("train --data " + data + " --out " + run + kNetwork + " --batch-size 2 --shard 1 --steps 2");
  CHECK(r.code == 2);
  CHECK(has(r.err, "--shard 1 at 32 px"));
  CHECK_FALSE(std::filesystem::exists(run));
  r = run_program("train --data " + data + " --out " + run + kTrain + " --steps 2 --calibrate-at 1 --warmup-epochs 2");
  CHECK(r.code == 0);
  CHECK(has(r.err, "--warmup-epochs 2 are 4 steps, the run has 2"));
}

TEST_CASE("a training image that cannot be read is replaced, named once and counted, and the run continues") {
  if (no_program()) return;
  const TemporaryFolder folder("replaced");
  const std::string data = synthetic_data(folder, {.train = 4}), bad = data + "/train/striped_disk/00002.jpg";
  REQUIRE(std::filesystem::exists(bad));
  write_text(bad, "no image");  // 40 images in batches of 8: every epoch meets all of them
  const Result r = train_run(data, folder / "run", kTrain + " --epochs 2 --calibrate-at 1 --json --quiet");
  CHECK(json_of(r).at("skipped") == 1);
  const std::string named = "replaced " + bad + ":";
  CHECK_MESSAGE(count_of(r.err, named) == 1, r.err);
}

TEST_CASE("a run saves at each epoch's end, evaluates every second one when told to, and keeps as many as it is told") {
  if (no_program()) return;
  const TemporaryFolder folder("every");
  const std::string data = synthetic_data(folder, {.train = 4});  // five steps per epoch
  for (const std::string keep : {"9", "1"}) {
    CAPTURE(keep);
    const std::string run = folder / ("run" + keep);
    train_run(data, run, kTrain + " --epochs 4 --eval-every 2 --calibrate-at 1 --quiet --keep " + keep);
    std::vector<int> evaluated;
    for (const nlohmann::json& line : metrics_of(run))
      if (line.contains("eval/top1")) evaluated.push_back(line.at("step"));
    CHECK(evaluated == std::vector<int>{10, 20});
    std::vector<std::string> expected, there;
    const std::string best = std::filesystem::read_symlink(run + "/best").string();
    for (const int64_t step : {5, 10, 15, 20})
      if (keep == "9" || step == 20 || checkpoint_of(step) == best) expected.push_back(checkpoint_of(step));
    for (const auto& f : std::filesystem::directory_iterator(run + "/checkpoints"))
      there.push_back("checkpoints/" + f.path().filename().string());
    std::sort(there.begin(), there.end());
    CHECK(there == expected);
  }
}

TEST_CASE("a run whose standard streams are closed writes none of its messages into its files") {
  if (no_program()) return;
  const TemporaryFolder folder("closed");
  const std::string data = synthetic_data(folder), run = folder / "run";
  const std::string command = "'" + program().value() + "' train --data " + data + " --out " + run + kTrain +
                              " --steps 3 --save-every 1 <&- >&- 2>&-";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 7);  // the result could not be printed, the run is whole
  CHECK(text_if_there(run + "/.lock").empty());
  std::istringstream lines(read_text(run + "/metrics.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) CHECK(nlohmann::json::parse(line).is_object());
  CHECK(count > 0);
  CHECK(run_program("train --resume " + run + " --quiet").code == 0);
  CHECK(run_program("export " + run + " --out " + run + ".safetensors").code == 0);
}

TEST_CASE("machine.json says where a session ended, how long it took and how fast it was") {
  if (no_program()) return;
  const TemporaryFolder folder("session");
  const std::string data = synthetic_data(folder), run = folder / "run";
  const nlohmann::json end = json_of(train_run(data, run, kTrain + " --steps 4 --calibrate-at 1 --json --quiet"));
  const nlohmann::json session = nlohmann::json::parse(read_text(run + "/machine.json")).at("sessions").at(0);
  CHECK(session.at("first_step") == 0);
  CHECK(session.at("last_step") == 4);
  CHECK(session.at("seconds").get<double>() > 0);
  CHECK(session.at("images_per_second") == end.at("images_per_second"));
}

TEST_CASE("eval takes the split that it is told, and with --strict-data a bad image ends it") {
  if (no_program()) return;
  const TemporaryFolder folder("eval");
  const std::string data = synthetic_data(folder, {.train = 2, .val = 1}), run = folder / "run";
  train_run(data, run, kTrain + " --steps 2 --calibrate-at 1 --quiet");
  CHECK(json_of(run_program("eval " + run + " --json --data " + data + " --split train")).at("images") == 20);
  const std::string bad = data + "/val/striped_disk/00000.jpg";
  write_text(bad, "no image");
  const nlohmann::json left_out = json_of(run_program("eval " + run + " --json --data " + data));
  CHECK(left_out.at("images") == 9);
  CHECK(left_out.at("skipped") == 1);
  const Result strict = run_program("eval " + run + " --json --strict-data --data " + data);
  CHECK(strict.code == 3);
  CHECK(has(strict.err, bad));
  CHECK(strict.out.empty());
  const Result trained =
      run_program("train --data " + data + " --out " + (folder / "less") + kTrain + " --steps 2 --calibrate-at 1");
  CHECK(trained.code == 0);
  CHECK(has(trained.err, ", 9 images and 1 skipped, "));
  CHECK(metrics_of(folder / "less").back().at("eval/skipped") == 1);
}

TEST_CASE("a layer with a precision of its own is said, trained, exported, inspected and reported as such") {
  if (no_program()) return;
  const TemporaryFolder folder("overrides");
  const std::string data = synthetic_data(folder), run = folder / "run", served = folder / "model.safetensors",
                    config = folder.write("layers.toml", "[layers.\"layer3.0.conv2\"]\nprecision = \"w8a8\"\n"),
                    options = kTrain + " --precision w4a4 --steps 2 --calibrate-at 1 --config " + config;
  const nlohmann::json plan = json_of(run_program("train --dry-run --json --data " + data + " --out " + run + options));
  CHECK(plan.at("layers") == nlohmann::json{{"layer3.0.conv2", "w8a8"}});
  CHECK(has(train_run(data, run, options).err, "\nlayers layer3.0.conv2 w8a8\n"));
  const auto layer = [](const nlohmann::json& j, const std::string& name) {
    for (const nlohmann::json& l : j.at("layers"))
      if (l.at("name") == name) return l;
    FAIL(name << " is not there");
    return nlohmann::json();
  };
  const nlohmann::json file = json_of(run_program("export --json --out " + served + " " + run + "/latest"));
  const nlohmann::json own = layer(file, "layer3.0.conv2"), other = layer(file, "layer3.0.conv1");
  CHECK(own.at("bits") == 8);
  CHECK(own.at("bytes") == own.at("weights"));
  CHECK(other.at("bits") == 4);
  CHECK(other.at("bytes").get<int64_t>() < other.at("weights").get<int64_t>());
  for (const std::string& model : {run, served}) {
    const nlohmann::json rows = json_of(run_program("inspect --json --threads 1 " + model));
    CHECK(layer(rows, "layer3.0.conv2").at("kernel") == "u8s8");
    CHECK(layer(rows, "layer3.0.conv2").at("activation_bits") == 8);
    CHECK(layer(rows, "layer3.0.conv1").at("kernel") == "u4s4");
  }
  run_well("report " + run);
  CHECK(has(read_text(run + "/report.html"), "8 bits: layer3.0.conv2; 4 bits: all others."));
}
