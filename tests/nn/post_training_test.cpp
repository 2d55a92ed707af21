// Bounds and running statistics without training: against a training step that learns nothing, and batch by batch.
#include "nn/post_training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "nn/first_layer_input.hpp"
#include "nn/trainer.hpp"
#include "tests/nn/one_shard.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::random_images;
using testing::random_model;
using testing::same_bytes;
using testing::small_options;

void run_pass(Model& model, NormSource norms, const std::vector<Tensor>& batches) {
  PostTrainingPass pass(model, norms);
  for (const Tensor& batch : batches) pass.add(batch);
  pass.finish();
}

/// What a pass makes of a copy of the model.
std::vector<Calibration> calibration_of(const Model& like, NormSource norms, const std::vector<Tensor>& batches) {
  Model model = like.clone();
  run_pass(model, norms, batches);
  return model.calibration;
}

void set_statistics(Model& model, size_t u, const NormStatistics& s) {
  for (size_t c = 0; c < s.mean.size(); ++c) {
    model.units[u].running_mean.data<float>()[c] = s.mean[c];
    model.units[u].running_variance.data<float>()[c] = s.variance[c];
  }
}

TEST_CASE("post-training: with norms of the images bounds and statistics are those of a step that learns nothing") {
  for (const char* precision : {"w4a4-fl8", "w8a8"}) {
    CAPTURE(precision);
    Model model = random_model(small_options(precision));
    for (UnitParameters& p : model.units)  // the step moves them a tenth of the way to its own, from here
      for (const Tensor* t : {&p.running_mean, &p.running_variance})
        if (t->defined()) std::fill_n(t->data<float>(), t->size(), 0.0f);
    const Tensor images = random_images(16, 32);
    TrainerOptions options;
    options.shard = 8;
    options.calibrate_step = 1;
    options.schedule.peak = 0;
    options.schedule.total_steps = 1;
    Trainer trainer(model.clone(), options);
    trainer.step(images, std::vector<int32_t>(16, 1));

    run_pass(model, NormSource::kImages, {copy_images(images, 0, 8), copy_images(images, 8, 8)});
    for (size_t q = 0; q < model.calibration.size(); ++q) {
      CAPTURE(model.network.quantizers[q].name);
      CHECK(model.calibration[q].bound == trainer.model().calibration[q].bound);
    }
    CHECK(model.quantizers.size() == model.network.quantizers.size());
    for (size_t u = 0; u < model.units.size(); ++u) {
      if (!model.units[u].running_mean.defined()) continue;
      CAPTURE(model.network.units[u].name);
      const UnitParameters &here = model.units[u], &step = trainer.model().units[u];
      for (int64_t c = 0; c < here.running_mean.size(); ++c) {
        const auto close = [&](const Tensor& a, const Tensor& b) {
          const float x = a.data<float>()[c], y = 10 * b.data<float>()[c];
          return std::fabs(x - y) <= 1e-5f * std::fabs(x) + 1e-7f;
        };
        CHECK(close(here.running_mean, step.running_mean));
        CHECK(close(here.running_variance, step.running_variance));
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
  const std::vector<Calibration> by_model = calibration_of(model, NormSource::kModel, {images});
  const std::vector<Calibration> by_images = calibration_of(model, NormSource::kImages, {images});
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
  const Model model = random_model(small_options("w4a4-fl8"));
  const Tensor images = random_images(8, 32);
  std::vector<std::vector<Calibration>> alone;
  for (int64_t i = 0; i < 8; ++i)
    alone.push_back(calibration_of(model, NormSource::kModel, {copy_images(images, i, 1)}));
  const auto largest = [&](size_t q, size_t c, size_t first, size_t last) {
    float most = 0;  // a weight of 0: it has never fired
    for (size_t i = first; i < last; ++i)
      if (alone[i][q].weight[c] > 0) most = std::max(most, alone[i][q].bound[c]);
    return most;
  };
  const std::vector<Calibration> both =
      calibration_of(model, NormSource::kModel, {copy_images(images, 0, 5), copy_images(images, 5, 3)});
  int compared = 0, of_one = 0;
  for (size_t q = 0; q < both.size(); ++q) {
    CAPTURE(model.network.quantizers[q].name);
    for (size_t c = 0; c < both[q].bound.size(); ++c) {
      const float a = largest(q, c, 0, 5), b = largest(q, c, 5, 8);
      CHECK((both[q].weight[c] > 0) == (a > 0 || b > 0));
      if (both[q].weight[c] <= 0) continue;
      const float expected = a > 0 && b > 0 ? (a + b) / 2 : a + b;
      CHECK(both[q].bound[c] == doctest::Approx(expected).epsilon(1e-6));
      ++compared;
      of_one += a > 0 && b > 0 ? 0 : 1;
    }
  }
  CHECK(compared > 500);
  CHECK(of_one > 0);
}

TEST_CASE("post-training: a calibrated model keeps its bounds, and its norms become those of its codes") {
  Model model = calibrated_model(small_options("w4a4-fl8"));
  const Tensor images = random_images(8, 32);
  const testing::Shard shard = testing::forward_and_backward(model, images);
  const std::vector<Calibration> before = model.calibration;
  const std::vector<UnitParameters> units = model.clone().units;
  run_pass(model, NormSource::kModel, {images});  // nothing to find out
  for (size_t u = 0; u < units.size(); ++u)
    if (units[u].running_mean.defined()) CHECK(same_bytes(units[u].running_mean, model.units[u].running_mean));
  run_pass(model, NormSource::kImages, {images});
  for (size_t q = 0; q < before.size(); ++q) CHECK(model.calibration[q].bound == before[q].bound);
  for (size_t u = 0; u < units.size(); ++u) {
    if (!units[u].running_mean.defined()) continue;
    CAPTURE(model.network.units[u].name);
    const NormStatistics& s = shard.statistics.norms[u];
    CHECK(std::equal(s.mean.begin(), s.mean.end(), model.units[u].running_mean.data<float>()));
    CHECK(std::equal(s.variance.begin(), s.variance.end(), model.units[u].running_variance.data<float>()));
    CHECK(same_bytes(units[u].weights, model.units[u].weights));
  }
}

TEST_CASE("post-training: what cannot be used is refused, and the model stays as it was") {
  const Tensor images = random_images(4, 32);
  for (const NormSource norms : {NormSource::kModel, NormSource::kImages}) {
    CAPTURE(static_cast<int>(norms));
    Model model = random_model(small_options("w4a4-fl8"));
    PostTrainingPass none(model, norms);
    CHECK_THROWS_AS(none.finish(), UsageError);
    CHECK_THROWS_AS(none.add(random_images(4, 33)), ShapeError);
    CHECK_THROWS_AS(none.add(Tensor(DType::u8, {0, 32, 32, 3})), ShapeError);

    Model dead = random_model(small_options("w4a4-fl8"));
    const int u = dead.network.unit_index("layer2.1.conv1");
    UnitParameters& p = dead.units[static_cast<size_t>(u)];
    std::fill_n(p.gamma.data<float>(), p.gamma.size(), 0.0f);
    std::fill_n(p.beta.data<float>(), p.beta.size(), -1.0f);
    CHECK_THROWS_WITH_AS(run_pass(dead, norms, {images}), doctest::Contains("layer2.1.conv2.input has no activation"),
                         DivergedError);
    CHECK(dead.calibration_pending());
    CHECK(std::all_of(dead.calibration.begin(), dead.calibration.end(),
                      [](const Calibration& c) { return c.bound.empty(); }));

    Model broken = random_model(small_options("w4a4-fl8"));
    UnitParameters& wide = broken.units[static_cast<size_t>(broken.network.unit_index("layer1.1.conv2"))];
    wide.gamma.data<float>()[1] = std::numeric_limits<float>::max();
    wide.beta.data<float>()[1] = std::numeric_limits<float>::max();
    CHECK_THROWS_WITH_AS(run_pass(broken, norms, {images}), doctest::Contains("is not finite for these images"),
                         DivergedError);
  }
}

}  // namespace
}  // namespace nibble
