// The config file: what is read, what wins, what is refused, and that what is written reads back equal.
#include "apps/config_file.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "engine/error.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::has;

/// A file that lives as long as the object.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() / ("nibble-config-" + std::to_string(getpid()) + ".toml")) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct Options {
  TrainOptions train;
  NetworkTexts texts;

  std::vector<OptionField> fields() {
    std::vector<OptionField> all = network_fields(train.network, texts);
    for (const OptionField& f : training_fields(train)) all.push_back(f);
    all.push_back({"data", "", &train.data});
    return all;
  }
  void read(const std::string& text, const std::set<std::string>& given = {}) {
    const TemporaryFile file(text);
    read_config(file.path(), fields(), given, train.network.overrides);
  }
};

std::string refusal(const std::string& text) {
  try {
    Options o;
    o.read(text);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST_CASE("config: keys are the options' names, and what the file leaves out keeps its value") {
  Options o;
  o.read(
      "lr = 0.2\nwidth = 2\nseed = 9\nnesterov = false\nprecision = 'w8a8'\nquant-mode = \"fake\"\n"
      "[layers.\"layer3.0.conv2\"]\nprecision = \"w8a4\"\n[layers.fc]\nprecision = \"bf16\"\n");
  CHECK(o.train.lr == 0.2);
  CHECK(o.train.network.width == 2.0);  // a whole number serves as one
  CHECK(o.train.seed == 9);
  CHECK_FALSE(o.train.nesterov);
  CHECK(o.train.network.precision == "w8a8");
  CHECK(o.texts.quant_mode == "fake");
  CHECK(o.train.batch_size == 64);
  REQUIRE(o.train.network.overrides.size() == 2);
  for (const PrecisionOverride& layer : o.train.network.overrides)
    CHECK(layer.precision == (layer.layer == "fc" ? Precision{} : Precision{8, 4}));
}

TEST_CASE("config: what the command line has set is checked in the file and not taken from it") {
  Options o;
  o.train.lr = 0.7;
  o.read("lr = 0.2\nepochs = 3\n", {"lr"});
  CHECK(o.train.lr == 0.7);
  CHECK(o.train.epochs == 3);
  CHECK_THROWS_AS(o.read("lr = 'fast'\n", {"lr"}), UsageError);
}

TEST_CASE("config: a wrong key or value is refused with file, line and what would be right") {
  CHECK(has(refusal("lr = 0.1\n\nepoch = 3\n"), ".toml:3: unknown option 'epoch'; did you mean 'epochs'?"));
  CHECK(has(refusal("nothing-like-it = 3\n"), "unknown option 'nothing-like-it'"));
  CHECK(has(refusal("\nweights = 'a'\n"), ".toml:2: weights is for the command line (--weights); leave it out"));
  CHECK_FALSE(has(refusal("nothing-like-it = 3\n"), "did you mean"));
  CHECK(has(refusal("lr = '0.1'\n"), ".toml:1: lr needs a number"));
  CHECK(has(refusal("lr = true\n"), "lr needs a number"));
  CHECK(has(refusal("epochs = 1.5\n"), "epochs needs a whole number"));
  CHECK(has(refusal("seed = -1\n"), "seed needs a whole number of at least 0"));
  CHECK(has(refusal("nesterov = 1\n"), "nesterov needs true or false"));
  CHECK(has(refusal("arch = 50\n"), "arch needs a string in quotes"));
  CHECK(has(refusal("lr = 1\nlr = 2\n"), ".toml:2: "));
}

TEST_CASE("config: a line that is not TOML is refused in the program's words, with the parser's reason inside") {
  for (const char* line : {"lr = ", "lr 0.1", "precision = w8a8", "data = 'a", "[layers"}) {
    const std::string said = refusal("\n" + std::string(line) + "\n");
    CAPTURE(said);
    CHECK(has(said, ".toml:2: this line cannot be read as TOML ("));
    CHECK(has(said, "); write each option once, as lr = 0.1, strings in quotes"));
    CHECK_FALSE(has(said, "rror while parsing"));
    CHECK_FALSE(has(said, "\n"));
  }
  CHECK(has(refusal("lr = \n"), "expected value, saw '\\n'"));
  CHECK(has(refusal("lr \x01 3\n"), "saw '\\x01'"));
  CHECK(has(refusal("data = '\xff'\n"), "TOML (encountered invalid utf-8"));
}

TEST_CASE("config: a layer takes exactly one key and a layer's precision") {
  CHECK(has(refusal("layers = 3\n"), "layers needs tables"));
  CHECK(has(refusal("[layers.fc]\nbits = 8\n"), "the layer 'fc' needs exactly one key"));
  CHECK(has(refusal("[layers.fc]\nprecision = 'w8a8'\nbits = 8\n"), "the layer 'fc' needs exactly one key"));
  CHECK(has(refusal("[layers.fc]\nprecision = 'w9a8'\n"), ".toml:2: the precision is 'w9a8'"));
  CHECK(has(refusal("[layers.fc]\nprecision = 'w4a4-fl8'\n"), ".toml:2: 'w4a4-fl8' is the precision of a network"));
  CHECK(has(refusal("[layers.fc]\nprecision = 8\n"), "needs exactly one key"));
  CHECK(has(refusal("[layers.fc]\nprecison = 'w8a8'\n"), ".toml:2: the layer 'fc' needs exactly one key"));
  CHECK(has(refusal("[layers.fc]\nprecison = 'w8a8'\n"), "no 'precison'"));
  CHECK(has(refusal("[layers.fc]\nprecision = 'w8a8'\nbits = 8\n"), ".toml:3: "));
}

TEST_CASE("config: a file that is not there or is a folder is refused by its name") {
  Options o;
  const auto read = [&](const char* path) { read_config(path, o.fields(), {}, o.train.network.overrides); };
  CHECK_THROWS_WITH_AS(read("/nonexistent/nibble.toml"), doctest::Contains("/nonexistent/nibble.toml is not a file"),
                       UsageError);
  CHECK_THROWS_WITH_AS(read("/"), doctest::Contains("is not a file"), UsageError);
}

TEST_CASE("config: what is written reads back equal, bit for bit, also when nothing has its default") {
  Options a;
  a.train.network.arch = "resnet26";
  a.train.network.width = 0.1 + 0.2;
  a.train.network.precision = "w4a8-fl8";
  a.train.network.image_size = 96;
  a.train.network.same_padding = a.train.network.signed_block_input = true;
  a.train.network.overrides = {{"layer3.0.conv2", {8, 8}}, {"fc", {}}};
  a.texts = {.granularity = "per_tensor", .per_channel_by = "shift", .quant_mode = "fake"};
  a.train.data = "a \"quoted\" \\ path\twith\nodd bytes \xc3\xa9";
  a.train.lr = 1.0 / 3;
  a.train.weight_decay = 5e-324;  // the smallest double there is
  a.train.label_smoothing = 0;
  a.train.clip_grad_norm = 1e9;
  a.train.warmup_epochs = 2;
  a.train.calibrate_at = 7500;
  a.train.nesterov = a.train.zero_gamma = false;
  a.train.strict_data = true;
  a.train.seed = (uint64_t{1} << 63) - 1;
  a.train.steps = 123456789;
  a.train.schedule = "paper";
  Options b;
  const std::string text = write_config(a.fields(), a.train.network.overrides);
  CHECK(has(text, "width = 0.30000000000000004\n"));
  CHECK(has(text, "momentum = 0.9\n"));
  b.read(text);
  const std::vector<OptionField> wanted = a.fields(), got = b.fields();
  for (size_t i = 0; i < wanted.size(); ++i) {
    CAPTURE(wanted[i].name);
    std::visit(
        [&](auto* value) {
          auto* const* other = std::get_if<decltype(value)>(&got[i].value);
          REQUIRE(other != nullptr);
          CHECK(**other == *value);
        },
        wanted[i].value);
  }
  REQUIRE(b.train.network.overrides.size() == 2);
  for (const PrecisionOverride& o : b.train.network.overrides)
    CHECK(o.precision == (o.layer == "fc" ? Precision{} : Precision{8, 8}));
}

TEST_CASE("config: a path of several lines is one line of the text, and one that is not UTF-8 is refused") {
  Options o;
  o.train.data = "/data/first\nlr = 7\r\x7f";
  const std::string text = write_config(o.fields(), {});
  CHECK(has(text, "\ndata = \"/data/first\\u000alr = 7\\u000d\\u007f\"\n"));
  CHECK_FALSE(has(without_options(text, {"data"}), "first"));
  Options back;
  back.read(text);
  CHECK(back.train.data == o.train.data);
  o.train.data = "/data/caf\xe9";
  CHECK_THROWS_WITH_AS(write_config(o.fields(), {}), doctest::Contains("--data is not UTF-8"), UsageError);
}

TEST_CASE("config: two texts differ in the first option that both give, or in any layer") {
  const std::string a = "epochs = 3\nlr = 0.05\nkeep = 3\n\n[layers.\"fc\"]\nprecision = \"w8a8\"\n";
  CHECK(first_difference(a, a, {}).name.empty());
  CHECK(first_difference(a, "later = 1\n" + a, {}).name.empty());
  const auto lr = first_difference(a, "epochs = 3\nlr = 0.1\nkeep = 1\n\n[layers.\"fc\"]\nprecision = \"w8a8\"\n", {});
  CHECK((lr.name == "keep" && lr.first == "3" && lr.second == "1"));
  CHECK(first_difference("lr = 0.1\nkeep = 1\n", "lr = 0.2\nkeep = 2\n", {"keep"}).name == "lr");
  const auto layer = first_difference(a, "epochs = 3\nlr = 0.05\nkeep = 3\n", {});
  CHECK((layer.name == "[layers.\"fc\"] precision" && layer.second == "nothing"));
  CHECK(first_difference("lr = 1\n", a, {"lr"}).first == "nothing");
}

TEST_CASE("config: options that a text does not have come in front of it with their defaults, and no layers do") {
  const std::string old = "lr = 0.1\n\n[layers.\"fc\"]\nprecision = \"w8a8\"\n";
  const std::string defaults = "keep = 3\nlr = 0.05\nprecision = 'w4a4'\n\n[layers.\"conv1\"]\nprecision = \"bf16\"\n";
  CHECK(with_missing_options(old, defaults) == "keep = 3\nprecision = 'w4a4'\n" + old);
  CHECK(with_missing_options(old, old) == old);
}

TEST_CASE("config: a text without some options keeps the others and the layers, in order") {
  const std::string layers = "\n[layers.\"fc\"]\nprecision = \"w8a8\"\n";
  CHECK(without_options("lr = 0.1\nkeep = 3\nkeeper = 1\ndata = 'a = b'\n" + layers, {"keep", "data"}) ==
        "lr = 0.1\nkeeper = 1\n" + layers);
}

}  // namespace
}  // namespace nibble::apps
