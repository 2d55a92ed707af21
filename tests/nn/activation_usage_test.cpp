// The counts of codes against the codes that the modules hand on.
#include "nn/activation_usage.hpp"

#include <doctest/doctest.h>

#include <numeric>

#include "nn/passes.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::random_images;
using testing::small_options;

/// Checks every value that exists as codes alone; returns how many do.
int check_counts(const NetworkOptions& options) {
  const Model model = calibrated_model(options);
  const Tensor images = random_images(2, 32);
  const std::vector<QuantizerUsage> usage = measure_usage(model, images);
  REQUIRE(usage.size() == model.network.quantizers.size());
  for (const QuantizerUsage& u : usage) CHECK(std::accumulate(u.codes.begin(), u.codes.end(), int64_t{0}) == u.total);
  int checked = 0;
  evaluate_modules(model, prepare_weights(model, Passes::kForward), images,
                   [&](const UnitSpec& unit, const Tensor& acc, const Tensor& output) {
                     if (!output.defined() || output.dtype() != DType::u8) return;
                     const std::vector<int> readers =
                         quantizers_of(model.network, model.network.unit_index(unit.name) + 1);
                     REQUIRE(readers.size() == 1);
                     const QuantizerUsage& u = usage[static_cast<size_t>(readers.front())];
                     std::vector<int64_t> codes(u.codes.size());
                     for (int64_t r = 0; r < output.rows(); ++r)
                       for (int64_t c = 0; c < acc.shape().back(); ++c) ++codes.at(output.row<uint8_t>(r)[c]);
                     CAPTURE(unit.name);
                     CHECK(codes == u.codes);
                     ++checked;
                   });
  return checked;
}

TEST_CASE("usage: values that exist as codes alone are counted as their codes") {
  CHECK(check_counts(small_options("w4a4-fl8")) == 16);  // conv1 and conv2 of eight blocks
}

TEST_CASE("usage: a layer that an override leaves in bf16 hands its reader codes from float sums") {
  NetworkOptions o = small_options("w4a4");
  o.overrides = {{"layer1.0.conv1", {}}, {"layer3.1.conv2", {}}};
  CHECK(check_counts(o) == 15);  // the input of layer3.1.conv2 stays bf16
}

}  // namespace
}  // namespace nibble
