// What a run is told is what it does: the library, told the same by hand, trains the same weights from the same images.
#include <doctest/doctest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/image_folder.hpp"
#include "data/loader.hpp"
#include "data/subset.hpp"
#include "nn/checkpoint.hpp"
#include "nn/trainer.hpp"
#include "tests/apps/program.hpp"
#include "tests/apps/whole_run.hpp"
#include "tests/nn/small_model.hpp"

namespace {

using namespace nibble;
using nibble::testing::has;
using nibble::testing::json_of;
using nibble::testing::no_program;
using nibble::testing::read_text;
using nibble::testing::Result;
using nibble::testing::run_program;
using nibble::testing::run_well;
using nibble::testing::same_bytes;
using nibble::testing::synthetic_data;
using nibble::testing::TemporaryFolder;

/// No option that changes a result has its default, except --quant-mode and (of no meaning per tensor)
/// --per-channel-by. Three steps per epoch, so two of warm-up.
constexpr const char* kOptions =
    " --arch resnet26 --width 0.1 --precision w8a4-fl8 --granularity per_tensor --image-size 48 --same-padding"
    " --signed-block-input --quant-scheme nearest --bf16-weights --pixel-mean 0.5,0.25,0.4 --pixel-std 0.5 --classes 7 "
    "--per-class 4 --min-crop 0.6 --decoder "
    "stb --batch-size 8 --shard 4 --steps 5"
    " --lr 0.7 --warmup-epochs 0.7 --schedule step --optimizer lars --momentum 0.8 --no-nesterov --weight-decay 0.01"
    " --clip-grad-norm 0.5 --label-smoothing 0.2 --calibrate-at 3 --no-zero-gamma --seed 5 --quiet";

/// The same, told to the library.
std::unique_ptr<Trainer> trained_by_hand(const std::string& data) {
  const NetworkOptions network{.arch = "resnet26",
                               .width = 0.1,
                               .precision = "w8a4-fl8",
                               .granularity = Granularity::kPerTensor,
                               .scheme = QuantScheme::kNearest,
                               .image_size = 48,
                               .classes = 7,
                               .same_padding = true,
                               .signed_block_input = true,
                               .bf16_weights = true,
                               .pixel_norm = {.mean = {0.5, 0.25, 0.4}, .std = {0.5, 0.5, 0.5}},
                               .overrides = {}};
  const auto all =
      std::make_shared<ImageFolder>(ImageFolderArgs{.dir = data, .split = "train", .decoder = Decoder::stb});
  const auto some = std::make_shared<Subset>(all, SubsetArgs{.classes = 7, .per_class = 4, .seed = 5});
  TrainLoader loader({.dataset = some, .batch_size = 8, .transform = {.size = 48, .min_crop = 0.6f}, .seed = 5});
  REQUIRE(loader.batches_per_epoch() == 3);
  const TrainerOptions options{
      .shard = 4,
      .label_smoothing = 0.2f,
      .schedule = {.kind = ScheduleKind::kStep, .peak = 0.7, .warmup_steps = 2, .total_steps = 5},
      .optimizer =
          {.kind = OptimizerKind::kLars, .momentum = 0.8f, .nesterov = false, .weight_decay = 0.01f, .clip_norm = 0.5f},
      .calibrate_step = 3};
  auto trainer =
      std::make_unique<Trainer>(make_model(build_resnet(network), {.seed = 5, .zero_last_gamma = false}), options);
  for (int step = 0; step < 5; ++step) {
    const Batch batch = loader.next();
    trainer->step(batch.images, batch.labels);
  }
  return trainer;
}

/// Names of the parameters in which the two differ.
std::string differences(const Network& network, const std::vector<UnitParameters>& a,
                        const std::vector<UnitParameters>& b) {
  REQUIRE(a.size() == b.size());
  std::string names;
  for (size_t u = 0; u < a.size(); ++u) {
    const auto compare = [&](Tensor UnitParameters::*part, const char* name) {
      const Tensor &x = a[u].*part, &y = b[u].*part;
      if (x.defined() != y.defined() || (x.defined() && !same_bytes(x, y)))
        names += network.units[u].name + " (" + name + ") ";
    };
    compare(&UnitParameters::weights, "weights");
    compare(&UnitParameters::gamma, "gamma");
    compare(&UnitParameters::beta, "beta");
    compare(&UnitParameters::running_mean, "running mean");
    compare(&UnitParameters::running_variance, "running variance");
    compare(&UnitParameters::bias, "bias");
  }
  return names;
}

}  // namespace

TEST_CASE(
    "every option that changes a result reaches the run: the library makes the same weights with the same values") {
  if (no_program()) return;
  const TemporaryFolder folder("options");
  const std::string data = folder / "data", run = folder / "run";
  REQUIRE(run_program("synth --out " + data + " --train 6 --val 1 --size 56").code == 0);
  const Result r = run_program("train --data " + data + " --out " + run + kOptions);
  INFO(r.err);
  REQUIRE(r.code == 0);
  const Checkpoint found = load_checkpoint(run + "/latest");
  const auto trainer = trained_by_hand(data);
  const Model& expected = trainer->model();
  const Network& network = expected.network;
  CHECK(found.steps_done == trainer->steps_done());
  CHECK(found.model.network.options == network.options);
  CHECK(differences(network, found.model.units, expected.units).empty());
  CHECK(differences(network, found.momentum.units, trainer->momentum().units).empty());
  REQUIRE(expected.calibrated());
  REQUIRE(found.model.calibration.size() == expected.calibration.size());
  for (size_t q = 0; q < found.model.calibration.size(); ++q)
    CHECK(found.model.calibration[q].bound == expected.calibration[q].bound);
}

TEST_CASE("a run is not resumed with another decoder, which is named, and is with its own") {
  if (no_program()) return;
  const TemporaryFolder folder("decoder");
  const std::string data = folder / "data", run = folder / "run", last = "/checkpoints/step-000003.safetensors";
  const std::string options =
      " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 3 --calibrate-at 1"
      " --save-every 1 --quiet --decoder ";
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 1 --size 32").code == 0);
  REQUIRE(run_program("train --data " + data + " --out " + run + options + "stb").code == 0);
  const std::string config = read_text(run + "/config.resolved.toml"), whole = read_text(run + last);
  std::filesystem::remove(run + last);
  if (resolve(Decoder::auto_) == Decoder::turbo) {  // otherwise stb is the only one that this build has
    for (const std::string other : {"turbo", "auto"}) {
      const Result r = run_program("train --resume " + run + " --quiet --decoder " + other);
      CAPTURE(r.err);
      CHECK(r.code == 2);
      CHECK(r.err.find("was trained with the decoder stb, this is turbo") != std::string::npos);
      CHECK(r.err.find("resume with --decoder stb") != std::string::npos);
      CHECK_FALSE(std::filesystem::exists(run + last));
      CHECK(read_text(run + "/config.resolved.toml") == config);
    }
  }
  CHECK(run_program("train --resume " + run + " --quiet --decoder stb").code == 0);
  CHECK(read_text(run + last) == whole);
}

TEST_CASE("eval and predict decode as the model's training did, or as they are told, with a warning") {
  if (no_program()) return;
  if (resolve(Decoder::auto_) != Decoder::turbo) {
    MESSAGE("skipped: stb is the only decoder of this build");
    return;
  }
  const TemporaryFolder folder("eval-decoder");
  const std::string data = folder / "data", run = folder / "run";
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 4 --size 72").code == 0);
  const Result trained = run_program("train --data " + data + " --out " + run +
                                     " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 3"
                                     " --calibrate-at 1 --quiet --json --decoder stb");
  REQUIRE(trained.code == 0);
  const auto evaluated = [&](const std::string& decoder) {
    const Result r = run_program("eval " + run + "/latest --data " + data + " --json --decoder " + decoder);
    CAPTURE(r.err);
    REQUIRE(r.code == 0);
    CHECK(has(r.err, "the model's training images were read by the decoder stb, these are by turbo") ==
          (decoder == "turbo"));
    return nlohmann::json::parse(r.out);
  };
  const nlohmann::json stb = evaluated("stb"), turbo = evaluated("turbo");
  CHECK(stb.at("decoder") == "stb");
  CHECK(turbo.at("decoder") == "turbo");
  CHECK(stb.at("logits_sha256") != turbo.at("logits_sha256"));
  CHECK(evaluated("auto").at("decoder") == "stb");
  CHECK(evaluated("auto").at("logits_sha256") == stb.at("logits_sha256"));
  const std::string served = folder / "served", image = data + "/val/ringed_disk/00002.jpg";
  run_well("export " + run + "/latest --out " + served);
  CHECK(json_of(run_program("eval " + served + " --data " + data + " --json")).at("logits_sha256") ==
        stb.at("logits_sha256"));
  const auto predicted = [&](const std::string& decoder) {
    return run_well("predict " + served + " " + image + " --json --decoder " + decoder).out;
  };
  CHECK(predicted("auto") == predicted("stb"));
  CHECK(predicted("auto") != predicted("turbo"));
  double own_loss = 0;
  std::istringstream log(read_text(run + "/metrics.jsonl"));
  for (std::string line; std::getline(log, line);) own_loss = nlohmann::json::parse(line).value("eval/loss", own_loss);
  CHECK(own_loss == stb.at("loss"));
  CHECK(own_loss != turbo.at("loss"));
}

TEST_CASE("NIBBLE_THREADS is --threads, which wins over it; NIBBLE_LOG=quiet is --quiet") {
  if (no_program()) return;
  const auto threads_of = [](const std::string& options, const std::string& environment) {
    return json_of(run_program("doctor --json" + options, environment)).at("threads").get<int>();
  };
  CHECK(threads_of("", "NIBBLE_THREADS=3") == 3);
  CHECK(threads_of(" --threads 2", "NIBBLE_THREADS=3") == 2);
  const TemporaryFolder folder("quiet");
  const std::string command = "train --data " + synthetic_data(folder) + " --out " + (folder / "run") +
                              " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 100"
                              " --eval-every 0 --save-every 1000";
  const Result loud = run_well(command);
  CHECK(has(loud.err, "epoch "));
  std::filesystem::remove_all(folder / "run");
  for (const auto& [options, environment] : {std::pair{" --quiet", ""}, {"", "NIBBLE_LOG=quiet"}}) {
    const Result quiet = run_program(command + options, environment);
    CHECK(quiet.code == 0);
    CHECK(quiet.err == "");
    CHECK(quiet.out.starts_with("done: "));
    std::filesystem::remove_all(folder / "run");
  }
}
