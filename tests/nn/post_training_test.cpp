// Bounds and running statistics without training: against a training step that learns nothing, and batch by batch.
#include "nn/post_training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "nn/evaluate_modules.hpp"
#include "nn/first_layer_input.hpp"
#include "nn/trainer.hpp"
#include "tests/host_float_mode.hpp"
#include "tests/nn/one_shard.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::random_images;
using testing::random_model;
using testing::RestoreExecution;
using testing::same_bytes;
using testing::small_options;

/// Over batches that lie in memory.
Model quantized(const Model& trained, NormSource norms, const std::vector<Tensor>& batches) {
  return quantize_after_training(trained, norms, [&](const UseBatch& use) {
    for (const Tensor& batch : batches) use(batch);
  });
}

std::vector<Tensor> cut(const Tensor& images, const std::vector<int64_t>& sizes) {
  std::vector<Tensor> batches;
  int64_t first = 0;
  for (const int64_t n : sizes) {
    batches.push_back(copy_images(images, first, n));
    first += n;
  }
  return batches;
}

void set_statistics(Model& model, size_t u, const NormStatistics& s) {
  for (size_t c = 0; c < s.mean.size(); ++c) {
    model.units[u].running_mean.data<float>()[c] = s.mean[c];
    model.units[u].running_variance.data<float>()[c] = s.variance[c];
  }
}

TEST_CASE("post-training: with norms of the images bounds are those of a training step that learns nothing") {
  std::vector<NetworkOptions> all = {small_options("w4a4-fl8"), small_options("w8a8"), small_options("w4a4"),
                                     small_options("w4a4-fl8")};
  all[1].per_channel_by = PerChannelBy::kShiftFold;
  all[1].same_padding = all[1].signed_block_input = all[1].bf16_weights = true;
  all[2].granularity = Granularity::kPerTensor;
  all[3].overrides = {{"layer1.1.conv2", {}}, {"layer3.0.conv1", {.weight_bits = 8, .activation_bits = 8}}};
  for (const NetworkOptions& network : all) {
    CAPTURE(network.precision);
    const Model model = random_model(network);
    const Tensor images = random_images(16, 32);
    TrainerOptions options;
    options.shard = 8;
    options.calibrate_step = 1;
    options.schedule.peak = 0;
    options.schedule.total_steps = 1;
    Trainer trainer(model.clone(), options);
    trainer.step(images, std::vector<int32_t>(16, 1));

    const Model made = quantized(model, NormSource::kImages, cut(images, {8, 8}));
    REQUIRE(made.calibration.size() == trainer.model().calibration.size());
    for (size_t q = 0; q < made.calibration.size(); ++q) {
      CAPTURE(made.network.quantizers[q].name);
      CHECK(made.calibration[q].bound == trainer.model().calibration[q].bound);
    }
    CHECK(made.quantizers.size() == made.network.quantizers.size());
    CHECK(model.calibration_pending());  // the given one stays as it was
  }
}

TEST_CASE("post-training: norms of the images are those of the quantized network, by images, and no others change") {
  for (const char* precision : {"w4a4-fl8", "bf16"}) {
    CAPTURE(precision);
    const Model model = random_model(small_options(precision));
    const std::vector<UnitParameters> before = model.clone().units;
    const Tensor images = random_images(12, 32);
    const std::vector<Tensor> batches = cut(images, {8, 4});
    const Model made = quantized(model, NormSource::kImages, batches);
    CHECK(made.calibrated() == (std::string(precision) != "bf16"));
    const testing::Shard first = testing::forward_and_backward(made, batches[0]);
    const testing::Shard second = testing::forward_and_backward(made, batches[1]);
    for (size_t u = 0; u < made.units.size(); ++u) {
      const UnitParameters& p = made.units[u];
      for (const auto field :
           {&UnitParameters::weights, &UnitParameters::gamma, &UnitParameters::beta, &UnitParameters::bias})
        if ((p.*field).defined()) CHECK(same_bytes(p.*field, before[u].*field));
      if (!p.running_mean.defined()) continue;
      CAPTURE(made.network.units[u].name);
      CHECK(same_bytes(model.units[u].running_mean, before[u].running_mean));
      CHECK(same_bytes(model.units[u].running_variance, before[u].running_variance));
      const NormStatistics &a = first.statistics.norms[u], &b = second.statistics.norms[u];
      for (size_t c = 0; c < a.mean.size(); ++c) {
        CHECK(p.running_mean.data<float>()[c] == doctest::Approx((2 * a.mean[c] + b.mean[c]) / 3).epsilon(1e-5));
        CHECK(p.running_variance.data<float>()[c] ==
              doctest::Approx((2 * a.variance[c] + b.variance[c]) / 3).epsilon(1e-5));
      }
    }
  }
}

TEST_CASE("post-training: with norms of the model that has the batch's statistics, bounds are those of the batch") {
  NetworkOptions options = small_options("w8a8");
  options.image_size = 64;  // 24 values for each norm of the last stage: with fewer, rounding moves them too far
  options.overrides = {{"layer2.0.conv1", {.weight_bits = 4, .activation_bits = 4}}};  // a value with two quantizers
  Model model = random_model(options);
  const Tensor images = random_images(6, 64);
  const testing::Shard shard = testing::forward_and_backward(model, images);
  for (size_t u = 0; u < model.units.size(); ++u) set_statistics(model, u, shard.statistics.norms[u]);
  const std::vector<Calibration> by_model = quantized(model, NormSource::kModel, {images}).calibration;
  const std::vector<Calibration> by_images = quantized(model, NormSource::kImages, {images}).calibration;
  REQUIRE(by_model.size() == by_images.size());
  for (size_t q = 0; q < by_model.size(); ++q) {
    CAPTURE(model.network.quantizers[q].name);
    const std::vector<float>&a = by_model[q].bound, &b = by_images[q].bound;
    // Training rounds a convolution's output to bf16 before its norm, an evaluation after it, and the differences grow
    // with depth, to 6 % of the bounds.
    double apart = 0, sum = 0;
    for (size_t c = 0; c < a.size(); ++c) {
      apart += std::fabs(static_cast<double>(a[c] - b[c]));
      sum += static_cast<double>(b[c]);
    }
    CHECK(apart <= 0.1 * sum);
  }
  CHECK(by_model.front().bound == by_images.front().bound);  // the image's own, exactly
}

TEST_CASE("post-training: a bound is the mean over batches of the largest value of their images, where any fires") {
  const RestoreExecution restore;
  const Model model = random_model(small_options("w4a4-fl8"));
  const Network& net = model.network;
  const StepWeights weights = prepare_weights(model, Passes::kForward);
  const std::vector<Tensor> batches = cut(random_images(8, 32), {5, 3});
  // By quantizer, batch and channel, from what the modules pass on of a whole batch. fc's average is left to the test
  // above.
  std::vector<std::vector<std::vector<double>>> largest(net.quantizers.size());
  for (const Tensor& batch : batches)
    evaluate_modules(model, weights, batch, [&](size_t u, const Tensor&, const Tensor& output) {
      for (const int q : quantizers_of(net, static_cast<int>(u) + 1)) {
        std::vector<double> most(static_cast<size_t>(output.shape().back()));
        for (int64_t r = 0; r < output.rows(); ++r)
          for (size_t c = 0; c < most.size(); ++c)
            most[c] = std::max(most[c], static_cast<double>(to_float(output.row<bf16>(r)[c])));
        largest[static_cast<size_t>(q)].push_back(most);
      }
    });
  for (const int n : {1, 2, 3}) {
    CAPTURE(n);
    set_threads(n);
    const std::vector<Calibration> made = quantized(model, NormSource::kModel, batches).calibration;
    int compared = 0, of_one = 0;
    for (size_t q = 1; q + 1 < made.size(); ++q) {
      CAPTURE(net.quantizers[q].name);
      REQUIRE(largest[q].size() == 2);
      for (size_t c = 0; c < made[q].bound.size(); ++c) {
        const double a = largest[q][0][c], b = largest[q][1][c];
        CHECK((made[q].weight[c] > 0) == (a > 0 || b > 0));
        if (made[q].weight[c] <= 0) continue;
        const double expected = a > 0 && b > 0 ? (a + b) / 2 : a + b;
        CHECK(static_cast<double>(made[q].bound[c]) == doctest::Approx(expected).epsilon(1e-6));
        ++compared;
        of_one += a > 0 && b > 0 ? 0 : 1;
      }
    }
    CHECK(compared > 500);
    CHECK(of_one > 0);
  }
}

#if defined(__x86_64__)
TEST_CASE("post-training: a host that rounds up and keeps denormals gets the same bounds and statistics") {
  const Model model = random_model(small_options("w4a4-fl8"));
  const std::vector<Tensor> batches = cut(random_images(9, 32), {5, 4});
  for (const NormSource norms : {NormSource::kModel, NormSource::kImages}) {
    const Model expected = quantized(model, norms, batches);
    const testing::HostFloatMode mode;
    const Model made = quantized(model, norms, batches);
    CHECK(testing::HostFloatMode::in_force());
    for (size_t q = 0; q < made.calibration.size(); ++q)
      CHECK(made.calibration[q].bound == expected.calibration[q].bound);
    for (size_t u = 0; u < made.units.size(); ++u) {
      if (!made.units[u].running_mean.defined()) continue;
      CHECK(same_bytes(made.units[u].running_mean, expected.units[u].running_mean));
      CHECK(same_bytes(made.units[u].running_variance, expected.units[u].running_variance));
    }
  }
}
#endif

TEST_CASE(
    "post-training: a calibrated model keeps its bounds, and images are asked for only where they tell something") {
  const Model model = calibrated_model(small_options("w4a4-fl8"));
  const Tensor images = random_images(8, 32);
  const Model made = quantized(model, NormSource::kImages, {images});
  for (size_t q = 0; q < model.calibration.size(); ++q) CHECK(made.calibration[q].bound == model.calibration[q].bound);
  const testing::Shard shard = testing::forward_and_backward(model, images);
  const NormStatistics& stem = shard.statistics.norms.front();
  CHECK(std::equal(stem.mean.begin(), stem.mean.end(), made.units.front().running_mean.data<float>()));
  const EachBatch none = [](const UseBatch&) { FAIL("nothing is to be found out"); };
  CHECK(quantize_after_training(model, NormSource::kModel, none).calibrated());
  CHECK_FALSE(quantize_after_training(random_model(small_options("bf16")), NormSource::kModel, none).calibrated());
}

TEST_CASE("post-training: what a training has gathered before its calibration does not count") {
  Model model = random_model(small_options("w8a8"));
  const Tensor images = random_images(4, 32);
  const std::vector<Calibration> expected = quantized(model, NormSource::kModel, {images}).calibration;
  for (Calibration& c : model.calibration) {
    std::fill(c.mean_of_max.begin(), c.mean_of_max.end(), 50.0f);
    std::fill(c.weight.begin(), c.weight.end(), 0.9f);
  }
  const std::vector<Calibration> made = quantized(model, NormSource::kModel, {images}).calibration;
  for (size_t q = 0; q < made.size(); ++q) CHECK(made[q].bound == expected[q].bound);
}

TEST_CASE("post-training: what cannot be used is refused") {
  const Tensor images = random_images(4, 32);
  for (const NormSource norms : {NormSource::kModel, NormSource::kImages}) {
    CAPTURE(static_cast<int>(norms));
    const Model model = random_model(small_options("w4a4-fl8"));
    CHECK_THROWS_AS(quantized(model, norms, {}), UsageError);
    CHECK_THROWS_AS(quantized(model, norms, {random_images(4, 33)}), ShapeError);
    CHECK_THROWS_AS(quantized(model, norms, {Tensor(DType::u8, {0, 32, 32, 3})}), ShapeError);

    Model dead = random_model(small_options("w4a4-fl8"));
    UnitParameters& p = dead.units[static_cast<size_t>(dead.network.unit_index("layer2.1.conv1"))];
    std::fill_n(p.gamma.data<float>(), p.gamma.size(), 0.0f);
    std::fill_n(p.beta.data<float>(), p.beta.size(), -1.0f);
    CHECK_THROWS_WITH_AS(quantized(dead, norms, {images}), doctest::Contains("layer2.1.conv2.input has no activation"),
                         DivergedError);

    // An output beyond f32: of a layer inside, seen by the next one at the latest, and of the last block.
    for (const std::string layer : {"layer1.1.conv2", "layer4.1.conv3"}) {
      CAPTURE(layer);
      Model broken = random_model(small_options("w4a4-fl8"));
      UnitParameters& wide = broken.units[static_cast<size_t>(broken.network.unit_index(layer))];
      wide.gamma.data<float>()[1] = std::numeric_limits<float>::max();
      wide.beta.data<float>()[1] = std::numeric_limits<float>::max();
      CHECK_THROWS_WITH_AS(quantized(broken, norms, {images}), doctest::Contains("is not finite for these images"),
                           DivergedError);
    }
  }
  const Model model = random_model(small_options("w4a4-fl8"));
  CHECK_THROWS_WITH_AS(quantized(model, NormSource::kImages, cut(images, {3, 1})),
                       doctest::Contains("leaves batch norm one value a channel after layer4.0"), UsageError);
  CHECK(quantized(model, NormSource::kModel, cut(images, {3, 1})).calibrated());
}

}  // namespace
}  // namespace nibble
