// The main job through the program: train, evaluate, export, predict, and what must be identical.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;

constexpr SyntheticImages kFiveAClass = {.train = 5, .val = 2, .size = 40};

/// Small enough for seconds on the scalar level, quantized from step 3 of 8 on.
std::string train_arguments(const std::string& data, const std::string& out, const std::string& precision) {
  return "train --data " + data + " --out " + out + " --precision " + precision +
         " --arch resnet26 --width 0.2 --image-size 32 --batch-size 16 --shard 8 --steps 8 --calibrate-at 3 --quiet";
}

std::string logits_hash(const std::string& model, const std::string& data, const std::string& options) {
  return json_of(run_program("eval " + model + " --data " + data + " --json " + options)).at("logits_sha256");
}

struct StoredTensor {
  size_t begin = 0;  // in the file
  std::string name;
};

/// The tensors of a safetensors file that hold any bytes, in their order there.
std::vector<StoredTensor> tensors_of(const std::string& bytes) {
  uint64_t length = 0;
  REQUIRE(bytes.size() > sizeof(length));
  std::memcpy(&length, bytes.data(), sizeof(length));
  const nlohmann::json header = nlohmann::json::parse(bytes.substr(sizeof(length), length));
  std::vector<StoredTensor> tensors;
  for (const auto& item : header.items()) {
    if (item.key() == "__metadata__") continue;
    const auto range = item.value().at("data_offsets").get<std::vector<size_t>>();
    if (range[1] > range[0]) tensors.push_back({sizeof(length) + length + range[0], item.key()});
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.begin < b.begin; });
  REQUIRE(tensors.size() > 2);
  return tensors;
}

}  // namespace

TEST_CASE("a trained model and its exported file have one logits hash, for any threads, batch and precision") {
  if (no_program()) return;
  const TemporaryFolder folder("main-job");
  const std::string data = synthetic_data(folder, kFiveAClass);
  for (const std::string precision : {"w4a4-fl8", "w8a8"}) {
    CAPTURE(precision);
    const std::string run = folder / ("run-" + precision), served = folder / (precision + ".safetensors");
    const Result trained = run_program(train_arguments(data, run, precision) + " --json");
    const nlohmann::json summary = json_of(trained);
    CHECK(summary.at("steps") == 8);
    const std::string hash = logits_hash(run + "/latest", data, "--threads 1 --batch-size 1");
    CHECK(hash == summary.at("logits_sha256"));
    CHECK(run_program("export " + run + "/latest --out " + served).code == 0);
    for (const std::string options :
         {"--threads 2 --batch-size 7", "--threads 3 --batch-size 32", "--threads 1 --batch-size 20"}) {
      CAPTURE(options);
      CHECK(logits_hash(run + "/latest", data, options) == hash);
      CHECK(logits_hash(served, data, options) == hash);
    }
    CHECK(logits_hash(run + "/latest", data, "--by modules --threads 2 --batch-size 7") == hash);
    check_refused("eval " + served + " --data " + data + " --by modules", 2, "give --by modules a checkpoint");
    check_refused("eval " + run + " --data " + data + " --by layers", 2, "--by is 'layers'; use executor or modules");
  }
}

TEST_CASE("30 training steps with 1, 2 and 3 threads write byte-identical checkpoints") {
  if (no_program()) return;
  const TemporaryFolder folder("threads");
  const std::string data = synthetic_data(folder, kFiveAClass);
  std::string first;
  for (const std::string threads : {"1", "2", "3"}) {
    const std::string run = folder / ("run" + threads);
    run_well(train_arguments(data, run, "w4a4-fl8") + " --width 0.1 --steps 30 --calibrate-at 10 --threads " + threads);
    const std::string bytes = read_text(run + "/checkpoints/step-000030.safetensors");
    REQUIRE(bytes.size() > 1000);
    if (first.empty()) first = bytes;
    CHECK(bytes == first);
  }
}

TEST_CASE("a damaged model file is refused with exit code 4 and the section's name") {
  if (no_program()) return;
  const TemporaryFolder folder("damage");
  const std::string data = synthetic_data(folder, kFiveAClass), run = folder / "run",
                    served = folder / "new/model.safetensors";
  run_well(train_arguments(data, run, "w4a4-fl8"));
  run_well("export " + run + " --out " + served);  // a folder that is not there is made
  for (const std::string& path : {served, run + "/checkpoints/step-000008.safetensors"}) {
    const std::string bytes = read_text(path);
    const auto refused = [&](const std::string& what, const std::string& damaged) {
      CAPTURE(what);
      const Result r = run_program("eval " + folder.write("damaged", damaged) + " --data " + data);
      CHECK(r.code == 4);
      CHECK(r.out.empty());
      CHECK_MESSAGE(has(r.err, what), r.err);
    };
    const auto flipped = [&](size_t at) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ 4);
      return damaged;
    };
    const std::vector<StoredTensor> tensors = tensors_of(bytes);
    for (const size_t which : {size_t{0}, tensors.size() / 2, tensors.size() - 1})
      refused("'" + tensors[which].name + "'", flipped(tensors[which].begin));
    const size_t data_begin = tensors.front().begin, in_header = bytes.find("resnet26");  // a value of the metadata
    REQUIRE(in_header < data_begin);
    refused("header", flipped(in_header));
    refused("'" + tensors.back().name + "' ends at byte", bytes.substr(0, bytes.size() - 1));
    refused("'" + tensors.front().name + "' ends at byte", bytes.substr(0, data_begin + 1));
    refused("header length", bytes.substr(0, data_begin - 1));
    refused("header length is cut", bytes.substr(0, 7));
  }
}

TEST_CASE("predict answers for good images, names bad ones and ends with exit code 3") {
  if (no_program()) return;
  const TemporaryFolder folder("predict");
  const std::string data = synthetic_data(folder, kFiveAClass), run = folder / "run";
  run_well(train_arguments(data, run, "w4a4-fl8"));
  const std::string good = data + "/val/striped_disk/00000.jpg", bad = folder.write("bad.jpg", "no image");
  const Result r = run_program("predict " + run + " " + bad + " " + good + " --json");
  CHECK(r.code == 3);
  const std::vector<nlohmann::json> lines = json_lines(r.out);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].contains("error"));
  CHECK(lines[1].at("top").size() == 5);
  CHECK_FALSE(lines[1].contains("logits"));
  // The probabilities are the softmax of the logits, which are fp32: they come back exactly.
  const nlohmann::json j = json_of(run_program("predict " + run + " --logits --top 10 --json " + good));
  const std::vector<double> logits = j.at("logits");
  REQUIRE(logits.size() == 10);
  double sum = 0;
  for (const double v : logits) {
    sum += std::exp(v);
    CHECK(static_cast<double>(static_cast<float>(v)) == v);
  }
  for (const nlohmann::json& guess : j.at("top"))
    CHECK(guess.at("p").get<double>() ==
          doctest::Approx(std::exp(logits[guess.at("index").get<size_t>()]) / sum).epsilon(1e-5));
  check_refused("predict " + run + " --logits " + good, 2, "--logits are numbers for programs; add --json");
}

TEST_CASE("eval --by-class: the classes add up to the whole, and without it nothing is said of them") {
  if (no_program()) return;
  const TemporaryFolder folder("classes");
  const std::string data = synthetic_data(folder, kFiveAClass), run = folder / "run";
  run_well(train_arguments(data, run, "w8a8"));
  const nlohmann::json plain = json_of(run_program("eval " + run + " --data " + data + " --json"));
  CHECK_FALSE(plain.contains("by_class"));
  nlohmann::json j = json_of(run_program("eval " + run + " --data " + data + " --json --by-class"));
  double right = 0;
  int64_t images = 0;
  REQUIRE(j.at("by_class").size() == 10);
  CHECK(j.at("by_class")[0].at("name") == "checked_cross");
  for (const nlohmann::json& c : j.at("by_class")) {
    images += c.at("images").get<int64_t>();
    right += c.at("images").get<double>() * c.at("top1").get<double>();
    CHECK(c.at("taken_for").is_null() == (c.at("times") == 0));
    CHECK(c.at("taken_for") != c.at("name"));
  }
  CHECK(images == j.at("images"));
  CHECK(right / static_cast<double>(images) == doctest::Approx(j.at("top1").get<double>()));
  CHECK(j.at("logits_sha256") == plain.at("logits_sha256"));
  const std::string text = run_well("eval " + run + " --data " + data + " --by-class").out;
  CHECK(has(text, "most often taken for"));
  CHECK(has(text, "checked_cross"));
  // The lowest first.
  std::istringstream rows(text.substr(text.find("\nclass ")));
  std::string row;
  std::getline(rows, row);
  std::getline(rows, row);
  double before = -1;
  int classes = 0;
  for (std::string name; std::getline(rows, row); ++classes) {
    std::istringstream cells(row);
    int of_class = 0;
    double top1 = -1;
    cells >> name >> of_class >> top1;
    CHECK(of_class == kFiveAClass.val);
    CHECK(top1 >= before);
    before = top1;
  }
  CHECK(classes == 10);
}

TEST_CASE("a bf16 run and a run before calibration evaluate; the latter is not exported") {
  if (no_program()) return;
  const TemporaryFolder folder("bf16");
  const std::string data = synthetic_data(folder, kFiveAClass), plain = folder / "plain", early = folder / "early";
  run_well(train_arguments(data, plain, "bf16"));
  CHECK(logits_hash(plain, data, "--threads 1") == logits_hash(plain, data, "--threads 3 --batch-size 7"));
  train_run(data, early,
            " --arch resnet26 --width 0.2 --image-size 32 --batch-size 16 --shard 8 --steps 2 "
            "--calibrate-at 100 --quiet");
  CHECK(run_program("eval " + early + " --data " + data).code == 0);
  check_refused("export " + early + " --out " + (folder / "new/x.safetensors"), 4, "not calibrated");
  CHECK_FALSE(std::filesystem::exists(folder / "new"));
}
