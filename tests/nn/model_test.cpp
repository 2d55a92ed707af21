// Fresh parameters and the calibration of activation bounds.
#include "nn/model.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::same_bytes;
using testing::small_options;

TEST_CASE("model: kernels start LeCun normal, truncated at two standard deviations, variance 1/fan_in") {
  const Model model = make_model(build_resnet(small_options("w4a4-fl8", 1.0)), {.seed = 3, .zero_last_gamma = true});
  for (const char* name : {"conv1", "layer1.0.conv2", "layer4.0.conv2", "layer4.1.conv3", "layer3.0.downsample.0"}) {
    CAPTURE(name);
    const size_t u = static_cast<size_t>(model.network.unit_index(name));
    const Tensor& w = model.units[u].weights;
    const double n = static_cast<double>(w.size()), fan_in = static_cast<double>(model.network.units[u].shape.k());
    double sum = 0, square = 0, largest = 0;
    int64_t beyond = 0;  // outside one standard deviation of the normal before truncation
    const double deviation = 1 / std::sqrt(fan_in) / 0.87962566;
    for (int64_t i = 0; i < w.size(); ++i) {
      const double v = static_cast<double>(w.data<float>()[i]);
      sum += v;
      square += v * v;
      largest = std::max(largest, std::fabs(v));
      beyond += std::fabs(v) > deviation;
    }
    // Five standard errors of each estimate.
    CHECK(std::fabs(sum / n) < 5 / std::sqrt(fan_in * n));
    CHECK(std::fabs(square / n * fan_in - 1) < 5 * 1.1 / std::sqrt(n));
    CHECK(largest <= 2 * deviation * 1.000001);
    CHECK(largest > 1.9 * deviation);
    const double share = static_cast<double>(beyond) / n, expected = 1 - 0.682689492 / 0.954499736;
    CHECK(std::fabs(share - expected) < 5 * std::sqrt(expected * (1 - expected) / n));
  }
}

TEST_CASE(
    "model: norms start at gamma 1, beta 0, mean 0, variance 1, the last of each block at gamma 0, fc's bias at 0") {
  for (bool zero : {true, false}) {
    const Model model = make_model(build_resnet(small_options("bf16")), {.seed = 3, .zero_last_gamma = zero});
    for (size_t u = 0; u < model.units.size(); ++u) {
      const UnitParameters& p = model.units[u];
      const std::string& name = model.network.units[u].name;
      CAPTURE(name);
      const auto all = [](const Tensor& t, float v) {
        for (int64_t i = 0; i < t.size(); ++i)
          if (t.data<float>()[i] != v) return false;
        return true;
      };
      if (name == "fc") {
        CHECK(all(p.bias, 0.0f));
        CHECK_FALSE(p.gamma.defined());
        continue;
      }
      CHECK(all(p.gamma, zero && name.ends_with("conv3") ? 0.0f : 1.0f));
      CHECK(all(p.beta, 0.0f));
      CHECK(all(p.running_mean, 0.0f));
      CHECK(all(p.running_variance, 1.0f));
      CHECK_FALSE(p.bias.defined());
    }
  }
}

TEST_CASE("model: parameters are a function of the seed; layers of equal shape and other seeds differ") {
  const Network net = build_resnet(small_options("bf16"));
  const Model a = make_model(net, {.seed = 3, .zero_last_gamma = true}),
              b = make_model(net, {.seed = 3, .zero_last_gamma = true});
  const Model c = make_model(net, {.seed = 4, .zero_last_gamma = true});
  for (size_t u = 0; u < a.units.size(); ++u) {
    CHECK(same_bytes(a.units[u].weights, b.units[u].weights));
    CHECK_FALSE(same_bytes(a.units[u].weights, c.units[u].weights));
  }
  const Tensor &x = a.units[static_cast<size_t>(net.unit_index("layer4.0.conv3"))].weights,
               &y = a.units[static_cast<size_t>(net.unit_index("layer4.1.conv3"))].weights;
  REQUIRE(x.shape() == y.shape());
  CHECK_FALSE(same_bytes(x, y));
}

Calibration fresh(size_t channels) {
  Calibration c;
  c.mean_of_max.assign(channels, 0.0f);
  c.weight.assign(channels, 0.0f);
  return c;
}

TEST_CASE("calibration: the moving average of shard means follows its closed form, free of the zero start") {
  Calibration c = fresh(1);
  double average = 0, weight = 0;
  for (int step = 0; step < 30; ++step) {
    const float a = 1.0f + 0.1f * static_cast<float>(step % 7), b = 3.0f - 0.05f * static_cast<float>(step);
    update_calibration(c, Granularity::kPerChannel, {{a}, {b}});
    average = 0.9 * average + 0.1 * (static_cast<double>(a) + static_cast<double>(b)) / 2;
    weight = 0.9 * weight + 0.1;
    CHECK(static_cast<double>(c.mean_of_max[0]) == doctest::Approx(average).epsilon(1e-5));
    CHECK(static_cast<double>(c.weight[0]) == doctest::Approx(weight).epsilon(1e-5));
  }
  // One update already gives the bound itself.
  Calibration once = fresh(1);
  update_calibration(once, Granularity::kPerChannel, {{2.5f}});
  CHECK(once.mean_of_max[0] / once.weight[0] == doctest::Approx(2.5));
}

TEST_CASE("calibration: shards where a channel never fired, or is not finite, do not count") {
  Calibration c = fresh(3);
  const float inf = std::numeric_limits<float>::infinity();
  update_calibration(c, Granularity::kPerChannel, {{4.0f, 0.0f, inf}, {0.0f, 0.0f, 2.0f}, {2.0f, 0.0f, std::nanf("")}});
  CHECK(c.mean_of_max[0] == doctest::Approx(0.1 * 3));
  CHECK(c.mean_of_max[1] == 0.0f);
  CHECK(c.weight[1] == 0.0f);
  CHECK(c.mean_of_max[2] == doctest::Approx(0.1 * 2));
  CHECK(c.weight[0] == doctest::Approx(0.1));
  update_calibration(c, Granularity::kPerChannel, {{0.0f, 1.0f, 0.0f}, {0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f}});
  CHECK(c.mean_of_max[0] == doctest::Approx(0.1 * 3));  // left alone
  CHECK(c.weight[0] == doctest::Approx(0.1));
  CHECK(c.mean_of_max[1] / c.weight[1] == doctest::Approx(1.0));
}

TEST_CASE("calibration: per tensor a shard counts with its largest channel, whichever that is") {
  Calibration c = fresh(2);
  update_calibration(c, Granularity::kPerTensor, {{4.0f, 1.0f}, {1.0f, 2.0f}, {0.0f, 0.0f}});
  for (const size_t i : {0u, 1u}) CHECK(c.mean_of_max[i] / c.weight[i] == doctest::Approx(3.0));  // not 2.5 and 1.5
}

Model collected(const NetworkOptions& options) {
  Model model = make_model(build_resnet(options), {});
  for (Calibration& c : model.calibration) {
    std::vector<float> m(c.weight.size());
    for (size_t i = 0; i < m.size(); ++i) m[i] = 0.5f + static_cast<float>(i % 5);
    update_calibration(c, Granularity::kPerChannel, {m});
  }
  return model;
}

TEST_CASE("calibration: a channel that never fired gets its layer's smallest bound, not its neighbour's") {
  Model model = collected(small_options("w4a4-fl8"));
  Calibration& c = model.calibration[3];
  c.mean_of_max[2] = c.weight[2] = 0.0f;
  c.mean_of_max[4] = 0.03f;  // bound 0.3, the smallest of this layer
  calibrate(model);
  CHECK(model.calibration[3].bound[2] == doctest::Approx(0.3));
  CHECK(model.calibration[3].bound[4] == doctest::Approx(0.3));
  CHECK(model.calibration[3].bound[1] == doctest::Approx(1.5));
  CHECK(model.calibration[2].bound[0] == doctest::Approx(0.5));
}

TEST_CASE("calibration: a dead layer is named, and no layer has bounds then") {
  Model model = collected(small_options("w4a4-fl8"));
  Calibration& dead = model.calibration[5];
  std::fill(dead.weight.begin(), dead.weight.end(), 0.0f);
  CHECK_THROWS_WITH_AS(calibrate(model), doctest::Contains(model.network.quantizers[5].name.c_str()), DivergedError);
  for (const Calibration& c : model.calibration) CHECK(c.bound.empty());
  CHECK_FALSE(model.calibrated());
}

TEST_CASE("calibration: every quantizer is built with its bits, sign and scale") {
  for (PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShift, PerChannelBy::kShiftFold}) {
    NetworkOptions o = small_options("w4a4-fl8");
    o.per_channel_by = by;
    Model model = collected(o);
    CHECK_FALSE(model.calibrated());
    calibrate(model);
    REQUIRE(model.calibrated());
    REQUIRE(model.quantizers.size() == model.network.quantizers.size());
    for (size_t q = 0; q < model.quantizers.size(); ++q) {
      const QuantizerSpec& spec = model.network.quantizers[q];
      const ActivationQuantizer& a = model.quantizers[q];
      CAPTURE(spec.name);
      CHECK(a.bits == spec.bits);
      CHECK(a.is_signed == spec.is_signed);
      CHECK(a.channels() == spec.channels);
      CHECK(a.factor.empty() == !(spec.bits == 4 && by != PerChannelBy::kFold));
      const float levels = a.is_signed ? a.top() : a.top() + 1;
      if (spec.bits == 8 || by != PerChannelBy::kShift) CHECK(a.scale[1] == doctest::Approx(levels / a.bound[1]));
    }
  }
}

TEST_CASE("calibration: per_tensor takes the largest bound of the layer for all channels") {
  NetworkOptions o = small_options("w4a4");
  o.granularity = Granularity::kPerTensor;
  Model model = collected(o);
  calibrate(model);
  const ActivationQuantizer& q = model.quantizers[1];
  CHECK(q.fold.empty());
  CHECK(q.factor.empty());
  for (float s : q.scale) CHECK(s == doctest::Approx(16.0f / 4.5f));
}

TEST_CASE("calibration: a layer without any statistics is an error that names it") {
  Model model = collected(small_options("w4a4-fl8"));
  const size_t q = model.quantizers.size() + 4;
  std::fill(model.calibration[q].weight.begin(), model.calibration[q].weight.end(), 0.0f);
  std::fill(model.calibration[q].mean_of_max.begin(), model.calibration[q].mean_of_max.end(), 0.0f);
  CHECK_THROWS_WITH_AS(calibrate(model), doctest::Contains(model.network.quantizers[q].name.c_str()), DivergedError);
  CHECK_FALSE(model.calibrated());
}

}  // namespace
}  // namespace nibble
