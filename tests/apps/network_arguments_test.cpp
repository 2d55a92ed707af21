// The options of a network from the command line and a config, for the commands that do not train one.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/apps/whole_run.hpp"

namespace nibble::testing {
namespace {

TEST_CASE("network arguments: a run's config serves cost, bench and doctor, and the command line wins over it") {
  if (no_program()) return;
  const TemporaryFolder folder("config");
  const std::string file = folder.write(
      "run.toml", "lr = 0.1\nwidth = 0.5\nprecision = 'w4a4'\n[layers.\"layer3.0.conv2\"]\nprecision = 'w8a8'\n");
  const nlohmann::json j = nlohmann::json::parse(run_program("cost --json --width 1 --config '" + file + "'").out);
  CHECK(j.at("width") == 1.0);
  CHECK(j.at("precision") == "w4a4");
  CHECK(j.at("quadratic") == 65'426'948'096 + 48 * int64_t{115'605'504});
  const auto classes = [&](const std::string& text, const std::string& more, bool guessed) {
    const Result r =
        run_program("cost --json --image-size 64 --config '" + folder.write("run.toml", text) + "'" + more);
    CHECK(has(r.err, "run.toml says classes = 0") == guessed);
    CHECK(r.err.empty() == !guessed);
    CHECK(nlohmann::json::parse(r.out).at("image_size") == 64);
    return nlohmann::json::parse(r.out).at("classes").get<int>();
  };
  CHECK(classes("classes = 0\n", "", true) == 1000);  // as the resolved config of a run on all classes
  CHECK(classes("classes = 0\n", " --classes 10", false) == 10);
  CHECK(classes("classes = 7\n", "", false) == 7);
  CHECK(classes("", "", false) == 1000);
  // Of bench and doctor, too; what the file sets out of range is reported with its line.
  const std::string small = " --config '" +
                            folder.write("small.toml",
                                         "lr = 0.1\narch = 'resnet26'\nwidth = 0.1\nimage-size = 32\n"
                                         "classes = 10\nprecision = 'w4a4'\n"
                                         "[layers.\"layer3.0.conv2\"]\nprecision = 'w8a8'\n") +
                            "'";
  const std::string measure = "bench infer --batch-size 1 --repeats 1" + small;
  const nlohmann::json measured = nlohmann::json::parse(run_well(measure + " --json --width 0.2").out);
  CHECK(measured.at("width") == 0.2);
  CHECK(measured.at("classes") == 10);
  CHECK(measured.at("layers") == "layer3.0.conv2 w8a8");
  CHECK(has(run_well(measure).out, "resnet26 x0.1 w4a4 (layer3.0.conv2 w8a8) 32 px batch 1"));
  CHECK(has(run_well("doctor --batch-size 2 --shard 2" + small).out,
            "training resnet26 x0.1 w4a4 (layer3.0.conv2 w8a8), 32 px"));
  CHECK(has(run_well("cost" + small).out, "\nresnet26 x0.1 w4a4 (layer3.0.conv2 w8a8), 32 px, 10 classes: "));
  CHECK(nlohmann::json::parse(run_well("cost --json" + small).out).at("overrides") == "layer3.0.conv2 w8a8");
  const std::string wide = " --config '" + folder.write("wide.toml", "\nwidth = 99\n") + "'";
  for (const std::string count : {"1", "-3"})
    check_refused("cost --config '" + folder.write("few.toml", "classes = " + count + "\n") + "'", 2,
                  "few.toml:1: --classes is " + count);
  for (const char* command : {"cost", "bench infer", "doctor"})
    check_refused(command + wide, 2, "wide.toml:2: --width is 99");
  check_refused("cost --width 100" + wide, 2, "--width is 100");
  check_refused("cost --config '" + folder.write("wrong.toml", "\nwitdh = 1\n") + "'", 2,
                "wrong.toml:2: unknown option 'witdh'; did you mean 'width'?");
}

TEST_CASE("bench infer: a model's own network is measured, and options beside it are refused") {
  if (testing::no_program()) return;
  const testing::TemporaryFolder folder("bench-model");
  const std::string data = testing::synthetic_data(folder), run = folder / "run", served = folder / "m.safetensors";
  testing::run_well("train --quiet --data " + data + " --out " + run +
                    " --arch resnet26 --width 0.15 --precision w4a8 --image-size 48 --batch-size 8 --shard 8 --steps 2 "
                    "--calibrate-at 1");
  testing::run_well("export " + run + "/latest --out " + served);
  for (const std::string& model : {run, served}) {
    const nlohmann::json j =
        testing::json_of(testing::run_well("bench infer " + model + " --batch-size 2 --repeats 1 --json"));
    CHECK(j.at("arch") == "resnet26");
    CHECK(j.at("width") == 0.15);
    CHECK(j.at("precision") == "w4a8");
    CHECK(j.at("image_size") == 48);
    CHECK(j.at("classes") == 10);
    CHECK(j.at("batch") == 2);
  }
  testing::check_refused("bench infer " + served + " --width 0.2", 2, "says what network it is; leave out the options");
  testing::check_refused("bench train " + served, 2, "bench train takes no MODEL");
  testing::check_refused("bench infer " + served + "-not", 4, "does not exist");
}

TEST_CASE("cost: each layer costs its products by its bits, the layers add up, and the sentence says which is which") {
  if (no_program()) return;
  const nlohmann::json j = json_of(run_program("cost --json --precision w4a4-fl8"));
  int64_t linear = 0, quadratic = 0, memory = 0;
  for (const nlohmann::json& layer : j.at("layers")) {
    CAPTURE(layer.dump());
    const int64_t macs = layer.at("macs"), w = layer.at("weight_bits"), a = layer.at("activation_bits");
    CHECK(layer.at("linear") == macs * std::max(w, a));
    CHECK(layer.at("quadratic") == macs * w * a);
    CHECK(layer.at("memory_bits") == layer.at("weights").get<int64_t>() * w);
    linear += layer.at("linear").get<int64_t>();
    quadratic += layer.at("quadratic").get<int64_t>();
    memory += layer.at("memory_bits").get<int64_t>();
  }
  CHECK(linear == j.at("linear"));
  CHECK(quadratic == j.at("quadratic"));
  CHECK(memory == j.at("memory_bits"));
  const std::string text = run_well("cost --precision w4a4-fl8").out;
  CHECK(has(text, "0.257340 of the linear, 0.068005 of the quadratic and 0.270168 of the memory cost"));
  // A row of the table: its columns are those of its heading.
  const nlohmann::json& second = j.at("layers").at(1);
  std::istringstream rows(text);
  std::string heading, row;
  std::getline(rows, heading);
  while (std::getline(rows, row) && !row.starts_with(second.at("name").get<std::string>() + " ")) {
  }
  std::erase(row, ',');
  std::istringstream cells(row.substr(row.find(' ')));
  for (const char* key : {"weight_bits", "activation_bits", "macs", "weights", "linear", "quadratic", "memory_bits"}) {
    CAPTURE(key);
    int64_t cell = -1;
    cells >> cell;
    CHECK(cell == second.at(key));
  }
}

}  // namespace
}  // namespace nibble::testing
