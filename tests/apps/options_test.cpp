// Names, words and numbers of the command line: the parts that need no process.
#include "apps/options.hpp"

#include <doctest/doctest.h>

#include <CLI/CLI.hpp>

#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "engine/error.hpp"

namespace nibble::apps {
namespace {

TEST_CASE("options: the nearest name is found within an edit or a third of the word, else nothing") {
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

TEST_CASE("options: a part of a name means that name, whatever else has similar letters") {
  TrainOptions o;
  NetworkTexts texts;
  std::vector<std::string> known;
  for (const OptionField& f : network_fields(o.network, texts)) known.push_back("--" + f.name);
  for (const OptionField& f : training_fields(o)) known.push_back("--" + f.name);
  CHECK(nearest_name("--batch", known) == "--batch-size");
  CHECK(nearest_name("--warmup", known) == "--warmup-epochs");
  CHECK(nearest_name("--label", known) == "--label-smoothing");
  CHECK(nearest_name("--image", known) == "--image-size");
  CHECK(nearest_name("--prec", known) == "--precision");
  CHECK(nearest_name("--cal", known) == "--calibrate-at");
  CHECK(nearest_name("--epoch", known) == "--epochs");
  CHECK(nearest_name("--size", known) == "--image-size");
  CHECK(nearest_name("--decay", known) == "--weight-decay");
  CHECK(nearest_name("--batch_size", known) == "--batch-size");
  CHECK(nearest_name("--workers", known) == "--loader-threads");
  CHECK(nearest_name("-lr", known) == "--lr");
  CHECK(nearest_name("--archh", known) == "--arch");
  CHECK(nearest_name("--widht", {"--weights", "--widths"}) == "--widths");
  CHECK(nearest_name("--lamp", known).empty());
  CHECK(nearest_name("--x", known).empty());
  CHECK(nearest_name("size", {"decoder", "image-size"}) == "image-size");  // keys of a file have no dashes
  CHECK(nearest_name("--trian", {"train"}).empty());                       // an option is not a command
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
  for (const char* name : {"arch",         "width",           "precision",    "granularity",    "per-channel-by",
                           "image-size",   "batch-size",      "shard",        "epochs",         "steps",
                           "lr",           "warmup-epochs",   "schedule",     "optimizer",      "nesterov",
                           "weight-decay", "label-smoothing", "calibrate-at", "seed",           "classes",
                           "per-class",    "min-crop",        "momentum",     "clip-grad-norm", "strict-data",
                           "decoder",      "loader-threads",  "low-memory",   "keep",           "save-every",
                           "eval-every",   "quant-mode",      "zero-gamma",   "same-padding",   "signed-block-input"})
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

TEST_CASE("options: fractions of an epoch and of a run become the nearest step") {
  TrainOptions o;
  o.warmup_epochs = 0.29;  // times 100 is 28.999... in double
  o.calibrate_at = 0.57;   // 56.999...
  const TrainerOptions t = o.trainer(100, 100);
  CHECK(t.schedule.warmup_steps == 29);
  CHECK(t.calibrate_step == 57);
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
  CHECK(begins(refusal([](TrainOptions& o) { o.calibrate_at = 1.7; }), "--calibrate-at is 1.7"));
  CHECK(refusal([](TrainOptions& o) { o.calibrate_at = 2; }) == "accepted");
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
  CHECK(begins(refusal([](TrainOptions& o) { o.limit_classes = -1; }), "--classes is -1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.limit_classes = 1; }), "--classes is 1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.per_class = -1; }), "--per-class is -1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.loader_threads = 0; }), "--loader-threads is 0"));
  CHECK(begins(refusal([](TrainOptions& o) { o.loader_threads = 65; }), "--loader-threads is 65"));
  CHECK(begins(refusal([](TrainOptions& o) { o.save_every = -1; }), "--save-every is -1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.eval_every = -1; }), "--eval-every is -1"));
  CHECK(begins(refusal([](TrainOptions& o) { o.keep = 0; }), "--keep is 0"));
  CHECK(begins(refusal([](TrainOptions& o) { o.calibrate_at = 0; }), "--calibrate-at is 0"));
  CHECK(begins(refusal([&](TrainOptions& o) { o.calibrate_at = nan; }), "--calibrate-at is nan"));
  CHECK(begins(refusal([](TrainOptions& o) { o.seed = ~uint64_t{0}; }), "--seed is 18446744073709551615"));
  CHECK(refusal([](TrainOptions& o) { o.schedule = "linear"; }).find("linear") != std::string::npos);
  CHECK(refusal([](TrainOptions& o) { o.optimizer = "adam"; }).find("adam") != std::string::npos);
  CHECK(refusal([](TrainOptions& o) { o.batch_size = 48; }).ends_with("use --batch-size 64, or --shard 24"));
  CHECK(refusal([](TrainOptions& o) { o.batch_size = 7; }).ends_with("use --batch-size 32, or --shard 7"));
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

TEST_CASE("options: colours are one number for all or three, within the scale of byte / 255") {
  const auto norm_of = [](const std::string& mean, const std::string& std) {
    NetworkOptions o;
    resolve_texts({.pixel_mean = mean, .pixel_std = std}, o);
    build_resnet(o);
    return o.pixel_norm;
  };
  CHECK(norm_of(NetworkTexts().pixel_mean, NetworkTexts().pixel_std) == PixelNorm());
  CHECK(norm_of("0.5", "0.25") == PixelNorm{.mean = {0.5, 0.5, 0.5}, .std = {0.25, 0.25, 0.25}});
  CHECK(norm_of("0, 1, 0.125", "1,2,3e0") == PixelNorm{.mean = {0, 1, 0.125}, .std = {1, 2, 3}});
  const auto refused = [&](const std::string& mean, const std::string& std, const char* why) {
    CHECK_THROWS_WITH_AS(norm_of(mean, std), doctest::Contains(why), UsageError);
  };
  for (const char* wrong : {"", ",", "0.5,", "0.5;0.5;0.5", "a", "0.5,0.5,0.5x", "0x1", " "})
    refused(wrong, "1", "use one number, or three with commas between them");
  refused("0.5,0.5", "1", "--pixel-mean has 2 numbers");
  refused("0.5", "1,1,1,1", "--pixel-std has 4 numbers");
  refused("123.675,116.28,103.53", "1", "--pixel-mean has 123.675; use 0 to 1, the scale of byte / 255");
  refused("nan", "1", "--pixel-mean has nan");
  refused("0.5", "58.4", "--pixel-std has 58.4; use 0.001 to 10");
  refused("0.5", "0", "--pixel-std has 0;");
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

TEST_CASE("console: a name in a line keeps it one line") {
  CHECK(one_line("a\nerror: forged\x1b") == "a\\nerror: forged\\x1b");
  CHECK(one_line("caf\xc3\xa9") == "caf\xc3\xa9");
}

TEST_CASE("console: counts have their plural and rates no exponent") {
  CHECK(counted(1, "thread") == "1 thread");
  CHECK(counted(0, "step") == "0 steps");
  CHECK(counted(1234, "step") == "1,234 steps");
  CHECK(rate_text(1372.6) == "1,373");
  CHECK(rate_text(123456789) == "123,456,789");
  CHECK(rate_text(100) == "100");
  CHECK(rate_text(99.96) == "100");
  CHECK(rate_text(37.12) == "37.1");
  CHECK(rate_text(0.5211) == "0.521");
  CHECK(rate_text(0.00001) == "0.000010");
}

TEST_CASE("command line: numbers that do not fit, empty texts and files of another kind are refused by name") {
  const auto refusal = [](auto value, const std::string& text) {
    CLI::App app;
    add_option(app, "--it", value, "");
    try {
      app.parse(std::vector<std::string>{text, "--it"});  // the parser takes them from the back
    } catch (const UsageError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  const auto begins = [](const std::string& text, const char* with) { return text.rfind(with, 0) == 0; };
  CHECK(begins(refusal(std::string(), ""), "--it is empty"));
  CHECK(begins(refusal(std::vector<std::string>(), ""), "--it is empty"));
  CHECK(begins(refusal(0, "2147483648"), "--it is 2147483648; use a whole number from -2147483648 to 2147483647"));
  CHECK(begins(refusal(int64_t{0}, "9223372036854775808"), "--it is 9223372036854775808; use a whole number from"));
  CHECK(refusal(int64_t{0}, "-9223372036854775808") == "accepted");
  CHECK(
      begins(refusal(uint64_t{0}, "18446744073709551616"), "--it: 18446744073709551616 is not a whole number from 0"));
  CHECK(refusal(uint64_t{0}, "18446744073709551615") == "accepted");
  CHECK(begins(refusal(std::vector<uint64_t>(), "-1"), "--it: -1 is not a whole number from 0"));
  CHECK(begins(refusal(std::optional<double>(), "1,5"), "--it is '1,5'; use a number"));
  CHECK(begins(refusal(0.0, "-1e999"), "--it is -1e999; use a number that"));
  CHECK(begins(refusal(0.0, "1e-999"), "--it is 1e-999; use a number that"));
  CHECK(refusal(0.0, "5e-324") == "accepted");
}

TEST_CASE("command line: whole numbers are decimal, whatever zeros they begin with") {
  const auto value_of = [](const std::string& text) {
    CLI::App app;
    int64_t value = -1;
    add_option(app, "--it", value, "");
    app.parse(std::vector<std::string>{text, "--it"});
    return value;
  };
  CHECK(value_of("010") == 10);
  CHECK(value_of("-0089") == -89);
  CHECK(value_of("000") == 0);
  CHECK(value_of("0") == 0);
  CHECK(value_of("0x10") == 16);
  CHECK(value_of("+007") == 7);
  for (const char* none : {" 010", "00x10", "0-1", "-", "0 1"}) {
    CAPTURE(none);
    CHECK_THROWS_AS(value_of(none), UsageError);
  }
  CLI::App app;
  std::vector<uint64_t> seeds;
  add_option(app, "--seeds", seeds, "").delimiter(',');
  app.parse(std::vector<std::string>{"007,08,9", "--seeds"});
  CHECK(seeds == std::vector<uint64_t>{7, 8, 9});
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
