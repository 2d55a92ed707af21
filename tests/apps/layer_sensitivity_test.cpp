// Which layers quantizing costs most, against the same quantization done by hand.
#include "apps/layer_sensitivity.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "engine/error.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/served_file.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble::apps {
namespace {

using testing::random_images;
using testing::random_model;
using testing::small_options;

/// Decibels of the quantized model's logits against the exact ones, image by image about their means.
double decibels_by_hand(const Model& exact, const Model& quantized, const std::vector<Tensor>& batches) {
  Executor a(make_served(exact)), b(make_served(quantized));
  double power = 0, error = 0;
  for (const Tensor& batch : batches) {
    const Tensor x = a.run(batch), y = b.run(batch);
    for (int64_t i = 0; i < x.dim(0); ++i) {
      double mean_x = 0, mean_y = 0;
      for (int64_t k = 0; k < 5; ++k) mean_x += static_cast<double>(x.row<float>(i)[k]) / 5;
      for (int64_t k = 0; k < 5; ++k) mean_y += static_cast<double>(y.row<float>(i)[k]) / 5;
      for (int64_t k = 0; k < 5; ++k) {
        const double p = static_cast<double>(x.row<float>(i)[k]) - mean_x,
                     q = static_cast<double>(y.row<float>(i)[k]) - mean_y;
        power += p * p;
        error += (p - q) * (p - q);
      }
    }
  }
  return 10 * std::log10(power / error);
}

void check_sensitivity(const Model& trained, NormSource norms, const std::vector<Tensor>& batches) {
  const NetworkOptions& options = trained.network.options;
  std::vector<int64_t> told;
  const Sensitivity found = measure_sensitivity({.trained = trained,
                                                 .finer = {8, 8},
                                                 .norms = norms,
                                                 .batches = batches,
                                                 .progress = [&](int64_t done, int64_t total) {
                                                   CHECK(total == 29);
                                                   told.push_back(done);
                                                 }});
  CHECK(told.size() == 29);
  REQUIRE(found.layers.size() == 28);  // of 30, without the two that are not coarser
  const auto quantized = [&](const NetworkOptions& o) {
    Model model = make_model(build_resnet(o), {});
    model.units = trained.units;
    return quantize_after_training(model, norms, [&](const UseBatch& use) {
      for (const Tensor& batch : batches) use(batch);
    });
  };
  NetworkOptions plain = options;
  plain.precision = "bf16";
  plain.overrides.clear();
  const Model exact = quantized(plain);
  const auto expected = [&](const NetworkOptions& o) { return decibels_by_hand(exact, quantized(o), batches); };
  CHECK(found.decibels == doctest::Approx(expected(options)).epsilon(1e-9));
  for (const size_t k : {size_t{0}, size_t{9}, found.layers.size() - 1}) {
    const LayerSensitivity& layer = found.layers[k];
    CAPTURE(layer.layer);
    CHECK(layer.layer != "layer2.0.conv2");
    CHECK(layer.layer != "layer3.0.conv1");
    NetworkOptions raised = options;
    raised.overrides.push_back({layer.layer, {8, 8}});
    CHECK(layer.decibels == doctest::Approx(expected(raised)).epsilon(1e-9));
    const Network before = build_resnet(options), after = build_resnet(raised);
    const size_t u = static_cast<size_t>(before.unit_index(layer.layer));
    CHECK(layer.weight_bytes == static_cast<int64_t>(served_weight_bytes(after.units[u])) -
                                    static_cast<int64_t>(served_weight_bytes(before.units[u])));
  }
}

TEST_CASE("sensitivity: each layer's figure is that of the network with this layer alone in the finer precision") {
  NetworkOptions options = small_options("w4a4", 0.1);
  options.scheme = QuantScheme::kNearest;
  options.overrides = {{"layer2.0.conv2", {8, 8}}, {"layer3.0.conv1", {16, 16}}};
  const Model trained = random_model(options);
  const std::vector<Tensor> batches = {random_images(4, 32, 1), random_images(4, 32, 2)};
  for (const NormSource norms : {NormSource::kModel, NormSource::kImages}) check_sensitivity(trained, norms, batches);
  CHECK_THROWS_AS(measure_sensitivity({.trained = trained, .finer = {4, 4}, .batches = batches}), UsageError);
}

}  // namespace
}  // namespace nibble::apps
