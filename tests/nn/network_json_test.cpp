// The network description of file headers: every option survives, every defect is named with its source.
#include "nn/network_json.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

namespace nibble {
namespace {

NetworkOptions unusual() {
  NetworkOptions o;
  o.arch = "resnet29";
  o.width = 0.1;  // not representable: must come back as the same double
  o.precision = "w8a4-fl8";
  o.granularity = Granularity::kPerTensor;
  o.per_channel_by = PerChannelBy::kShiftFold;
  o.mode = QuantMode::kFake;
  o.image_size = 96;
  o.classes = 17;
  o.same_padding = true;
  o.signed_block_input = true;
  o.scheme = QuantScheme::kNearest;
  o.bf16_weights = true;
  o.pixel_norm = {.mean = {0.1, 0.2, 0.3}, .std = {0.7, 1, 0.00390625}};
  o.crop_share = 224.0 / 232;
  o.upright = true;
  o.overrides = {{"layer1.0.conv1", {8, 4}}, {"fc", {16, 16}}};
  return o;
}

TEST_CASE("network json: every option comes back, at its default and away from it") {
  for (const NetworkOptions& o : {NetworkOptions(), unusual()}) {
    const NetworkOptions back = network_options_from_json(network_options_to_json(o), "file");
    CHECK(back.arch == o.arch);
    CHECK(back.width == o.width);
    CHECK(back.precision == o.precision);
    CHECK(back.granularity == o.granularity);
    CHECK(back.per_channel_by == o.per_channel_by);
    CHECK(back.mode == o.mode);
    CHECK(back.image_size == o.image_size);
    CHECK(back.classes == o.classes);
    CHECK(back.same_padding == o.same_padding);
    CHECK(back.signed_block_input == o.signed_block_input);
    CHECK(back.scheme == o.scheme);
    CHECK(back.bf16_weights == o.bf16_weights);
    CHECK(back.pixel_norm == o.pixel_norm);
    CHECK(back.crop_share == o.crop_share);
    CHECK(back.upright == o.upright);
    REQUIRE(back.overrides.size() == o.overrides.size());
    for (size_t i = 0; i < o.overrides.size(); ++i) {
      CHECK(back.overrides[i].layer == o.overrides[i].layer);
      CHECK(back.overrides[i].precision == o.overrides[i].precision);
    }
    CHECK(network_options_to_json(back) == network_options_to_json(o));
  }
}

TEST_CASE("network json: options that came later are not written at their defaults, and files without them are read") {
  const nlohmann::json plain = nlohmann::json::parse(network_options_to_json(NetworkOptions()));
  CHECK_FALSE(plain.contains("quant_scheme"));
  CHECK_FALSE(plain.contains("bf16_weights"));
  CHECK_FALSE(plain.contains("pixel_mean"));
  CHECK_FALSE(plain.contains("crop_share"));
  CHECK_FALSE(plain.contains("upright"));
  CHECK(plain.size() == 11);
}

TEST_CASE("network json: every width in hundredths comes back exactly") {
  NetworkOptions o;
  for (int i = 5; i <= 800; ++i) {
    o.width = i / 100.0;
    REQUIRE(network_options_from_json(network_options_to_json(o), "file").width == o.width);
  }
}

TEST_CASE("network json: a missing key, a wrong type or an unknown name is a model error that names the file") {
  const nlohmann::json good = nlohmann::json::parse(network_options_to_json(unusual()));
  const auto refused = [](const nlohmann::json& j) {
    CHECK_THROWS_WITH_AS(network_options_from_json(j.dump(), "the/file"), doctest::Contains("the/file"), ModelError);
  };
  for (const auto& item : good.items()) {
    const std::string key = item.key();  // a structured binding cannot be captured in C++20's clang 14
    CAPTURE(key);
    nlohmann::json without = good;
    without.erase(key);
    const bool later = key == "quant_scheme" || key == "bf16_weights" || key.starts_with("pixel_") ||
                       key == "crop_share" || key == "upright";  // files from before them lack them
    if (!later) refused(without);
    nlohmann::json wrong = good;
    wrong[key] = nlohmann::json::object();
    refused(wrong);
    wrong[key] = nullptr;
    refused(wrong);
    if (key.starts_with("pixel_")) {
      wrong[key] = {0.5, 0.5};
      refused(wrong);
      wrong[key] = {0.5, 0.5, "0.5"};
      refused(wrong);
    }
    if (!item.value().is_string() || key == "arch") continue;  // the arch's name is build_resnet's to judge
    wrong[key] = "nonsense";
    if (key == "precision") continue;  // likewise
    refused(wrong);
  }
  for (const char* text : {"", "[]", "3", "null", "{\"arch\":", "\xff\xfe"})
    CHECK_THROWS_WITH_AS(network_options_from_json(text, "the/file"), doctest::Contains("the/file"), ModelError);
}

TEST_CASE("network json: a key of a newer version is refused by name at every level, whatever else is newer") {
  const nlohmann::json good = nlohmann::json::parse(network_options_to_json(unusual()));
  const auto refused = [](const nlohmann::json& j, const char* key) {
    for (const char* part : {"the/file", key, "newer version of nibble"})
      CHECK_THROWS_WITH_AS(network_options_from_json(j.dump(), "the/file"), doctest::Contains(part), ModelError);
  };
  nlohmann::json newer = good;
  newer["dilation"] = 2;
  refused(newer, "'dilation'");
  newer["granularity"] = "per_group";
  refused(newer, "'dilation'");
  newer = good;
  newer["overrides"][1]["rounding"] = "stochastic";
  refused(newer, "'rounding'");
  CHECK_THROWS_AS(network_options_from_json("[1]", "the/file"), ModelError);
}

TEST_CASE("network json: numbers that are not whole or do not fit are refused") {
  nlohmann::json j = nlohmann::json::parse(network_options_to_json(unusual()));
  j["classes"] = 10.5;
  CHECK_THROWS_AS(network_options_from_json(j.dump(), "f"), ModelError);
  j["classes"] = 1e300;
  CHECK_THROWS_AS(network_options_from_json(j.dump(), "f"), ModelError);
  j["classes"] = 17;
  j["image_size"] = true;
  CHECK_THROWS_AS(network_options_from_json(j.dump(), "f"), ModelError);
  j["image_size"] = uint64_t{1} << 63;
  CHECK_THROWS_AS(network_options_from_json(j.dump(), "f"), ModelError);
}

TEST_CASE("network json: lists nested a million deep are refused without recursion") {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  CHECK_THROWS_AS(network_options_from_json(deep, "f"), ModelError);
  std::string text = network_options_to_json(unusual());
  text.replace(text.find("17"), 2, deep);
  CHECK_THROWS_WITH_AS(network_options_from_json(text, "f"), doctest::Contains("classes"), ModelError);
}

TEST_CASE("network json: names of the enumerations parse back, others are refused with the choices") {
  for (Granularity g : {Granularity::kPerTensor, Granularity::kPerChannel}) CHECK(granularity_from(name_of(g)) == g);
  for (PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShift, PerChannelBy::kShiftFold})
    CHECK(per_channel_by_from(name_of(by)) == by);
  for (QuantMode m : {QuantMode::kInteger, QuantMode::kFake}) CHECK(quant_mode_from(name_of(m)) == m);
  for (QuantScheme s : {QuantScheme::kPaper, QuantScheme::kNearest}) CHECK(quant_scheme_from(name_of(s)) == s);
  CHECK_THROWS_WITH_AS(granularity_from("channel"), doctest::Contains("per_channel or per_tensor"), UsageError);
  CHECK_THROWS_WITH_AS(per_channel_by_from("folded"), doctest::Contains("fold, shift or shift+fold"), UsageError);
  CHECK_THROWS_WITH_AS(quant_mode_from("int"), doctest::Contains("integer or fake"), UsageError);
  CHECK_THROWS_WITH_AS(quant_scheme_from("round"), doctest::Contains("paper or nearest"), UsageError);
}

}  // namespace
}  // namespace nibble
