// What the served integers mean: against convolutions of dequantized inputs with the fp32 masters and batch norm in
// double.
//
// The other tests compare executors that share the final numbers m and a; here they are checked from outside.
#include "nn/runtime/served_model.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/near.hpp"
#include "tests/nn/naive_executor.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/worst.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::naive_run;
using testing::NaiveMap;
using testing::NaiveTrace;
using testing::random_images;
using testing::small_options;

/// One output of a unit in real numbers: sum of x_hat * w over the window, then batch norm (or the bias).
double real_output(const Model& model, size_t u, const NaiveMap& codes, int64_t y, int64_t x, int64_t o) {
  const UnitSpec& unit = model.network.units[u];
  const UnitParameters& p = model.units[u];
  const ConvShape& s = unit.shape;
  const ActivationQuantizer& q = model.quantizers[static_cast<size_t>(unit.quantizer)];
  double sum = 0;
  for (int64_t ky = 0; ky < s.kh; ++ky)
    for (int64_t kx = 0; kx < s.kw; ++kx) {
      const int64_t iy = y * s.stride + ky - s.pad_before, ix = x * s.stride + kx - s.pad_before;
      if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
      for (int64_t i = 0; i < s.ic; ++i)
        sum += codes.at(iy, ix, i) / static_cast<double>(q.scale[static_cast<size_t>(i)]) *
               static_cast<double>(p.weights.data<float>()[((o * s.kh + ky) * s.kw + kx) * s.ic + i]);
    }
  const auto at = [o](const Tensor& t) { return static_cast<double>(t.data<float>()[o]); };
  if (unit.norm_name.empty()) return sum + at(p.bias);
  return (sum - at(p.running_mean)) / std::sqrt(at(p.running_variance) + 1e-5) * at(p.gamma) + at(p.beta);
}

/// Relative distance, over all outputs of a unit, of acc*m + a from the real numbers.
double distance(const Model& model, const ServedModel& served, const NaiveTrace& trace, size_t u) {
  const UnitSpec& unit = model.network.units[u];
  const NaiveMap& acc = trace.accumulators.at(unit.name);
  const NaiveMap& codes = trace.codes.at(model.network.quantizers[static_cast<size_t>(unit.quantizer)].name);
  double apart = 0, size = 0;
  for (int64_t y = 0; y < acc.h; ++y)
    for (int64_t x = 0; x < acc.w; ++x)
      for (int64_t o = 0; o < acc.c; ++o) {
        const size_t c = static_cast<size_t>(o);
        const double v = acc.at(y, x, o) * static_cast<double>(served.layers[u].affine.m[c]) +
                         static_cast<double>(served.layers[u].affine.a[c]);
        const double real = real_output(model, u, codes, y, x, o);
        apart += (v - real) * (v - real);
        size += real * real;
      }
  REQUIRE(size > 0);
  return std::sqrt(apart / size);
}

/// Largest relative distance over all units.
double worst_distance(const NetworkOptions& options) {
  const Model model = calibrated_model(options);
  const ServedModel served = make_served(model);
  const Tensor image = random_images(1, options.image_size);
  const NaiveTrace trace = naive_run(served, image.data<uint8_t>());
  double worst = 0;
  for (size_t u = 0; u < model.network.units.size(); ++u)
    worst = testing::worse(worst, distance(model, served, trace, u));
  return worst;
}

NetworkOptions with(const std::string& precision, Granularity g, PerChannelBy by) {
  NetworkOptions o = small_options(precision, 0.2);
  o.granularity = g;
  o.per_channel_by = by;
  return o;
}

TEST_CASE("served model: with 8-bit weights every unit's numbers are those of the real network within 2 percent") {
  // Weights are off by at most half a step of 1/127 of their row's largest. Folding widens the row by the spread of the
  // bounds (32x here), so small channels keep fewer levels.
  CHECK(worst_distance(with("w8a8", Granularity::kPerTensor, PerChannelBy::kFold)) < 0.02);
  CHECK(worst_distance(with("w8a8", Granularity::kPerChannel, PerChannelBy::kFold)) < 0.02);
  CHECK(worst_distance(with("w8a4", Granularity::kPerChannel, PerChannelBy::kShift)) < 0.02);
  CHECK(worst_distance(with("w8a4", Granularity::kPerChannel, PerChannelBy::kShiftFold)) < 0.02);
  NetworkOptions quirks = with("w8a8", Granularity::kPerChannel, PerChannelBy::kFold);
  quirks.same_padding = quirks.signed_block_input = true;
  CHECK(worst_distance(quirks) < 0.02);
}

TEST_CASE("served model: with 4-bit weights the numbers stay within 30 percent, which a lost factor does not") {
  // Half a step of 1/7 of the largest weight, where the typical weight is a third of the largest.
  CHECK(worst_distance(with("w4a4-fl8", Granularity::kPerTensor, PerChannelBy::kFold)) < 0.3);
  CHECK(worst_distance(with("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kFold)) < 0.3);
  CHECK(worst_distance(with("w4a4", Granularity::kPerChannel, PerChannelBy::kShift)) < 0.3);
  CHECK(worst_distance(with("w4a8", Granularity::kPerChannel, PerChannelBy::kFold)) < 0.3);
}

TEST_CASE("served model: m and a are batch norm folded into one multiply and one add") {
  const Model model = calibrated_model(small_options("w4a4-fl8"));
  const ServedModel served = make_served(model);
  for (size_t u = 0; u < model.units.size(); ++u) {
    const UnitSpec& unit = model.network.units[u];
    const UnitParameters& p = model.units[u];
    const ServedLayer& layer = served.layers[u];
    const double common = static_cast<double>(model.quantizers[static_cast<size_t>(unit.quantizer)].common);
    CAPTURE(unit.name);
    for (int64_t o = 0; o < unit.shape.oc; ++o) {
      const size_t c = static_cast<size_t>(o);
      const auto at = [o](const Tensor& t) { return static_cast<double>(t.data<float>()[o]); };
      const double rescale = 1.0 / (common * static_cast<double>(layer.codes.scale[c]));
      const bool norm = !unit.norm_name.empty();
      const double slope = norm ? at(p.gamma) / std::sqrt(at(p.running_variance) + 1e-5) : 1.0;
      const double shift = norm ? at(p.beta) - at(p.running_mean) * slope : at(p.bias);
      // Three roundings of 2^-24 each, and one of the square root; the difference in `shift` may cancel, hence its
      // absolute part.
      REQUIRE(static_cast<double>(layer.affine.m[c]) == testing::relative(slope * rescale, 4 * 0x1p-24));
      REQUIRE(std::fabs(static_cast<double>(layer.affine.a[c]) - shift) < 1e-6 * (1.0 + std::fabs(slope)));
    }
  }
}

}  // namespace
}  // namespace nibble
