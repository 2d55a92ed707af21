// The counts of codes against the codes that the modules pass on, and against those of the naive executor.
#include "nn/activation_usage.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nn/evaluate_modules.hpp"
#include "tests/nn/naive_executor.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::naive_run;
using testing::NaiveMap;
using testing::NaiveTrace;
using testing::random_images;
using testing::small_options;

/// The code at a place of a unit's output, which in fake mode holds bf16(code / scale).
size_t code_of(const Tensor& output, int64_t row, int64_t channel, const ActivationQuantizer& q) {
  if (output.dtype() == DType::u8) return output.row<uint8_t>(row)[channel];
  REQUIRE(output.dtype() == DType::bf16);
  return static_cast<size_t>(
      std::lround(to_float(output.row<bf16>(row)[channel]) * q.scale[static_cast<size_t>(channel)]));
}

/// Checks every value that exists only as codes; returns how many do.
int check_counts(const NetworkOptions& options) {
  const Model model = calibrated_model(options);
  const Tensor images = random_images(2, 32);
  const std::vector<QuantizerUsage> usage = measure_usage(model, images);
  REQUIRE(usage.size() == model.network.quantizers.size());
  for (const QuantizerUsage& u : usage) CHECK(std::accumulate(u.codes.begin(), u.codes.end(), int64_t{0}) == u.total);
  int checked = 0;
  evaluate_modules(model, prepare_weights(model, Passes::kForward), images,
                   [&](size_t u, const Tensor& acc, const Tensor& output) {
                     const UnitSpec& unit = model.network.units[u];
                     const int value = static_cast<int>(u) + 1;
                     const std::vector<int> readers = quantizers_of(model.network, value);
                     if (!unit.relu || readers.empty() || rounded_before_codes(model.network, value)) return;
                     REQUIRE(readers.size() == 1);
                     const size_t q = static_cast<size_t>(readers.front());
                     std::vector<int64_t> codes(usage[q].codes.size());
                     for (int64_t r = 0; r < output.rows(); ++r)
                       for (int64_t c = 0; c < acc.shape().back(); ++c)
                         ++codes.at(code_of(output, r, c, model.quantizers[q]));
                     CAPTURE(unit.name);
                     CHECK(codes == usage[q].codes);
                     ++checked;
                   });
  return checked;
}

TEST_CASE("usage: fake quantization is counted by the values that it multiplies, and not before calibration") {
  NetworkOptions o = small_options("w4a4-fl8");
  o.mode = QuantMode::kFake;
  CHECK(check_counts(o) == 16);
  CHECK(measure_usage(testing::random_model(o), random_images(1, 32)).empty());
}

TEST_CASE("usage: values that exist as codes alone are counted as their codes") {
  CHECK(check_counts(small_options("w4a4-fl8")) == 16);  // conv1 and conv2 of eight blocks
}

TEST_CASE("usage: a layer that an override leaves in bf16 hands its reader codes from float sums") {
  NetworkOptions o = small_options("w4a4");
  o.overrides = {{"layer1.0.conv1", {}}, {"layer3.1.conv2", {}}};
  CHECK(check_counts(o) == 15);  // the input of layer3.1.conv2 stays bf16
}

/// What the quantizer of this unit's input quantizes, by the naive executor.
NaiveMap input_of(const UnitSpec& unit, const ServedModel& model, const NaiveTrace& trace, const uint8_t* image) {
  NaiveMap map{unit.shape.h, unit.shape.w, unit.shape.ic, {}};
  if (unit.input == kImageValue) {
    for (int64_t i = 0; i < map.h * map.w * 3; ++i) {
      const float mean[3] = {0.485f, 0.456f, 0.406f}, deviation[3] = {0.229f, 0.224f, 0.225f};
      const float v = (static_cast<float>(image[i]) / 255.0f - mean[i % 3]) / deviation[i % 3];
      map.v.push_back(static_cast<double>(v));
    }
    return map;
  }
  const UnitSpec& writer = model.network.units[static_cast<size_t>(unit.input - 1)];
  if (!unit.average_pool && trace.plain.contains(writer.name)) return trace.plain.at(writer.name);
  if (unit.average_pool) {  // rounded to bf16 before they become codes
    const NaiveMap& z = trace.plain.at(writer.name);
    for (int64_t c = 0; c < z.c; ++c) {
      float sum = 0;
      for (int64_t p = 0; p < z.h * z.w; ++p) sum += static_cast<float>(z.v[static_cast<size_t>(p * z.c + c)]);
      map.v.push_back(static_cast<double>(to_float(to_bf16(sum / static_cast<float>(z.h * z.w)))));
    }
    return map;
  }
  const ServedLayer& layer = model.layers[static_cast<size_t>(unit.input - 1)];
  map = trace.accumulators.at(writer.name);
  for (size_t i = 0; i < map.v.size(); ++i) {
    const size_t c = i % static_cast<size_t>(map.c);
    const float product = static_cast<float>(map.v[i]) * layer.affine.m[c];
    map.v[i] = static_cast<double>(product + layer.affine.a[c]);
  }
  return map;
}

/// Values at or beyond the end of the top bucket, by the formulas of METHOD.md section 2; of codes rounded to nearest,
/// values beyond the bound.
int64_t clipped(const NaiveMap& map, const ActivationQuantizer& q) {
  const float buckets = std::exp2(static_cast<float>(q.bits));  // of unsigned codes
  const bool nearest = q.scheme == QuantScheme::kNearest;
  int64_t n = 0;
  for (size_t i = 0; i < map.v.size(); ++i) {
    const float bound = q.bound[i % static_cast<size_t>(map.c)] + 0x1p-23f, v = static_cast<float>(map.v[i]);
    const bool beyond = q.is_signed ? std::fabs(v * (127.0f / bound)) > 127.0f
                        : nearest   ? v * ((buckets - 1) / bound) > buckets - 1
                                    : v * (buckets / bound) >= buckets;
    n += beyond ? 1 : 0;
  }
  return n;
}

TEST_CASE("usage: codes and clipped values of every quantizer are those of the naive executor") {
  struct Case {
    const char* precision;
    int64_t images, side;
    QuantScheme scheme = QuantScheme::kPaper;
  };
  // More images than are counted at once; a side at which the last layer averages more than one pixel.
  for (const Case& c : {Case{"w4a4-fl8", 5, 32}, Case{"w8a8", 1, 64}, Case{"w4a4-fl8", 2, 32, QuantScheme::kNearest}}) {
    CAPTURE(c.precision);
    NetworkOptions options = small_options(c.precision);
    options.image_size = c.side;
    options.scheme = c.scheme;
    const Model model = calibrated_model(options);
    const ServedModel served = make_served(model);
    const Tensor images = random_images(c.images, c.side);
    const std::vector<QuantizerUsage> usage = measure_usage(model, images);
    REQUIRE(usage.size() == model.network.quantizers.size());
    std::vector<QuantizerUsage> expected(usage.size());
    for (int64_t i = 0; i < c.images; ++i) {
      const uint8_t* image = images.data<uint8_t>() + i * c.side * c.side * 3;
      const NaiveTrace trace = naive_run(served, image);
      for (size_t q = 0; q < usage.size(); ++q) {
        const QuantizerSpec& spec = model.network.quantizers[q];
        const auto reader = std::find_if(model.network.units.begin(), model.network.units.end(),
                                         [&](const UnitSpec& u) { return u.quantizer == static_cast<int>(q); });
        REQUIRE(reader != model.network.units.end());
        const int lowest = spec.is_signed ? -127 : 0;
        expected[q].codes.resize(spec.is_signed ? 255 : size_t{1} << spec.bits);
        for (const double code : trace.codes.at(spec.name).v)
          ++expected[q].codes.at(static_cast<size_t>(static_cast<int>(code) - lowest));
        expected[q].clipped += clipped(input_of(*reader, served, trace, image), model.quantizers[q]);
        expected[q].total += static_cast<int64_t>(trace.codes.at(spec.name).v.size());
      }
    }
    int64_t some = 0;
    for (size_t q = 0; q < usage.size(); ++q) {
      CAPTURE(model.network.quantizers[q].name);
      CHECK(usage[q].codes == expected[q].codes);
      CHECK(usage[q].clipped == expected[q].clipped);
      CHECK(usage[q].total == expected[q].total);
      some += expected[q].clipped > 0 && expected[q].clipped < expected[q].total;
    }
    CHECK(some > 20);  // the bounds of this model cut into nearly every value
  }
}

}  // namespace
}  // namespace nibble
