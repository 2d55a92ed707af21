// Names, words and numbers of the command line: the parts that need no process.
#include "apps/options.hpp"

#include <doctest/doctest.h>

#include <CLI/CLI.hpp>

#include "apps/console.hpp"
#include "engine/error.hpp"

namespace nibble::apps {
namespace {

TEST_CASE("options: the nearest name is found within two edits or a third of the word, else nothing") {
  const std::vector<std::string> known = {"--lr", "--width", "--precision", "--image-size", "--batch-size"};
  CHECK(nearest_name("--lrr", known) == "--lr");
  CHECK(nearest_name("--widht", known) == "--width");
  CHECK(nearest_name("--precison", known) == "--precision");
  CHECK(nearest_name("--batchsize", known) == "--batch-size");
  CHECK(nearest_name("--completely-else", known).empty());
  CHECK(nearest_name("--lr", known) == "--lr");
  CHECK(nearest_name("", known).empty());
  CHECK(nearest_name("--lr", {}).empty());
}

TEST_CASE("options: every field is declared under its name and writes to its place") {
  TrainOptions o;
  NetworkTexts texts;
  std::vector<OptionField> fields = network_fields(o.network, texts);
  for (const OptionField& f : training_fields(o)) fields.push_back(f);
  CLI::App app;
  declare_fields(app, fields, "Options");
  std::set<std::string> names;
  for (const OptionField& f : fields) {
    CAPTURE(f.name);
    CHECK(app.get_option_no_throw("--" + f.name) != nullptr);
    CHECK(names.insert(f.name).second);
    CHECK_FALSE(f.help.empty());
  }
  // The options that scripts rely on.
  for (const char* name : {"arch",
                           "width",
                           "precision",
                           "granularity",
                           "per-channel-by",
                           "image-size",
                           "batch-size",
                           "shard",
                           "epochs",
                           "steps",
                           "lr",
                           "warmup-epochs",
                           "schedule",
                           "optimizer",
                           "nesterov",
                           "weight-decay",
                           "label-smoothing",
                           "calibrate-at",
                           "seed",
                           "classes",
                           "per-class",
                           "min-crop",
                           "momentum",
                           "clip-grad-norm",
                           "strict-data",
                           "decoder",
                           "loader-threads",
                           "keep",
                           "save-every",
                           "eval-every",
                           "quant-mode",
                           "zero-gamma",
                           "same-padding",
                           "signed-block-input"})
    CHECK_MESSAGE(names.contains(name), name);
  app.parse("--lr 0.25 --seed 7 --width=0.5 --no-nesterov --same-padding --precision w8a8 --batch-size 128");
  CHECK(o.lr == 0.25);
  CHECK(o.seed == 7);
  CHECK(o.network.width == 0.5);
  CHECK_FALSE(o.nesterov);
  CHECK(o.zero_gamma);
  CHECK(o.network.same_padding);
  CHECK(o.network.precision == "w8a8");
  CHECK(o.batch_size == 128);
  CHECK(given_fields(app, fields) ==
        std::set<std::string>{"batch-size", "lr", "nesterov", "precision", "same-padding", "seed", "width"});
}

TEST_CASE("options: the defaults are the project's one recipe and are in range") {
  const TrainOptions o;
  o.validate();
  CHECK(o.lr == 0.05);
  CHECK(o.momentum == 0.9);
  CHECK(o.nesterov);
  CHECK(o.warmup_epochs == 1);
  CHECK(o.schedule == "cosine");
  CHECK(o.weight_decay == 1e-4);
  CHECK(o.label_smoothing == 0.1);
  CHECK(o.min_crop == 0.25);
  CHECK(o.zero_gamma);
  CHECK(o.batch_size == 64);
  CHECK(o.shard == 32);
  CHECK(o.calibrate_at == 0.2);
  CHECK(o.seed == 0);
  CHECK(o.keep == 3);
}

template <typename Change>
std::string refusal(const Change& change) {
  TrainOptions o;
  change(o);
  try {
    o.validate();
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST_CASE("options: each one out of range is refused by the name of its flag") {
  const auto begins = [](const std::string& text, const char* with) { return text.rfind(with, 0) == 0; };
  const double nan = std::nan("");
  CHECK(begins(refusal([](TrainOptions& o) { o.batch_size = 0; }), "--batch-size is 0"));
  CHECK(begins(refusal([](TrainOptions& o) { o.shard = -1; }), "--shard is -1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.batch_size = 48; }), "--batch-size 48 is not a multiple of --shard 32"));
  CHECK(begins(refusal([](TrainOptions& o) { o.epochs = 0; }), "--epochs is 0"));
  CHECK(begins(refusal([](TrainOptions& o) { o.steps = -5; }), "--steps is -5"));
  CHECK(begins(refusal([](TrainOptions& o) { o.lr = -0.1; }), "--lr is -0.1"));
  CHECK(begins(refusal([&](TrainOptions& o) { o.lr = nan; }), "--lr is nan"));
  CHECK(begins(refusal([](TrainOptions& o) { o.warmup_epochs = -1; }), "--warmup-epochs is -1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.momentum = 1; }), "--momentum is 1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.weight_decay = -1e-4; }), "--weight-decay is -0.0001"));
  CHECK(begins(refusal([](TrainOptions& o) { o.clip_grad_norm = -1; }), "--clip-grad-norm is -1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.label_smoothing = 1; }), "--label-smoothing is 1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.min_crop = 0; }), "--min-crop is 0"));
  CHECK(begins(refusal([](TrainOptions& o) { o.keep = 0; }), "--keep is 0"));
  CHECK(begins(refusal([](TrainOptions& o) { o.calibrate_at = 0; }), "--calibrate-at is 0"));
  CHECK(begins(refusal([&](TrainOptions& o) { o.calibrate_at = nan; }), "--calibrate-at is nan"));
  CHECK(begins(refusal([](TrainOptions& o) { o.seed = ~uint64_t{0}; }), "--seed is 18446744073709551615"));
  CHECK(refusal([](TrainOptions& o) { o.schedule = "linear"; }).find("linear") != std::string::npos);
  CHECK(refusal([](TrainOptions& o) { o.optimizer = "adam"; }).find("adam") != std::string::npos);
  CHECK(refusal([](TrainOptions&) {}) == "accepted");
}

TEST_CASE("options: texts of enumerations become their values, others are refused") {
  NetworkOptions o;
  resolve_texts({.granularity = "per_tensor", .per_channel_by = "shift+fold", .quant_mode = "fake"}, o);
  CHECK(o.granularity == Granularity::kPerTensor);
  CHECK(o.per_channel_by == PerChannelBy::kShiftFold);
  CHECK(o.mode == QuantMode::kFake);
  CHECK_THROWS_AS(resolve_texts({.granularity = "per-tensor"}, o), UsageError);
  CHECK_THROWS_AS(resolve_texts({.per_channel_by = "shift-fold"}, o), UsageError);
  CHECK_THROWS_AS(resolve_texts({.quant_mode = "int"}, o), UsageError);
}

TEST_CASE("console: numbers are grouped by thousands") {
  CHECK(grouped(0) == "0");
  CHECK(grouped(999) == "999");
  CHECK(grouped(1000) == "1,000");
  CHECK(grouped(1046831169536) == "1,046,831,169,536");
  CHECK(grouped(-999) == "-999");
  CHECK(grouped(-1000) == "-1,000");
  CHECK(grouped(-123456) == "-123,456");
}

TEST_CASE("console: control characters of names and files are shown, not sent to the terminal") {
  CHECK(printable("caf\xc3\xa9\nb") == "caf\xc3\xa9\nb");
  CHECK(printable("\x1b[31m\a\x7f") == "\\x1b[31m\\x07\\x7f");
  CHECK(printable("\xc2\x9b"
                  "1m\xc2\xa0\xc2") == "\\u009b1m\xc2\xa0\xc2");
}

TEST_CASE("console: durations are rounded to what a reader needs") {
  CHECK(duration(0) == "0 s");
  CHECK(duration(-3) == "0 s");
  CHECK(duration(12.4) == "12 s");
  CHECK(duration(59.6) == "1 min 0 s");
  CHECK(duration(125) == "2 min 5 s");
  CHECK(duration(3 * 3600 + 10 * 60 + 59) == "3 h 10 min");
}

TEST_CASE("console: a table pads names to the right and numbers to the left, without trailing blanks") {
  CHECK(format_table({{"layer", "macs"}, {"conv1", "118"}, {"fc", "2,048"}, {"rest", ""}}) ==
        "layer   macs\n"
        "conv1    118\n"
        "fc     2,048\n"
        "rest");
}

}  // namespace
}  // namespace nibble::apps
