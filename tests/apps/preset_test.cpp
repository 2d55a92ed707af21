// --preset: the published recipe as one value, and what wins over what.
#include <doctest/doctest.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/train_arguments.hpp"
#include "engine/error.hpp"
#include "tests/apps/program.hpp"
#include "tests/near.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::has;

void parse_preset(TrainArguments& arguments, const std::string& line, const std::string& file = "") {
  CLI::App app;
  arguments.declare(app);
  app.parse(line);
  arguments.read_preset();
  if (!file.empty()) arguments.read_text(file, "test.toml");
  arguments.resolve();
}

TEST_CASE("preset: paper is the published recipe, option for option") {
  TrainArguments a;
  parse_preset(a, "--preset paper");
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
  parse_preset(a, "--preset paper");
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
    CHECK(static_cast<double>(t.schedule.rate(p.step)) == testing::relative(p.rate, 2e-6));
  }
}

TEST_CASE("preset: the learning rate follows the batch size as published, unless line or file give one") {
  const auto rate = [](const std::string& line, const std::string& file = "") {
    TrainArguments a;
    parse_preset(a, line, file);
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

TEST_CASE("preset: the shard is the largest divisor of the batch size up to 64, unless line or file give one") {
  const auto shard = [](const std::string& line, const std::string& file = "") {
    TrainArguments a;
    parse_preset(a, line, file);
    return a.options.shard;
  };
  CHECK(shard("--preset paper --batch-size 32") == 32);
  CHECK(shard("--preset paper --batch-size 96") == 48);
  CHECK(shard("--preset paper --batch-size 128") == 64);
  CHECK(shard("--preset paper --batch-size 7") == 7);
  CHECK(shard("--preset paper --batch-size 1") == 1);
  CHECK(shard("--preset paper --batch-size 272") == 34);
  CHECK(shard("--preset paper", "batch-size = 96\n") == 48);
  CHECK(shard("--preset paper --batch-size 96 --shard 12") == 12);
  CHECK(shard("--preset paper --batch-size 96", "shard = 24\n") == 24);
  CHECK(shard("--preset paper --batch-size 67 --shard 1") == 1);
  CHECK(shard("--batch-size 64") == TrainOptions().shard);
  for (const std::string batch : {"65", "67", "134"})  // 13, 1 and 2 images
    CHECK_THROWS_WITH_AS(shard("--preset paper --batch-size " + batch),
                         doctest::Contains(("--batch-size " + batch + " has no divisor from 16 to 64").c_str()),
                         UsageError);
  CHECK_THROWS_WITH_AS(shard("--preset paper --batch-size 0"), doctest::Contains("--batch-size is 0"), UsageError);
  CHECK_THROWS_WITH_AS(shard("--preset paper --batch-size 96 --shard 64"),
                       doctest::Contains("--batch-size 96 is not a multiple of --shard 64"), UsageError);
}

TEST_CASE("preset: the command line wins over the file, that over the preset, that over the default") {
  TrainArguments a;
  parse_preset(a, "--preset paper --epochs 3 --no-same-padding --label-smoothing 0.1",
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
  parse_preset(with, "--preset paper --batch-size 128 --width 0.5 --precision w4a4");
  CHECK_FALSE(has(with.config_text(), "preset"));
  parse_preset(again, "", with.config_text());
  CHECK(again.config_text() == with.config_text());
  CHECK(again.options.network == with.options.network);
  CHECK(again.preset_summary().empty());
}

TEST_CASE("preset: its summary names its options that are in use with their values, and which were given instead") {
  TrainArguments a;
  parse_preset(a, "--preset paper --batch-size 96 --keep 7", "epochs = 3\nper-class = 4\n");
  const std::string text = a.preset_summary();
  CHECK(text.starts_with("paper: "));
  for (const char* part : {"lr = 0.0375", "shard = 48", "quant-mode = 'fake'", "min-crop = 0.08"})
    CHECK_MESSAGE(has(text, part), text);
  for (const char* part : {"keep", "per-class", "batch-size = ", "epochs = 3"}) CHECK_MESSAGE(!has(text, part), text);
  CHECK_MESSAGE(text.ends_with("; given instead: batch-size, epochs"), text);

  const nlohmann::json j = a.preset_json(), &options = j.at("options");
  CHECK(j.at("name") == "paper");
  CHECK(j.at("overridden") == std::vector<std::string>{"batch-size", "epochs"});
  CHECK(options.at("lr").get<double>() == doctest::Approx(0.0375));
  CHECK(options.at("shard") == 48);
  CHECK(options.at("quant-mode") == "fake");
  CHECK(options.at("bf16-weights") == true);
  CHECK(options.size() == 24);
  for (const char* name : {"keep", "per-class", "batch-size", "epochs"}) CHECK_FALSE(options.contains(name));

  TrainArguments longer;  // the file's steps give way to the line's epochs, as if they were not there
  parse_preset(longer, "--preset paper --epochs 3", "steps = 500\n");
  CHECK(longer.preset_json().at("overridden") == std::vector<std::string>{"epochs"});
  CHECK(longer.preset_json().at("options").at("steps") == 0);

  TrainArguments none;
  parse_preset(none, "--keep 7");
  CHECK(none.preset_summary().empty());
  CHECK(none.preset_json().is_null());
  TrainArguments whole;
  parse_preset(whole, "--preset paper");
  CHECK_FALSE(has(whole.preset_summary(), "instead"));
  CHECK(whole.preset_json().at("overridden").empty());
}

TEST_CASE("preset: an unknown name is refused with those there are, a file with a preset by its line") {
  TrainArguments a;
  CHECK_THROWS_WITH_AS(parse_preset(a, "--preset papper"), "--preset is 'papper'; the only one there is: paper",
                       UsageError);
  TrainArguments b;
  CHECK_THROWS_WITH_AS(parse_preset(b, "", "lr = 1\npreset = \"paper\"\n"),
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
  const auto preset_of = [](const std::string& command) {
    return nlohmann::json::parse(run_well(command).out).at("preset");
  };
  const nlohmann::json planned = preset_of("train" + line + " --dry-run --json");
  CHECK(planned.at("name") == "paper");
  CHECK(planned.at("options").at("lr") == 0.025);
  CHECK(planned.at("overridden") == std::vector<std::string>{"image-size", "batch-size", "epochs"});
  const std::string sweep =
      "study run" + line + " --arch resnet26 --widths 0.1 --precisions bf16 --dry-run --out " + (folder / "none");
  const std::string swept = run_well(sweep).out;
  CHECK_MESSAGE(has(swept, "\npreset paper: "), swept);
  CHECK_MESSAGE(has(swept, "; given instead: arch, image-size, batch-size, epochs"), swept);
  const nlohmann::json of_study = preset_of(sweep + " --json");
  CHECK(of_study.at("options") != planned.at("options"));  // no arch
  CHECK(of_study.at("overridden").at(0) == "arch");
  CHECK(of_study.at("options").at("lr") == 0.025);
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
  // For points in the published arithmetic there is no file to serve, so no budget of bytes or time allows them.
  CHECK_FALSE(std::filesystem::exists(study + "/bf16-x0.1-s0/served.safetensors"));
  CHECK(has(run_well("study pick --max-linear 1 " + study).out, "not served, not timed"));
  check_refused("study pick " + study + " --max-bytes 1e9", 2, "(those of --quant-mode fake have none); limit a cost");
  check_refused("study pick " + study + " --max-ms 1e6", 2, "or, with --quant-mode fake, limit a cost: --max-linear");
  check_refused("study run --out " + study + " --preset paper", 2, "has its recipe already");
}

}  // namespace
}  // namespace nibble::testing
