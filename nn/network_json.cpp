#include "nn/network_json.hpp"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/utf8.hpp"
#include "nn/json_text.hpp"

namespace nibble {

// No default: a compiler that warns names the value that has no name.
std::string name_of(Granularity g) {
  switch (g) {
    case Granularity::kPerTensor:
      return "per_tensor";
    case Granularity::kPerChannel:
      return "per_channel";
  }
  return "";
}
std::string name_of(PerChannelBy by) {
  switch (by) {
    case PerChannelBy::kFold:
      return "fold";
    case PerChannelBy::kShift:
      return "shift";
    case PerChannelBy::kShiftFold:
      return "shift+fold";
  }
  return "";
}
std::string name_of(QuantMode mode) {
  switch (mode) {
    case QuantMode::kInteger:
      return "integer";
    case QuantMode::kFake:
      return "fake";
  }
  return "";
}
std::string name_of(QuantScheme scheme) {
  switch (scheme) {
    case QuantScheme::kPaper:
      return "paper";
    case QuantScheme::kNearest:
      return "nearest";
  }
  return "";
}

Granularity granularity_from(const std::string& name) {
  if (name == "per_tensor") return Granularity::kPerTensor;
  if (name == "per_channel") return Granularity::kPerChannel;
  throw UsageError("--granularity is '{}'; use per_channel or per_tensor", name);
}
PerChannelBy per_channel_by_from(const std::string& name) {
  if (name == "fold") return PerChannelBy::kFold;
  if (name == "shift") return PerChannelBy::kShift;
  if (name == "shift+fold") return PerChannelBy::kShiftFold;
  throw UsageError("--per-channel-by is '{}'; use fold, shift or shift+fold", name);
}
QuantMode quant_mode_from(const std::string& name) {
  if (name == "integer") return QuantMode::kInteger;
  if (name == "fake") return QuantMode::kFake;
  throw UsageError("--quant-mode is '{}'; use integer or fake", name);
}

QuantScheme quant_scheme_from(const std::string& name) {
  if (name == "paper") return QuantScheme::kPaper;
  if (name == "nearest") return QuantScheme::kNearest;
  throw UsageError("--quant-scheme is '{}'; use paper or nearest", name);
}

std::string network_options_to_json(const NetworkOptions& o) {
  nlohmann::ordered_json j;
  j["arch"] = o.arch;
  j["width"] = o.width;
  j["precision"] = o.precision;
  j["granularity"] = name_of(o.granularity);
  j["per_channel_by"] = name_of(o.per_channel_by);
  j["quant_mode"] = name_of(o.mode);
  j["image_size"] = o.image_size;
  j["classes"] = o.classes;
  j["same_padding"] = o.same_padding;
  j["signed_block_input"] = o.signed_block_input;
  // Only where they are not the default: files from before these keys, and for versions before them, stay as they are.
  if (o.scheme != QuantScheme::kPaper) j["quant_scheme"] = name_of(o.scheme);
  if (o.bf16_weights) j["bf16_weights"] = true;
  if (o.pixel_norm != PixelNorm()) {
    j["pixel_mean"] = o.pixel_norm.mean;
    j["pixel_std"] = o.pixel_norm.std;
  }
  if (o.crop_share != NetworkOptions().crop_share) j["crop_share"] = o.crop_share;
  if (o.upright) j["upright"] = true;
  j["overrides"] = nlohmann::ordered_json::array();
  for (const PrecisionOverride& p : o.overrides)
    j["overrides"].push_back({{"layer", p.layer}, {"precision", precision_text(p.precision)}});
  return json_text(j);
}

namespace {

int64_t whole_number_at(const nlohmann::json& j, const char* key) {
  const nlohmann::json& v = j.at(key);
  if (const std::optional<int64_t> number = whole_number(v)) return *number;
  // Not the text of whatever is there: it recurses, and a hostile file nests a million lists.
  throw UsageError("'{}' is {}, not a whole number in range", key, v.is_number() ? json_text(v) : v.type_name());
}

std::array<double, 3> three_numbers_at(const nlohmann::json& j, const char* key) {
  const nlohmann::json& v = j.at(key);
  if (!v.is_array() || v.size() != 3) throw UsageError("'{}' is not a list of three numbers", key);
  return {v[0].get<double>(), v[1].get<double>(), v[2].get<double>()};
}

/// Only its writer knows what another key means for the network: ignoring it would build a different network.
void require_known_keys(const nlohmann::json& j, std::initializer_list<std::string_view> known) {
  if (!j.is_object()) return;  // at() refuses it
  for (const auto& item : j.items())
    if (std::find(known.begin(), known.end(), item.key()) == known.end())
      throw UsageError(
          "its network description has the key '{}', which this version does not know; a newer version of nibble wrote "
          "the file, so read it with that one",
          item.key());
}

}  // namespace

NetworkOptions network_options_from_json(const std::string& text, const std::string& source) {
  try {
    const nlohmann::json j = parse_json(text);
    require_known_keys(j, {"arch", "width", "precision", "granularity", "per_channel_by", "quant_mode", "image_size",
                           "classes", "same_padding", "signed_block_input", "quant_scheme", "bf16_weights",
                           "pixel_mean", "pixel_std", "crop_share", "upright", "overrides"});
    NetworkOptions o;
    o.arch = j.at("arch").get<std::string>();
    o.width = j.at("width").get<double>();
    o.precision = j.at("precision").get<std::string>();
    o.granularity = granularity_from(j.at("granularity").get<std::string>());
    o.per_channel_by = per_channel_by_from(j.at("per_channel_by").get<std::string>());
    o.mode = quant_mode_from(j.at("quant_mode").get<std::string>());
    o.image_size = whole_number_at(j, "image_size");
    o.classes = whole_number_at(j, "classes");
    o.same_padding = j.at("same_padding").get<bool>();
    o.signed_block_input = j.at("signed_block_input").get<bool>();
    if (j.contains("quant_scheme")) o.scheme = quant_scheme_from(j.at("quant_scheme").get<std::string>());
    if (j.contains("bf16_weights")) o.bf16_weights = j.at("bf16_weights").get<bool>();
    if (j.contains("pixel_mean")) o.pixel_norm.mean = three_numbers_at(j, "pixel_mean");
    if (j.contains("pixel_std")) o.pixel_norm.std = three_numbers_at(j, "pixel_std");
    if (j.contains("upright")) o.upright = j.at("upright").get<bool>();
    if (j.contains("crop_share")) o.crop_share = j.at("crop_share").get<double>();
    if (!j.at("overrides").is_array()) throw UsageError("'overrides' is {}, not a list", j.at("overrides").type_name());
    for (const auto& p : j.at("overrides")) {
      require_known_keys(p, {"layer", "precision"});
      o.overrides.push_back(
          {p.at("layer").get<std::string>(), parse_precision(p.at("precision").get<std::string>()).body});
    }
    return o;
  } catch (const nlohmann::json::exception& e) {
    throw ModelError(
        "{}: the network description in its header cannot be read ({}); the file was made by another "
        "program or version",
        source, shortened(e.what()));
  } catch (const UsageError& e) {
    const std::string_view why = e.what();  // of a file, not of a command line: without its dashes
    throw ModelError("{}: {}", source, shortened(why.starts_with("--") ? why.substr(2) : why));
  }
}

}  // namespace nibble
