// The layers of a trained model, as the reports show them.
#include "nn/study/point_layers.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>

#include "nn/activation_usage.hpp"
#include "tests/nn/small_model.hpp"

namespace {

using namespace nibble;

Model calibrated_model(const std::string& precision) {
  Model model = testing::random_model(testing::small_options(precision));
  for (size_t q = 0; q < model.network.quantizers.size(); ++q) {
    std::vector<float>& bound = model.calibration[q].bound;
    for (int64_t c = 0; c < model.network.quantizers[q].channels; ++c) bound.push_back(static_cast<float>(1 + c));
  }
  rebuild_quantizers(model);
  return model;
}

}  // namespace

TEST_CASE("a model's layers have the cost of the model, layer by layer") {
  const Model model = testing::random_model(testing::small_options("w4a4-fl8"));
  const std::vector<PointLayer> layers = point_layers(model);
  const Cost cost = cost_of(model.network);
  REQUIRE(layers.size() == cost.layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    CHECK(static_cast<const LayerCost&>(layers[i]) == cost.layers[i]);
    CHECK(layers[i].bound_max == 0);
    CHECK(layers[i].usage.codes.empty());
  }
}

TEST_CASE("a calibrated model's layers have their quantizer's bounds, and the usage once it was counted") {
  Model model = calibrated_model("w4a4-fl8");
  const auto check_bounds = [&](const std::vector<PointLayer>& layers) {
    for (size_t u = 0; u < layers.size(); ++u) {
      const auto q = static_cast<size_t>(model.network.units[u].quantizer);
      const auto channels = static_cast<double>(model.network.quantizers[q].channels);
      CHECK(layers[u].bound_min == 1);
      CHECK(layers[u].bound_median == std::floor(channels / 2) + 1);
      CHECK(layers[u].bound_max == channels);
    }
  };
  check_bounds(point_layers(model));
  CHECK(point_layers(model)[1].usage.codes.empty());
  model.usage = measure_usage(model, testing::random_images(2, 32));
  const std::vector<PointLayer> layers = point_layers(model);
  check_bounds(layers);
  CHECK(layers[1].usage.codes.size() == 16);
  CHECK(layers[1].usage.total > 0);
  CHECK(layers.back().usage.codes.size() == 256);
}

TEST_CASE("the layers of a point that do not have its precision's bits are named, and of no other") {
  const auto point = [](const std::string& precision, const std::vector<PrecisionOverride>& overrides) {
    NetworkOptions options = testing::small_options(precision);
    options.overrides = overrides;
    PointResult p;
    p.arch = options.arch;
    p.precision = precision;
    for (const LayerCost& l : cost_of(build_resnet(options)).layers) p.layers.push_back({l, 0, 0, 0, {}});
    return p;
  };
  const std::vector<PrecisionOverride> eight = {{"layer2.0.conv2", {8, 8}}, {"fc", {8, 8}}};
  for (const char* precision : {"bf16", "w8a8", "w4a4", "w4a4-fl8"}) CHECK(overrides_of(point(precision, {})).empty());
  CHECK(overrides_of(point("bf16", eight)) == eight);
  CHECK(overrides_of(point("w4a4", eight)) == eight);
  CHECK(overrides_of(point("w4a4-fl8", eight)) == std::vector<PrecisionOverride>{eight[0]});  // fc has them anyway
  CHECK(overrides_of(point("w8a8", eight)).empty());
  const std::vector<PrecisionOverride> none = {{"conv1", {16, 16}}};
  CHECK(overrides_of(point("w4a4-fl8", none)) == none);
  // From a file: a layer twice, layers and names that no network has.
  PointResult p = point("bf16", eight);
  p.layers.insert(p.layers.end(), p.layers.begin(), p.layers.end());
  p.layers[1].name = "<b>";
  p.layers[1].weight_bits = 3;
  CHECK(overrides_of(p) == eight);
  for (std::string* text : {&p.arch, &p.precision}) {
    const std::string known = std::exchange(*text, "other");
    CHECK(overrides_of(p).empty());
    *text = known;
  }
  p.layers.clear();
  CHECK(overrides_of(p).empty());
}

TEST_CASE("a bf16 model's layers have neither bounds nor codes") {
  const std::vector<PointLayer> layers = point_layers(testing::random_model(testing::small_options("bf16")));
  CHECK(std::all_of(layers.begin(), layers.end(),
                    [](const PointLayer& l) { return l.bound_max == 0 && l.usage.codes.empty(); }));
}
