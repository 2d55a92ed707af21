// What inspect says about a model is what the model is: bounds of the checkpoint, codes counted again on the same
// images.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <vector>

#include "data/image_folder.hpp"
#include "data/loader.hpp"
#include "engine/cpu.hpp"
#include "nn/activation_usage.hpp"
#include "nn/checkpoint.hpp"
#include "nn/runtime/served_file.hpp"
#include "tests/apps/program.hpp"
#include "tests/nn/small_model.hpp"

namespace {

using namespace nibble;
using nibble::testing::check_refused;
using nibble::testing::has;
using nibble::testing::no_program;
using nibble::testing::Result;
using nibble::testing::run_program;
using nibble::testing::TemporaryFolder;

nlohmann::json inspect(const std::string& model) {
  const Result r = run_program("inspect " + model + " --json");
  INFO(r.err);
  REQUIRE(r.code == 0);
  return nlohmann::json::parse(r.out);
}

/// The codes of all validation images, of which there are fewer than training counts at most.
std::vector<QuantizerUsage> usage_of(const Model& model, const std::string& data) {
  const auto images = std::make_shared<ImageFolder>(ImageFolderArgs{.dir = data, .split = "val"});
  EvalLoader loader({.dataset = images, .transform = {.size = 32}, .batch_size = 64});
  const std::optional<Batch> batch = loader.next();
  REQUIRE(batch.has_value());
  REQUIRE(batch->images.dim(0) == 20);
  return measure_usage(model, batch->images);
}

/// A table's row as its cells, which are two or more blanks apart.
std::vector<std::string> cells(const std::string& row) {
  std::vector<std::string> found;
  for (size_t at = 0; at < row.size();) {
    const size_t end = std::min(row.find("  ", at), row.size());
    found.push_back(row.substr(at, end - at));
    at = std::min(row.find_first_not_of(' ', end), row.size());
  }
  return found;
}

}  // namespace

TEST_CASE("inspect: bounds, clipped shares and counts of codes are those of the model on its validation images") {
  if (no_program()) return;
  const TemporaryFolder folder("inspect");
  const std::string data = folder / "data", run = folder / "run", served = folder / "model.safetensors";
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 2 --size 40").code == 0);
  REQUIRE(run_program("train --data " + data + " --out " + run +
                      " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 4 --calibrate-at 2"
                      " --precision w4a4-fl8 --quiet")
              .code == 0);
  const Result exported = run_program("export " + run + "/latest --json --out " + served);
  REQUIRE(exported.code == 0);
  const nlohmann::json sizes = nlohmann::json::parse(exported.out);
  const SafetensorsFile file = SafetensorsFile::open(served);
  CHECK(sizes.at("bytes") == std::filesystem::file_size(served));
  uint64_t weight_bytes = 0;
  const Model model = load_checkpoint(run + "/latest").model;
  const std::vector<QuantizerUsage> usage = usage_of(model, data);
  const nlohmann::json found = inspect(run + "/latest");
  nlohmann::json of_served = inspect(served);
  CHECK(of_served.at("notes").at("check_logits_sha256").get<std::string>().size() == 64);
  of_served.at("notes").erase("check_logits_sha256");
  CHECK(of_served == found);
  CHECK(found.at("notes").at("steps") == "4");
  const Result checked = run_program("inspect --check " + served);
  CHECK(checked.code == 0);
  CHECK(has(checked.out, "\nsteps: 4\n"));
  CHECK(has(checked.out, "\ncheck: the logits are those that the file notes\n"));
  check_refused("inspect --check " + run + "/latest", 2, "is a checkpoint, which notes no logits");
  const nlohmann::json checked_json = nlohmann::json::parse(run_program("inspect --json --check " + served).out);
  CHECK(checked_json.at("check") == true);
  ServedModel other = load_served(served);
  other.notes.at("check_logits_sha256") = std::string(64, '0');
  save_served(folder / "other.safetensors", other);
  check_refused("inspect --check " + (folder / "other.safetensors"), 5, "does not give the logits here");
  CHECK(found.at("calibrated") == true);
  REQUIRE(found.at("layers").size() == model.network.units.size());

  std::istringstream table(run_program("inspect " + served).out);
  std::string row;
  std::getline(table, row);
  const std::vector<std::string> header = cells(row);
  const auto column = [&](const char* name) {
    const auto place = std::find(header.begin(), header.end(), name);
    REQUIRE(place != header.end());
    return static_cast<size_t>(place - header.begin());
  };
  const size_t w_zero = column("w zero"), clipped = column("clipped"), codes = column("codes"), zero = column("zero"),
               top = column("top"), macs = column("mega-macs"), bytes = column("bytes"), product = column("product");

  int64_t layers_that_clip = 0;
  for (size_t u = 0; u < model.network.units.size(); ++u) {
    const UnitSpec& unit = model.network.units[u];
    const nlohmann::json& layer = found.at("layers")[u];
    CAPTURE(unit.name);
    CHECK(layer.at("name") == unit.name);
    const bool first_or_last = unit.name == "conv1" || unit.name == "fc";
    CHECK(layer.at("weight_bits") == (first_or_last ? 8 : 4));
    CHECK(layer.at("activation_bits") == (first_or_last ? 8 : 4));
    const std::vector<float>& bound = model.calibration.at(static_cast<size_t>(unit.quantizer)).bound;
    CHECK(layer.at("bound_min") == *std::min_element(bound.begin(), bound.end()));
    CHECK(layer.at("bound_max") == *std::max_element(bound.begin(), bound.end()));

    const ConvShape& shape = unit.shape;
    const int64_t products = shape.oh() * shape.ow() * shape.oc * shape.kh * shape.kw * shape.ic;
    CHECK(layer.at("macs") == products);
    const uint64_t stored = file.data(unit.name + ".weight").size();
    CHECK(layer.at("bytes") == stored);
    CHECK(sizes.at("layers")[u].at("bytes") == stored);
    weight_bytes += stored;
    const WeightCodes weights =
        quantize_weights(model.units[u].weights, model.quantizers.at(static_cast<size_t>(unit.quantizer)).fold,
                         {.bits = unit.precision.weight_bits}, "");
    const auto zeros = std::count(weights.codes.data<int8_t>(), weights.codes.data<int8_t>() + weights.codes.size(), 0);
    const double zero_share = static_cast<double>(zeros) / static_cast<double>(weights.codes.size());
    CHECK(zeros > 0);
    CHECK(layer.at("zero_weight_share") == zero_share);
    const bool fewer_products =
        shape.kh == 3 && shape.stride == 1 && shape.oh() > 2 && !kernels::active().u4s4.run_strided;
    CHECK(layer.at("kernel") == (first_or_last ? "u8s8" : fewer_products ? "u6s7" : "u4s4"));

    const QuantizerUsage& used = usage.at(static_cast<size_t>(unit.quantizer));
    const int64_t values = 20 * unit.shape.h * unit.shape.w * unit.shape.ic;
    CHECK(used.total == values);
    CHECK(layer.at("code_counts") == nlohmann::json(used.codes));
    const double share = static_cast<double>(used.clipped) / static_cast<double>(values);
    CHECK(layer.at("clipped_share").get<double>() == doctest::Approx(share).epsilon(1e-12));
    layers_that_clip += used.clipped > 0;

    REQUIRE(std::getline(table, row));
    const std::vector<std::string> shown = cells(row);
    REQUIRE(shown.size() == header.size());
    const auto percent = [&](int64_t n) { return 100 * (static_cast<double>(n) / static_cast<double>(values)); };
    const auto occurring = std::count_if(used.codes.begin(), used.codes.end(), [](int64_t n) { return n != 0; });
    const bool image = unit.name == "conv1";  // the one quantizer with signs: codes -127 to 127
    CHECK(used.codes.size() == (image ? 255 : unit.name == "fc" ? 256 : 16));
    CHECK(shown[0] == unit.name);
    CHECK(shown[clipped] == fmt::format("{:.2f} %", percent(used.clipped)));
    CHECK(shown[codes] == fmt::format("{}/{}", occurring, used.codes.size()));
    CHECK(shown[zero] == fmt::format("{:.0f} %", percent(used.codes[image ? 127 : 0])));
    CHECK(shown[top] == fmt::format("{:.1f} %", percent(used.codes.back())));
    CHECK(shown[w_zero] == fmt::format("{:.0f} %", 100 * zero_share));
    CHECK(shown[macs] == fmt::format("{:.2f}", static_cast<double>(products) * 1e-6));
    std::string digits = shown[bytes];
    std::erase(digits, ',');
    CHECK(digits == std::to_string(stored));
    CHECK(shown[product] == layer.at("kernel"));
  }
  CHECK(layers_that_clip > 10);
  CHECK(sizes.at("weight_bytes") == weight_bytes);
}

TEST_CASE("inspect: a model of fake quantization has shapes, bits, bounds and bytes, and counts once they are taken") {
  if (no_program()) return;
  const TemporaryFolder folder("fake");
  const std::string path = folder / "model", served = folder / "served";
  NetworkOptions o = nibble::testing::small_options("w4a4-fl8", 0.1);
  o.mode = QuantMode::kFake;
  o.scheme = QuantScheme::kNearest;
  o.bf16_weights = true;
  o.signed_block_input = true;
  Model model = nibble::testing::calibrated_model(o);
  const auto save = [&] {
    save_checkpoint(path, model, make_gradients(model), 1, "{}", {"a", "b", "c", "d", "e"});
    return inspect(path);
  };
  const nlohmann::json bare = save();
  CHECK(bare.at("quant_mode") == "fake");
  CHECK(bare.at("quant_scheme") == "nearest");
  CHECK(bare.at("calibrated") == true);
  const Result table = run_program("inspect " + path);
  CHECK(table.code == 0);
  CHECK(has(table.out,
            "resnet26 x0.1 w4a4-fl8, 32 px, 5 classes, scales per channel, codes rounded to nearest, "
            "signed block inputs, weights rounded to bf16, fake quantization; kernels: " +
                std::string(name_of(active_isa())) + "\n"));
  std::istringstream lines(table.out);
  std::string row;
  REQUIRE(std::getline(lines, row));
  const std::vector<std::string> header = cells(row);

  model.usage = measure_usage(model, nibble::testing::random_images(2, 32));
  const nlohmann::json counted = save();
  REQUIRE(bare.at("layers").size() == model.network.units.size());
  for (size_t u = 0; u < model.network.units.size(); ++u) {
    const UnitSpec& unit = model.network.units[u];
    const nlohmann::json& layer = bare.at("layers")[u];
    CAPTURE(unit.name);
    CHECK(layer.at("name") == unit.name);
    CHECK(layer.at("input") == nlohmann::json({unit.shape.h, unit.shape.w, unit.shape.ic}));
    CHECK(layer.at("weight_bits") == unit.precision.weight_bits);
    CHECK(layer.at("activation_bits") == unit.precision.activation_bits);
    const std::vector<float>& bound = model.calibration.at(static_cast<size_t>(unit.quantizer)).bound;
    CHECK(layer.at("bound_min") == *std::min_element(bound.begin(), bound.end()));
    CHECK(layer.at("bound_max") == *std::max_element(bound.begin(), bound.end()));
    CHECK(layer.at("macs") == unit.macs());
    CHECK(layer.at("bytes") == served_weight_bytes(unit));
    CHECK(layer.at("kernel") == "fake");
    CHECK_FALSE(layer.contains("clipped_share"));
    CHECK_FALSE(layer.contains("code_counts"));
    const nlohmann::json& codes = counted.at("layers")[u].at("code_counts");
    CHECK(codes == nlohmann::json(model.usage.at(static_cast<size_t>(unit.quantizer)).codes));

    REQUIRE(std::getline(lines, row));
    const std::vector<std::string> shown = cells(row);
    REQUIRE(shown.size() == header.size());
    for (size_t c = 0; c < shown.size(); ++c) {
      const bool of_codes = header[c] == "w zero" || header[c] == "clipped" || header[c] == "codes" ||
                            header[c] == "zero" || header[c] == "top";
      CHECK((shown[c] == "-") == of_codes);
    }
  }
  const Result refused = run_program("export " + path + " --out " + served);
  CHECK(refused.code == 4);
  CHECK(has(refused.err, "--quant-mode fake"));
  CHECK_FALSE(std::filesystem::exists(served));
}

TEST_CASE("inspect: the form of scales is the one that the quantizers have, not the one that was asked for") {
  if (no_program()) return;
  const TemporaryFolder folder("form");
  const std::string path = folder / "model";
  for (const char* precision : {"w8a8", "w4a4"}) {
    NetworkOptions o = nibble::testing::small_options(precision, 0.1);
    o.per_channel_by = PerChannelBy::kShift;
    const Model model = nibble::testing::calibrated_model(o);
    save_checkpoint(path, model, make_gradients(model), 1, "{}", {"a", "b", "c", "d", "e"});
    const Result table = run_program("inspect " + path);
    CHECK(table.code == 0);
    CHECK(has(table.out, o.precision == "w4a4" ? "scales per channel by shift" : "scales per channel by fold"));
    // layer1.0.conv2, 3x3 on 8x8, by Winograd products of 16 bits.
    if (o.precision == "w8a8" && !kernels::active().u8s8.run_strided) CHECK(has(table.out, "s16s14"));
  }
}

TEST_CASE("inspect: a model that was never evaluated after calibration has bounds and no counts") {
  if (no_program()) return;
  const TemporaryFolder folder("uncounted");
  const std::string data = folder / "data", run = folder / "run";
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 1 --size 40").code == 0);
  REQUIRE(run_program("train --data " + data + " --out " + run +
                      " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 3 --calibrate-at 2"
                      " --save-every 1 --eval-every 0 --precision w4a4-fl8 --quiet")
              .code == 0);
  const nlohmann::json before = inspect(run + "/checkpoints/step-000001.safetensors");
  const nlohmann::json after = inspect(run + "/checkpoints/step-000002.safetensors");
  CHECK(before.at("calibrated") == false);
  CHECK(after.at("calibrated") == true);
  for (const nlohmann::json* model : {&before, &after}) {
    for (const nlohmann::json& layer : model->at("layers")) {
      CAPTURE(layer.at("name").get<std::string>());
      CHECK_FALSE(layer.contains("code_counts"));
      CHECK_FALSE(layer.contains("clipped_share"));
      CHECK((layer.at("bound_max") > 0) == (model == &after));
      CHECK((layer.at("activation_bits") == 16) == (model == &before));
    }
  }
}
