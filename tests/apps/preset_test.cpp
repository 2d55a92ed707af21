// --preset: the published recipe as one value, and what wins over what.
#include <doctest/doctest.h>

#include <CLI/CLI.hpp>

#include "apps/train_arguments.hpp"
#include "engine/error.hpp"
#include "tests/apps/program.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::has;

void parse(TrainArguments& arguments, const std::string& line, const std::string& file = "") {
  CLI::App app;
  arguments.declare(app);
  app.parse(line);
  arguments.read_preset();
  if (!file.empty()) arguments.read_text(file, "test.toml");
  arguments.resolve();
}

TEST_CASE("preset: paper is the published recipe, option for option") {
  TrainArguments a;
  parse(a, "--preset paper");
  const TrainOptions& o = a.options;
  CHECK(o.network == NetworkOptions{.arch = "resnet50",
                                    .width = 1,
                                    .precision = NetworkOptions().precision,
                                    .granularity = Granularity::kPerChannel,
                                    .per_channel_by = PerChannelBy::kFold,
                                    .mode = QuantMode::kFake,
                                    .scheme = QuantScheme::kPaper,
                                    .image_size = 224,
                                    .classes = NetworkOptions().classes,
                                    .same_padding = true,
                                    .signed_block_input = true,
                                    .bf16_weights = true,
                                    .overrides = {}});
  CHECK(o.min_crop == 0.08);
  CHECK(o.batch_size == 8192);
  CHECK(o.shard == 64);
  CHECK(o.epochs == 250);
  CHECK(o.steps == 0);
  CHECK(o.lr == 3.2);
  CHECK(o.warmup_epochs == 5);
  CHECK(o.schedule == "paper");
  CHECK(o.optimizer == "sgd");
  CHECK(o.momentum == 0.9);
  CHECK(o.nesterov);
  CHECK(o.weight_decay == 1e-4);
  CHECK(o.clip_grad_norm == 0);
  CHECK(o.label_smoothing == 0);
  CHECK(o.zero_gamma);
  CHECK(o.eval_every == 1);
}

TEST_CASE("preset: paper gives the published learning rates and the published step of calibration") {
  TrainArguments a;
  parse(a, "--preset paper");
  const TrainerOptions t = a.options.trainer(39000, 156);  // 250 epochs of 156 steps
  CHECK(t.calibrate_step == 7500);
  CHECK(t.schedule.warmup_steps == 780);
  struct Published {
    int64_t step;
    double rate;
  };
  for (const Published& p : {Published{0, 0},
                             {390, 1.6},
                             {780, 3.2},
                             {7500, 2.83028},
                             {31200, 0.0032},
                             {31355, 0.00313641},
                             {35100, 0.0016},
                             {38999, 4.10256e-7}}) {
    CAPTURE(p.step);
    CHECK(static_cast<double>(t.schedule.rate(p.step)) == doctest::Approx(p.rate).epsilon(2e-6));
  }
}

TEST_CASE("preset: the learning rate follows the batch size as published, unless line or file give one") {
  const auto rate = [](const std::string& line, const std::string& file = "") {
    TrainArguments a;
    parse(a, line, file);
    return a.options.lr;
  };
  CHECK(rate("--preset paper --batch-size 64") == 0.025);
  CHECK(rate("--preset paper", "batch-size = 512\n") == 0.2);
  CHECK(rate("--preset paper --batch-size 64", "batch-size = 512\n") == 0.025);
  CHECK(rate("--preset paper --batch-size 64 --lr 0.5") == 0.5);
  CHECK(rate("--preset paper", "batch-size = 512\nlr = 0.3\n") == 0.3);
  CHECK(rate("--preset paper --lr 0.05") == 0.05);  // the default, but asked for
  CHECK(rate("--batch-size 512 --shard 64") == TrainOptions().lr);
}

TEST_CASE("preset: the command line wins over the file, that over the preset, that over the default") {
  TrainArguments a;
  parse(a, "--preset paper --epochs 3 --no-same-padding --label-smoothing 0.1",
        "epochs = 7\nmin-crop = 0.25\nquant-mode = \"integer\"\n");
  CHECK(a.options.epochs == 3);
  CHECK_FALSE(a.options.network.same_padding);
  CHECK(a.options.label_smoothing == 0.1);  // the default, but asked for
  CHECK(a.options.min_crop == 0.25);
  CHECK(a.options.network.mode == QuantMode::kInteger);
  CHECK(a.options.network.signed_block_input);
  CHECK(a.options.keep == TrainOptions().keep);
}

TEST_CASE("preset: the resolved config holds its options and not its name, and makes the same run without it") {
  TrainArguments with, again;
  parse(with, "--preset paper --batch-size 128 --width 0.5 --precision w4a4");
  CHECK_FALSE(has(with.config_text(), "preset"));
  parse(again, "", with.config_text());
  CHECK(again.config_text() == with.config_text());
  CHECK(again.options.network == with.options.network);
  CHECK(again.preset_summary().empty());
}

TEST_CASE("preset: its summary names its options with the values of this run, and no others") {
  TrainArguments a;
  parse(a, "--preset paper --batch-size 128 --keep 7");
  const std::string text = a.preset_summary();
  CHECK(text.starts_with("paper: "));
  for (const char* part : {"lr = 0.05", "batch-size = 128", "epochs = 250", "quant-mode = 'fake'", "min-crop = 0.08"})
    CHECK_MESSAGE(has(text, part), text);
  CHECK_FALSE(has(text, "keep"));
}

TEST_CASE("preset: a name that is none is refused with those there are, a file with a preset by its line") {
  TrainArguments a;
  CHECK_THROWS_WITH_AS(parse(a, "--preset papper"), "--preset is 'papper'; the only one there is: paper", UsageError);
  TrainArguments b;
  CHECK_THROWS_WITH_AS(parse(b, "", "lr = 1\npreset = \"paper\"\n"),
                       doctest::Contains("test.toml:2: a preset is for the command line"), UsageError);
}

}  // namespace
}  // namespace nibble::apps

namespace nibble::testing {
namespace {

TEST_CASE("preset: a dry run shows it, a resumed run and a begun study refuse it") {
  if (no_program()) return;
  const TemporaryFolder folder("preset");
  const std::string data = folder / "images";
  REQUIRE(run_program("synth --out " + data + " --train 8 --val 1").code == 0);
  const std::string line = " --data " + data + " --preset paper --batch-size 64 --image-size 32 --epochs 2";
  const Result plan = run_program("train" + line + " --dry-run");
  CHECK_MESSAGE(plan.code == 0, plan.err);
  CHECK_MESSAGE(has(plan.out, "lr 0.025 paper"), plan.out);
  CHECK_MESSAGE(has(plan.out, "\npreset paper: "), plan.out);
  check_refused("train --data " + data + " --preset papper", 2, "--preset is 'papper'");
  const std::string run = folder / "run";
  const Result trained =
      run_program("train" + line + " --steps 1 --arch resnet26 --width 0.1 --precision bf16 --out " + run);
  REQUIRE_MESSAGE(trained.code == 0, trained.err);
  check_refused("train --resume " + run + " --preset paper", 2, "--preset cannot change when a run is resumed");
  const std::string study = folder / "study";
  const Result begun = run_program("study run" + line +
                                   " --steps 1 --arch resnet26 --widths 0.1 --precisions bf16 --quiet --out " + study);
  REQUIRE_MESSAGE(begun.code == 0, begun.err);
  check_refused("study run --out " + study + " --preset paper", 2, "has its recipe already");
}

}  // namespace
}  // namespace nibble::testing
