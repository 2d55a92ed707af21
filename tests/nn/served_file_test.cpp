// Served files: packed codes come back exactly, have the promised size, and whatever is wrong is named.
#include "nn/runtime/served_file.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>

#include "nn/atomic_file.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/verify_served.hpp"
#include "tests/nn/edited_file.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::Edited;
using testing::random_images;
using testing::random_model;
using testing::same_bytes;
using testing::same_usage;
using testing::small_options;
using testing::TempDir;
using testing::vector_of;

void check_served_round_trip(Model model) {
  const TempDir dir;
  if (model.calibrated()) model.usage = measure_usage(model, random_images(2, model.network.options.image_size));
  ServedModel served = make_served(model);
  served.class_names = {"ant", "bee", "cat", "dog", "eel"};
  served.notes = {{"steps", "12"}, {"decoder", "turbo"}};
  const ServedFileSizes sizes = save_served(dir / "m.safetensors", served);
  CHECK(sizes.file_bytes == std::filesystem::file_size(dir / "m.safetensors"));
  const ServedFileSizes unwritten = served_sizes(served);
  CHECK(unwritten.file_bytes == sizes.file_bytes);
  CHECK(unwritten.layer_bytes == sizes.layer_bytes);
  const ServedModel back = load_served(dir / "m.safetensors");
  CHECK(back.class_names == served.class_names);
  CHECK(back.notes == served.notes);
  CHECK(back.calibrated() == served.calibrated());
  CHECK(same_usage(back.usage, model.usage));
  REQUIRE(back.layers.size() == served.layers.size());
  for (size_t u = 0; u < served.layers.size(); ++u) {
    CAPTURE(model.network.units[u].name);
    const ServedLayer &a = served.layers[u], &b = back.layers[u];
    REQUIRE(a.codes.codes.defined() == b.codes.codes.defined());
    if (a.codes.codes.defined()) CHECK(same_bytes(a.codes.codes, b.codes.codes));
    if (a.weights.defined()) CHECK(same_bytes(a.weights, b.weights));
    CHECK(a.codes.scale == b.codes.scale);
    CHECK(a.affine.m == b.affine.m);
    CHECK(a.affine.a == b.affine.a);
  }
  REQUIRE(back.quantizers.size() == served.quantizers.size());
  for (size_t q = 0; q < served.quantizers.size(); ++q) {
    CHECK(back.quantizers[q].bound == served.quantizers[q].bound);
    CHECK(back.quantizers[q].scale == served.quantizers[q].scale);
    CHECK(back.quantizers[q].factor == served.quantizers[q].factor);
    CHECK(back.quantizers[q].common == served.quantizers[q].common);
  }
}

TEST_CASE("served file: everything comes back bit for bit in every precision and form") {
  for (const char* precision : {"w4a4-fl8", "w4a4", "w8a8", "w4a8", "w8a4-fl8"}) {
    CAPTURE(precision);
    for (PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShift, PerChannelBy::kShiftFold}) {
      NetworkOptions o = small_options(precision, 0.13);  // odd channels: odd rows of nibbles
      o.per_channel_by = by;
      check_served_round_trip(calibrated_model(o));
    }
  }
  NetworkOptions o = small_options("w4a4-fl8", 0.13);
  o.granularity = Granularity::kPerTensor;
  o.overrides = {{"layer1.0.conv2", {16, 16}}};
  check_served_round_trip(calibrated_model(o));
  check_served_round_trip(random_model(small_options("bf16", 0.13)));
}

TEST_CASE("served file: a layer takes exactly oc*ceil(k/2), oc*k or 2*oc*k bytes") {
  const TempDir dir;
  NetworkOptions o = small_options("w4a4-fl8", 0.13);
  o.overrides = {{"layer2.0.conv2", {16, 16}}};
  const Model model = calibrated_model(o);
  const ServedFileSizes sizes = save_served(dir / "m.safetensors", make_served(model));
  const SafetensorsFile file = SafetensorsFile::open(dir / "m.safetensors", {.require_integrity = true});
  uint64_t total = 0;
  int odd = 0, four = 0;
  for (size_t u = 0; u < model.network.units.size(); ++u) {
    const UnitSpec& unit = model.network.units[u];
    CAPTURE(unit.name);
    const uint64_t oc = static_cast<uint64_t>(unit.shape.oc), k = static_cast<uint64_t>(unit.shape.k());
    const int bits = unit.precision.weight_bits;
    const uint64_t expected = bits == 4 ? oc * ((k + 1) / 2) : bits == 8 ? oc * k : oc * k * 2;
    CHECK(file.entry(unit.name + ".weight").bytes() == expected);
    CHECK(sizes.layer_bytes[u] == expected);
    CHECK(served_weight_bytes(unit) == expected);
    CHECK(file.entry(unit.name + ".weight").dtype == (bits == 4 ? "U8" : bits == 8 ? "I8" : "BF16"));
    four += bits == 4;
    odd += bits == 4 && k % 2 == 1;
    total += expected;
  }
  CHECK(sizes.weight_bytes == total);
  CHECK(four > 0);
  CHECK(odd > 0);
}

TEST_CASE("served file: the low nibble is the first code of an OHWI row") {
  const TempDir dir;
  const Model model = calibrated_model(small_options("w4a4", 0.13));
  const ServedModel served = make_served(model);
  save_served(dir / "m.safetensors", served);
  const SafetensorsFile file = SafetensorsFile::open(dir / "m.safetensors");
  const size_t u = static_cast<size_t>(model.network.unit_index("layer3.0.conv2"));
  const Tensor packed = file.tensor("layer3.0.conv2.weight");
  const int64_t k = model.network.units[u].shape.k();
  const int8_t* codes = served.layers[u].codes.codes.data<int8_t>();
  int64_t wrong = 0;
  for (int64_t o = 0; o < packed.dim(0); ++o)
    for (int64_t i = 0; i < k; ++i) {
      const int nibble = (packed.row<uint8_t>(o)[i / 2] >> (i % 2 * 4)) & 15;
      wrong += (nibble ^ 8) - 8 != codes[o * k + i];
    }
  CHECK(wrong == 0);
  CHECK(file.metadata_value("nibble.layer3.0.conv2.weight").find("lo-first") != std::string::npos);
}

TEST_CASE("served file: an integer model that is not calibrated is refused, bf16 is not") {
  const TempDir dir;
  CHECK_THROWS_WITH_AS(save_served(dir / "m.safetensors", make_served(random_model(small_options("w4a4-fl8", 0.1)))),
                       doctest::Contains("not calibrated"), ModelError);
  CHECK_FALSE(std::filesystem::exists(dir / "m.safetensors"));
  CHECK_NOTHROW(save_served(dir / "m.safetensors", make_served(random_model(small_options("bf16", 0.1)))));
}

std::string error_serving_after(const std::function<void(Edited&)>& edit, const Model& model) {
  const TempDir dir;
  save_served(dir / "good.safetensors", make_served(model));
  return testing::error_after(dir / "good.safetensors", edit,
                              [](const auto& path) { Executor(load_served(path)).run(random_images(1, 32)); });
}

TEST_CASE("served file: one that its check refuses leaves the older file as it was, and nothing next to it") {
  const TempDir dir;
  const ServedModel model = make_served(calibrated_model(small_options("w4a4-fl8", 0.1)));
  write_file_atomically(dir / "m.safetensors", "older");
  const auto check = [&](const std::filesystem::path& written) {
    CHECK_NOTHROW(load_served(written));
    throw VerificationError("no");
  };
  CHECK_THROWS_AS(save_served(dir / "m.safetensors", model, check), VerificationError);
  CHECK(read_text_file(dir / "m.safetensors", 100) == "older");
  CHECK(remove_temporary_files((dir / "m.safetensors").parent_path()) == 0);
}

TEST_CASE("served file: an unchanged copy is accepted, so the refusals below are for their own reason") {
  CHECK(error_serving_after([](Edited&) {}, calibrated_model(small_options("w4a4-fl8", 0.1))) == "accepted");
}

TEST_CASE("served file: each kind of wrong content is refused by name") {
  Model model = calibrated_model(small_options("w4a4-fl8", 0.1));
  model.usage = measure_usage(model, random_images(2, 32));
  REQUIRE(error_serving_after([](Edited&) {}, model) == "accepted");
  CHECK(error_serving_after([](Edited& e) { e.metadata["nibble.later"] = "of a later version"; }, model) == "accepted");
  struct Case {
    const char* what;
    std::function<void(Edited&)> edit;
    const char* named;
  };
  const std::vector<Case> cases = {
      {"version", [](Edited& e) { e.metadata["nibble.version"] = "0"; }, "version '0'"},
      {"kind", [](Edited& e) { e.metadata["nibble.format"] = "checkpoint"; }, "not a served model"},
      {"missing weight", [](Edited& e) { e.tensors.erase("layer2.1.conv2.weight"); }, "layer2.1.conv2.weight"},
      {"missing scale", [](Edited& e) { e.tensors.erase("layer2.1.conv2.weight_scale"); },
       "layer2.1.conv2.weight_scale"},
      {"missing m", [](Edited& e) { e.tensors.erase("fc.m"); }, "fc.m"},
      {"missing bound", [](Edited& e) { e.tensors.erase("layer1.0.conv2.input.bound"); }, "layer1.0.conv2.input.bound"},
      {"missing note", [](Edited& e) { e.metadata.erase("nibble.layer1.0.conv2.weight"); },
       "nibble.layer1.0.conv2.weight"},
      {"other order",
       [](Edited& e) {
         std::string& note = e.metadata["nibble.layer1.0.conv2.weight"];
         note.replace(note.find("OHWI"), 4, "OIHW");
       },
       "layer1.0.conv2.weight"},
      {"one usage missing", [](Edited& e) { e.tensors.erase("layer2.1.conv2.input.usage"); }, "of some quantizers"},
      {"negative usage", [](Edited& e) { e.tensors["fc.input.usage"].data<int32_t>()[3] = -1; }, "fc.input.usage"},
      {"long usage", [](Edited& e) { e.tensors["fc.input.usage"] = Tensor::zeros(DType::s32, {258}); },
       "fc.input.usage"},
      {"surplus", [](Edited& e) { e.tensors["extra.m"] = vector_of({1}); }, "extra.m"},
      {"wrong shape",
       [](Edited& e) {
         e.tensors["conv1.a"] = vector_of({1, 2});
       },
       "conv1.a"},
      {"wrong type",
       [](Edited& e) {
         const Tensor t = e.tensors["conv1.weight"];
         const Tensor other = Tensor::zeros(DType::u8, t.shape());
         e.tensors["conv1.weight"] = other;
       },
       "conv1.weight"},
      {"negative scale", [](Edited& e) { e.tensors["fc.weight_scale"].data<float>()[0] = -1; }, "fc.weight_scale"},
      {"NaN m", [](Edited& e) { e.tensors["fc.m"].data<float>()[0] = std::nanf(""); }, "fc.m"},
      {"infinite a", [](Edited& e) { e.tensors["fc.a"].data<float>()[0] = HUGE_VALF; }, "fc.a"},
      {"zero bound",
       [](Edited& e) {
         e.tensors["conv1.input.bound"] = vector_of({1, 0, 1});
       },
       "conv1.input.bound"},
      {"negative bound",
       [](Edited& e) {
         e.tensors["conv1.input.bound"] = vector_of({1, -2, 1});
       },
       "conv1.input.bound"},
      {"bound over the limit",
       [](Edited& e) {
         e.tensors["conv1.input.bound"] = vector_of({1, 3.2e38f, 1});
       },
       "conv1.input.bound"},
      {"one name for five classes", [](Edited& e) { e.metadata["nibble.classes"] = "[\"a\"]"; }, "nibble.classes"},
      {"no JSON", [](Edited& e) { e.metadata["nibble.network"] = "[1"; }, "network description"},
      {"newer network", [](Edited& e) { e.metadata["nibble.network"].insert(1, "\"dilation\":2,"); }, "'dilation'"},
      {"notes no map", [](Edited& e) { e.metadata["nibble.notes"] = "[1]"; }, "nibble.notes"},
      {"classes no list", [](Edited& e) { e.metadata["nibble.classes"] = "7"; }, "names"},
      {"uncalibrated fake mode",
       [](Edited& e) {
         std::string& text = e.metadata["nibble.network"];
         text.replace(text.find("integer"), 7, "fake");
       },
       "fake"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    const std::string error = error_serving_after(c.edit, model);
    CHECK_MESSAGE(error.find(c.named) != std::string::npos, error);
  }
}

TEST_CASE("served file: bounds of extreme size end in a model error or run, never in anything else") {
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.1));
  for (float low : {1e-45f, 1e-38f, 1e-10f})
    for (float high : {1.0f, 1e10f, 3e38f}) {
      CAPTURE(low);
      CAPTURE(high);
      const std::string error = error_serving_after(
          [&](Edited& e) {
            const Tensor& t = e.tensors["layer1.0.conv2.input.bound"];
            t.data<float>()[0] = low;
            t.data<float>()[1] = high;
            e.tensors["conv1.input.bound"] = vector_of({low, high, 1});
          },
          model);
      CHECK_MESSAGE((error == "accepted" || error.find("bound") != std::string::npos), error);
    }
}

TEST_CASE("served file: every sampled flipped byte and every truncation is refused") {
  const TempDir dir;
  save_served(dir / "m.safetensors", make_served(calibrated_model(small_options("w4a4-fl8", 0.13))));
  std::ifstream in(dir / "m.safetensors", std::ios::binary);
  const std::vector<char> good{std::istreambuf_iterator<char>(in), {}};
  const auto refused = [&](const std::vector<char>& bytes) {
    const std::span<const char> chars(bytes);
    try {
      load_served(SafetensorsFile::parse(std::as_bytes(chars), "copy"));
    } catch (const ModelError&) {
      return true;
    }
    return false;
  };
  REQUIRE_FALSE(refused(good));
  size_t tried = 0, caught = 0;
  for (size_t at = 0; at < good.size(); at += 97) {
    std::vector<char> bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at / 97 % 8)));
    ++tried;
    caught += refused(bad);
  }
  CHECK(caught == tried);
  CHECK(tried > 1000);
  for (size_t length = 0; length < good.size(); length += good.size() / 23)
    CHECK(refused({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)}));
}

TEST_CASE("served file: the check inside an export accepts the model's own file and refuses that of any other") {
  const TempDir dir;
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.13)),
              other = calibrated_model(small_options("w4a4-fl8", 0.13), 8);
  save_served(dir / "own.safetensors", make_served(model));
  save_served(dir / "other.safetensors", make_served(other));
  CHECK_NOTHROW(verify_served(check_logits(model), dir / "own.safetensors"));
  try {
    verify_served(check_logits(model), dir / "other.safetensors");
    FAIL("another model's file was accepted");
  } catch (const VerificationError& e) {
    CHECK(e.code() == ExitCode::kVerification);
    CHECK(static_cast<int>(e.code()) == 5);
  }
}

TEST_CASE("served file: it notes the hash of its logits, by which any machine tells that it computes the same") {
  const TempDir dir;
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.13));
  ServedModel served = make_served(model);
  REQUIRE(has_check_note(served));
  const auto gives = [&](const std::string& note) {
    if (!note.empty()) served.notes[kCheckNote] = note;
    save_served(dir / "m.safetensors", served);
    Executor executor(load_served(dir / "m.safetensors"));
    return gives_noted_logits(executor, "m.safetensors");
  };
  CHECK_THROWS_AS(gives(""), UsageError);
  CHECK(gives(check_note(check_logits(model))));
  CHECK_FALSE(gives(check_note(check_logits(calibrated_model(small_options("w4a4-fl8", 0.13), 8)))));
  CHECK_FALSE(has_check_note(make_served(calibrated_model(small_options("bf16", 0.13)))));
}

TEST_CASE("served file: one whose checksums were taken out is refused, though it is valid safetensors") {
  const TempDir dir;
  save_served(dir / "m.safetensors", make_served(calibrated_model(small_options("w4a4-fl8", 0.13))));
  std::ifstream in(dir / "m.safetensors", std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(in)), {});
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  const std::string data = file.substr(8 + length, file.size() - 8 - length - 32);  // 32: the header's checksum
  nlohmann::ordered_json header = nlohmann::ordered_json::parse(file.substr(8, length));
  nlohmann::ordered_json kept;
  for (const auto& [key, value] : header.at("__metadata__").items())
    if (key != "nibble.integrity" && !key.starts_with("nibble.crc32c.")) kept[key] = value;
  CHECK(kept.size() < header.at("__metadata__").size());
  header["__metadata__"] = kept;
  header.erase("nibble.header_checksum");
  std::string json = header.dump();
  json.resize((json.size() + 7) / 8 * 8, ' ');
  length = json.size();
  std::string bare(sizeof length, '\0');
  std::memcpy(bare.data(), &length, sizeof length);
  bare += json + data;
  const SafetensorsFile parsed = SafetensorsFile::parse(std::as_bytes(std::span(bare)), "bare");
  CHECK_FALSE(parsed.integrity());
  CHECK_THROWS_WITH_AS(load_served(parsed), doctest::Contains("checksums of its tensors are missing"), ModelError);
}

}  // namespace
}  // namespace nibble
