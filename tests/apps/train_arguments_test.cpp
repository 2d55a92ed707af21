// From the words of a command line or a config file to what a run is told: no option is forgotten and none is swapped.
#include "apps/train_arguments.hpp"

#include <doctest/doctest.h>

#include <CLI/CLI.hpp>
#include <sstream>
#include <tuple>

namespace nibble::apps {
namespace {

/// Every option of networks and runs away from its default, and no two of one kind alike.
constexpr const char* kLine =
    "--data images --arch resnet101 --width 0.75 --precision w4a8 --granularity per_tensor --per-channel-by shift"
    " --quant-mode fake --image-size 96 --same-padding --signed-block-input --quant-scheme nearest --bf16-weights"
    " --pixel-mean 0.5,0.25,0.625 --pixel-std 0.6875 --crop-share 0.9375 --upright"
    " --classes 7 --per-class 13 --min-crop 0.375 --decoder stb --strict-data --loader-threads 5 --batch-size 48 "
    "--shard 6 --low-memory --epochs 17 --steps 2000 --lr 1.75"
    " --warmup-epochs 2.5 --schedule paper --optimizer lars --momentum 0.625 --no-nesterov --weight-decay 0.03125"
    " --clip-grad-norm 4.5 --label-smoothing 0.25 --calibrate-at 0.125 --no-zero-gamma --seed 42 --save-every 11"
    " --eval-every 3 --keep 9";
constexpr const char* kFile =
    "data = \"images\"\narch = \"resnet101\"\nwidth = 0.75\nprecision = \"w4a8\"\ngranularity = \"per_tensor\"\n"
    "per-channel-by = \"shift\"\nquant-mode = \"fake\"\nimage-size = 96\nsame-padding = true\n"
    "signed-block-input = true\nquant-scheme = \"nearest\"\nbf16-weights = true\npixel-mean = \"0.5, 0.25, "
    "0.625\"\npixel-std = \"0.6875\"\ncrop-share = 0.9375\nupright = true\nclasses = 7\nper-class = 13\nmin-crop "
    "= 0.375\ndecoder = \"stb\"\nstrict-data = true\n"
    "loader-threads = 5\nbatch-size = 48\nshard = 6\nlow-memory = true\nepochs = 17\nsteps = 2000\nlr = "
    "1.75\nwarmup-epochs = 2.5\n"
    "schedule = \"paper\"\noptimizer = \"lars\"\nmomentum = 0.625\nnesterov = false\nweight-decay = 0.03125\n"
    "clip-grad-norm = 4.5\nlabel-smoothing = 0.25\ncalibrate-at = 0.125\nzero-gamma = false\nseed = 42\n"
    "save-every = 11\neval-every = 3\nkeep = 9\n";

void parse(TrainArguments& arguments, const std::string& line, const std::string& file) {
  CLI::App app;
  arguments.declare(app);
  app.parse(line);
  arguments.read_text(file, "test.toml");
  arguments.resolve();
}

/// Every field as one value; a field that is new does not compile until it is added here and to what is expected.
auto fields_of(const OptimizerOptions& o) {
  const auto& [kind, momentum, nesterov, weight_decay, clip_norm, lars_coefficient] = o;
  return std::make_tuple(kind, momentum, nesterov, weight_decay, clip_norm, lars_coefficient);
}
auto fields_of(const Schedule& s) {
  const auto& [kind, peak, warmup_steps, total_steps] = s;
  return std::make_tuple(kind, peak, warmup_steps, total_steps);
}
auto fields_of(const TrainerOptions& t) {
  const auto& [shard, label_smoothing, schedule, optimizer, calibrate_step, low_memory] = t;
  return std::tuple_cat(std::make_tuple(shard, label_smoothing, calibrate_step, low_memory), fields_of(schedule),
                        fields_of(optimizer));
}

/// The options that kLine and kFile name.
void check_options(const TrainOptions& o) {
  const NetworkOptions network{.arch = "resnet101",
                               .width = 0.75,
                               .precision = "w4a8",
                               .granularity = Granularity::kPerTensor,
                               .per_channel_by = PerChannelBy::kShift,
                               .mode = QuantMode::kFake,
                               .scheme = QuantScheme::kNearest,
                               .image_size = 96,
                               .classes = NetworkOptions().classes,  // the data set's, so not an option
                               .same_padding = true,
                               .signed_block_input = true,
                               .bf16_weights = true,
                               .pixel_norm = {.mean = {0.5, 0.25, 0.625}, .std = {0.6875, 0.6875, 0.6875}},
                               .crop_share = 0.9375,
                               .upright = true,
                               .overrides = {}};
  CHECK(o.network == network);
  CHECK(o.data == "images");
  CHECK(o.limit_classes == 7);
  CHECK(o.per_class == 13);
  CHECK(o.min_crop == 0.375);
  CHECK(o.decoder == "stb");
  CHECK(o.strict_data);
  CHECK(o.loader_threads == 5);
  CHECK(o.batch_size == 48);
  CHECK(o.shard == 6);
  CHECK(o.epochs == 17);
  CHECK(o.steps == 2000);
  CHECK(o.lr == 1.75);
  CHECK(o.warmup_epochs == 2.5);
  CHECK(o.schedule == "paper");
  CHECK(o.optimizer == "lars");
  CHECK(o.momentum == 0.625);
  CHECK_FALSE(o.nesterov);
  CHECK(o.weight_decay == 0.03125);
  CHECK(o.clip_grad_norm == 4.5);
  CHECK(o.label_smoothing == 0.25);
  CHECK(o.calibrate_at == 0.125);
  CHECK_FALSE(o.zero_gamma);
  CHECK(o.seed == 42);
  CHECK(o.save_every == 11);
  CHECK(o.eval_every == 3);
  CHECK(o.keep == 9);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST_CASE("train arguments: a file's steps do not override the command line's epochs") {
  const auto steps_of = [](const std::string& line, const std::string& file) {
    TrainArguments arguments;
    parse(arguments, line, file);
    return arguments.options.steps;
  };
  CHECK(steps_of("--epochs 3", "steps = 500\n") == 0);
  CHECK(steps_of("--epochs 3 --steps 20", "steps = 500\n") == 20);
  CHECK(steps_of("--lr 1", "steps = 500\nepochs = 4\n") == 500);
}

TEST_CASE("train arguments: the line and the file of this test change every option there is") {
  for (const bool from_line : {true, false}) {
    TrainArguments changed;
    parse(changed, from_line ? kLine : "", from_line ? "" : kFile);
    const std::vector<std::string> now = lines_of(changed.config_text()),
                                   before = lines_of(TrainArguments().config_text());
    REQUIRE(now.size() == before.size());
    for (size_t i = 0; i < now.size(); ++i) CHECK(now[i] != before[i]);
  }
}

TEST_CASE("train arguments: each option of the command line and of a file arrives in its own place") {
  TrainArguments from_line, from_file;
  parse(from_line, kLine, "");
  check_options(from_line.options);
  parse(from_file, "", kFile);
  check_options(from_file.options);
  CHECK(from_file.config_text() == from_line.config_text());
}

TEST_CASE("train arguments: the command line wins over the file, which wins over the default") {
  TrainArguments a;
  parse(a, "--momentum 0.5 --nesterov --seed 0 --optimizer sgd", kFile);
  CHECK(a.options.momentum == 0.5);
  CHECK(a.options.nesterov);
  CHECK(a.options.seed == 0);  // the default, but asked for
  CHECK(a.options.optimizer == "sgd");
  CHECK(a.options.weight_decay == 0.03125);
  CHECK(a.options.schedule == "paper");
}

TEST_CASE("train arguments: the trainer is told every option of training, each in its own place") {
  TrainArguments a;
  parse(a, kLine, "");
  const TrainerOptions expected{.shard = 6,
                                .label_smoothing = 0.25f,
                                .schedule = {.kind = ScheduleKind::kPaper,
                                             .peak = 1.75,
                                             .warmup_steps = 50,  // 2.5 epochs of 20 steps
                                             .total_steps = 1000},
                                .optimizer = {.kind = OptimizerKind::kLars,
                                              .momentum = 0.625f,
                                              .nesterov = false,
                                              .weight_decay = 0.03125f,
                                              .clip_norm = 4.5f,
                                              .lars_coefficient = OptimizerOptions().lars_coefficient},  // no option
                                .calibrate_step = 125,  // an eighth of 1,000
                                .low_memory = true};
  CHECK(fields_of(a.options.trainer(1000, 20)) == fields_of(expected));
}

TEST_CASE("train arguments: warm-up ends with the run, calibration may be a step, the other names have their kinds") {
  TrainArguments a;
  parse(a, "--warmup-epochs 6.5 --calibrate-at 300 --schedule step --optimizer sgd", "");
  const TrainerOptions longer = a.options.trainer(1000, 100), shorter = a.options.trainer(500, 100);
  CHECK(longer.schedule.warmup_steps == 650);
  CHECK(shorter.schedule.warmup_steps == 500);
  CHECK(longer.calibrate_step == 300);
  CHECK(shorter.calibrate_step == 300);
  CHECK(longer.schedule.kind == ScheduleKind::kStep);
  CHECK(longer.optimizer.kind == OptimizerKind::kSgd);
  CHECK(TrainOptions().trainer(1000, 100).schedule.kind == ScheduleKind::kCosine);
  CHECK(TrainOptions().trainer(1000, 100).calibrate_step == 200);
  CHECK(TrainOptions().trainer(1, 1).calibrate_step == 1);  // a fifth of one step: there must be one with statistics
}

TEST_CASE(
    "train arguments: a value that a file has out of range is named with its line, one of the command line is not") {
  const auto refusal = [](const std::string& line, const std::string& file) -> std::string {
    TrainArguments arguments;
    try {
      parse(arguments, "--data images " + line, file);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "";
  };
  CHECK(refusal("", "seed = 1\nlr = 5000\n") == "test.toml:2: --lr is 5000; use 0 to 1000");
  CHECK(refusal("--lr 5000", "lr = 0.1\n") == "--lr is 5000; use 0 to 1000");
  CHECK(refusal("--lr 0.1", "lr = 5000\n") == "");
  CHECK(refusal("", "\nimage-size = 7\n") == "test.toml:2: --image-size is 7; use 32 to 1024 pixels");
  CHECK(refusal("", "arch = \"resnet18\"\n").starts_with("test.toml:1: --arch is 'resnet18'"));
  CHECK(refusal("--batch-size 48", "\n\nshard = 7\n").starts_with("test.toml:3: --batch-size 48 is not a multiple"));
  CHECK(refusal("", "lr = 0.1\n[layers.nowhere]\nprecision = \"w8a8\"\n")
            .starts_with("test.toml:2: the precision override names the layer 'nowhere'"));
  CHECK(refusal("", "\nprecision = \"w9a9\"\n").starts_with("test.toml:2: the precision is 'w9a9'"));
  CHECK(refusal("", "\ndecoder = \"x\"\n").starts_with("test.toml:2: there is no decoder 'x'"));
  for (const std::string name : {"granularity", "per-channel-by", "quant-mode", "quant-scheme"}) {
    CHECK(refusal("", "\n" + name + " = \"x\"\n").starts_with("test.toml:2: --" + name + " is 'x'; use "));
    CHECK(refusal("--" + name + " x", "").starts_with("--" + name + " is 'x'; use "));
  }
}

}  // namespace
}  // namespace nibble::apps
