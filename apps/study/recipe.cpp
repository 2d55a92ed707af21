#include "apps/study/recipe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "apps/console.hpp"
#include "apps/report/svg.hpp"
#include "apps/train_arguments.hpp"
#include "apps/training/run_note.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

const std::set<std::string>& varied_options() {
  static const std::set<std::string> kVaried = {"width", "precision", "seed"};
  return kVaried;
}

ConfigDifference recipe_difference(const std::string& recipe, const std::string& other,
                                   const std::set<std::string>& ignored) {
  std::set<std::string> names = ignored;
  names.insert(changeable_on_resume().begin(), changeable_on_resume().end());
  names.erase("decoder");  // points of different decoders do not compare, unless one does not say which it was
  const ConfigDifference d = first_difference(recipe, other, names);
  if (d.name != "decoder" || (d.first != "'auto'" && d.second != "'auto'")) return d;
  names.insert(d.name);
  return first_difference(recipe, other, names);
}

std::vector<ConfigDifference> recipe_differences(const std::string& recipe, const std::string& other) {
  std::vector<ConfigDifference> all;
  std::set<std::string> seen = varied_options();
  for (;;) {
    const ConfigDifference d = recipe_difference(recipe, other, seen);
    if (d.name.empty()) return all;
    seen.insert(d.name);
    all.push_back(d);
  }
}

std::string unlike_recipes(const std::vector<PointResult>& points) {
  constexpr size_t kLongestValue = 40;
  for (const PointResult& p : points) {
    const PointResult& first = points.front();
    ConfigDifference d = recipe_difference(first.provenance.config, p.provenance.config, varied_options());
    if (d.name.empty() && p.steps != first.steps) d = {"steps", grouped(first.steps), grouped(p.steps)};
    if (d.name.empty()) d = weights_difference({first}, {p});
    if (!d.name.empty())
      return fmt::format("{} has {} = {}, {} has {}", first.name, d.name, cut_short(d.first, kLongestValue), p.name,
                         cut_short(d.second, kLongestValue));
  }
  return "";
}

ConfigDifference weights_difference(const std::vector<PointResult>& a, const std::vector<PointResult>& b) {
  const auto name = [](const PointResult& p) { return p.provenance.weights.empty() ? "none" : p.provenance.weights; };
  for (const PointResult& x : a) {
    const auto y =
        std::find_if(b.begin(), b.end(), [&](const PointResult& p) { return p.width == x.width && p.seed == x.seed; });
    if (y != b.end() && y->provenance.weights_sha256 != x.provenance.weights_sha256)
      return {"weights", name(x), name(*y)};
  }
  const Provenance &first_a = a.front().provenance, &first_b = b.front().provenance;
  if (first_a.weights_sha256.empty() == first_b.weights_sha256.empty()) return {};
  return {"weights", name(a.front()), name(b.front())};
}

std::vector<std::string> versions_of(const std::vector<PointResult>& points) {
  std::set<std::string> versions;
  for (const PointResult& p : points) {
    static constexpr std::string_view kThen = ", then ";  // several processes worked on it
    std::string_view left = p.provenance.version;
    for (size_t end = 0; (end = left.find(kThen)) != left.npos; left.remove_prefix(end + kThen.size()))
      versions.emplace(left.substr(0, end));
    versions.emplace(left);
  }
  return {versions.begin(), versions.end()};
}

std::string arithmetic_sentence(const std::string& config) {
  TrainArguments arguments;
  const NetworkOptions& o = arguments.options.network;
  PerChannelBy form = PerChannelBy::kFold;
  try {
    arguments.read_text(config, "");
    arguments.resolve();
    for (const QuantizerSpec& q : build_resnet(o).quantizers)  // 8-bit and signed inputs always fold
      if (q.by != PerChannelBy::kFold) form = q.by;
  } catch (const UsageError&) {
    return "";
  }
  const std::string steps = o.scheme == QuantScheme::kPaper
                                ? ""
                                : " Codes of activations are rounded to the nearest of 2^b - 1 steps (quant-scheme "
                                  "nearest); the published ones are floored in 2^b.";
  if (o.granularity == Granularity::kPerTensor)
    return fmt::format(
               "Quantized models multiply {} with one scale of activations per layer; the published ones have one per "
               "channel.",
               o.mode == QuantMode::kFake ? "dequantized values" : "integers") +
           steps;
  if (o.mode == QuantMode::kFake)
    return "Quantized models multiply dequantized values, as the published ones do (quant-mode fake)." + steps;
  const std::string published =
      " The published models multiply dequantized values, so their weights and steps are what they would be without "
      "it." +
      steps;
  const std::string folded = "divides the weights before they are quantized, so a row of them covers a wider range";
  switch (form) {
    case PerChannelBy::kFold:
      return "Quantized models multiply integers: the scale of an input channel " + folded + " (per-channel-by fold)." +
             published;
    case PerChannelBy::kShift:
      return "Quantized models multiply integers: the steps of 4-bit input channels differ by powers of two alone "
             "(per-channel-by shift); the scale of an 8-bit one " +
             folded + "." + published;
    case PerChannelBy::kShiftFold:
      return "Quantized models multiply integers: the steps of 4-bit input channels differ by powers of two, and what "
             "is left of their scale " +
             folded + ", as does the whole scale of an 8-bit one (per-channel-by shift+fold)." + published;
  }
  return "";
}

}  // namespace nibble::apps
