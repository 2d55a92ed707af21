// Fake mode is the reference for integer mode: where nothing is rounded, both give the same numbers in every layer.
//
// Weights are whole numbers times a power of two whose largest is the top code, and bounds are powers of two (that of
// the image: of codes), large enough to absorb eps. Then every scale is a power of two, a dequantized operand is exact
// in bf16, a sum of at most 2^24 units is exact in fp32, and a scale moves through a product without rounding.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "engine/cpu.hpp"
#include "engine/rng.hpp"
#include "nn/evaluate_modules.hpp"
#include "tests/nn/one_shard.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::forward_and_backward;
using testing::random_images;
using testing::random_model;
using testing::RestoreExecution;
using testing::same_bytes;
using testing::Shard;
using testing::small_options;

constexpr double kExact = 16777216;  // 2^24: whole numbers up to here are exact in fp32

/// The bounds of 4-bit unsigned activations; others, which always fold, get one for all channels.
enum class Bounds { kEqual, kUneven, kWide };  // 4; 2 to 16; the same and one of 64, beyond the reach of a shift

/// Codes times a power of two per output channel, with the top code among them; their sums stay exact.
void set_weights(const UnitSpec& unit, UnitParameters& p, Rng& rng) {
  const int64_t oc = p.weights.dim(0), k = unit.weight_count() / oc;
  const int top = (1 << (unit.precision.weight_bits - 1)) - 1, common = std::min(top, 15);
  for (int64_t o = 0; o < oc; ++o) {
    float* row = p.weights.data<float>() + o * k;
    const float step = static_cast<float>(2 << rng.below(3));
    float squares = 0;
    for (int64_t i = 0; i < k; ++i) {
      const int code = static_cast<int>(rng.below(static_cast<uint32_t>(2 * common + 1))) - common;
      row[i] = step * static_cast<float>(code);
      squares += row[i] * row[i];
    }
    row[o % k] = step * static_cast<float>(o % 2 == 0 ? top : -top);
    if (unit.norm_name.empty()) continue;
    p.running_variance.data<float>()[o] *= squares / 16;  // activations as large as the bounds
    p.running_mean.data<float>()[o] *= std::sqrt(squares);
  }
}

void set_bounds(const QuantizerSpec& q, Calibration& c, Bounds bounds, Rng& rng) {
  c.bound.assign(c.weight.size(), q.is_signed ? (q.bits == 8 ? 127.0f / 32 : 3.5f) : 4.0f);
  c.mean_of_max = c.bound;
  std::fill(c.weight.begin(), c.weight.end(), 1.0f);
  if (q.is_signed || q.bits != 4 || bounds == Bounds::kEqual) return;
  for (float& b : c.bound) b = static_cast<float>(2 << rng.below(4));
  c.bound[0] = 2;
  c.bound[1] = bounds == Bounds::kWide ? 64 : 16;
}

Model exact_model(NetworkOptions options, QuantMode mode, Bounds bounds) {
  options.mode = mode;
  Model model = random_model(options);
  for (size_t u = 0; u < model.units.size(); ++u) {
    Rng rng(11, rng_purpose::kTest, u, 4);
    set_weights(model.network.units[u], model.units[u], rng);
  }
  for (size_t q = 0; q < model.calibration.size(); ++q) {
    Rng rng(11, rng_purpose::kTest, q, 5);
    set_bounds(model.network.quantizers[q], model.calibration[q], bounds, rng);
  }
  rebuild_quantizers(model);
  return model;
}

/// Sums of x_hat * w_hat of every unit, in its order, and the logits.
struct Evaluated {
  std::vector<std::string> names;
  std::vector<std::vector<double>> sums;
  Tensor logits;
};

Evaluated evaluate(const Model& model, const Tensor& images) {
  Evaluated e;
  const StepWeights weights = prepare_weights(model, Passes::kForward);
  e.logits = evaluate_modules(model, weights, images, [&](size_t u, const Tensor& acc, const Tensor&) {
    const UnitSpec& unit = model.network.units[u];
    const LayerWeights& layer = weights.layers[u];
    std::vector<double> sums;
    double largest = 0;
    for (int64_t r = 0; r < acc.rows(); ++r)
      for (int64_t o = 0; o < unit.shape.oc; ++o) {
        const bool integer = acc.dtype() == DType::s32;
        const double sum = integer ? acc.row<int32_t>(r)[o] : static_cast<double>(acc.row<float>(r)[o]);
        if (integer) largest = std::max(largest, std::fabs(sum));
        sums.push_back(layer.rescale.empty() ? sum : sum * static_cast<double>(layer.rescale[static_cast<size_t>(o)]));
      }
    REQUIRE(largest < kExact);
    e.names.push_back(unit.name);
    e.sums.push_back(std::move(sums));
  });
  return e;
}

NetworkOptions options_of(const char* precision, Granularity granularity, PerChannelBy by) {
  NetworkOptions o = small_options(precision);
  o.granularity = granularity;
  o.per_channel_by = by;
  return o;
}

/// Sums that depend on the image and are not mostly zero, or else equality would show nothing.
void check_alive(const Evaluated& e) {
  for (size_t u = 0; u < e.sums.size(); ++u) {
    CAPTURE(e.names[u]);
    const std::vector<double>& sums = e.sums[u];
    CHECK(std::count(sums.begin(), sums.end(), 0.0) < static_cast<int64_t>(sums.size()) / 2);
    CHECK_FALSE(std::equal(sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(sums.size() / 2),
                           sums.begin() + static_cast<std::ptrdiff_t>(sums.size() / 2)));
  }
}

/// Every unit's sums and the logits of integer and fake mode are the same numbers, on every level.
void check_same(const NetworkOptions& options, Bounds bounds) {
  const Tensor images = random_images(2, options.image_size);
  const RestoreExecution restore;
  for (const Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    const Evaluated integer = evaluate(exact_model(options, QuantMode::kInteger, bounds), images);
    const Evaluated fake = evaluate(exact_model(options, QuantMode::kFake, bounds), images);
    REQUIRE(integer.sums.size() == build_resnet(options).units.size());
    REQUIRE(fake.names == integer.names);
    check_alive(integer);
    for (size_t u = 0; u < integer.sums.size(); ++u) {
      CAPTURE(integer.names[u]);
      CHECK((fake.sums[u] == integer.sums[u]));
    }
    CHECK(same_bytes(fake.logits, integer.logits));
  }
}

/// Gradients, too: a scale that is a power of two moves through every product, sum and rounding of backward.
void check_same_gradients(const NetworkOptions& options, Bounds bounds) {
  const Tensor images = random_images(6, options.image_size);
  const RestoreExecution restore;
  for (const Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    const Shard integer = forward_and_backward(exact_model(options, QuantMode::kInteger, bounds), images);
    const Shard fake = forward_and_backward(exact_model(options, QuantMode::kFake, bounds), images);
    CHECK(same_bytes(fake.logits, integer.logits));
    const Network network = build_resnet(options);
    for (size_t u = 0; u < network.units.size(); ++u) {
      CAPTURE(network.units[u].name);
      const Tensor& d_w = integer.gradients.units[u].weights;
      CHECK(same_bytes(fake.gradients.units[u].weights, d_w));
      CHECK(std::any_of(d_w.data<float>(), d_w.data<float>() + d_w.size(), [](float g) { return g != 0; }));
      if (integer.gradients.units[u].gamma.defined()) {
        CHECK(same_bytes(fake.gradients.units[u].gamma, integer.gradients.units[u].gamma));
        CHECK(same_bytes(fake.gradients.units[u].beta, integer.gradients.units[u].beta));
      }
    }
  }
}

TEST_CASE("fake mode: where nothing is rounded, a training step has the gradients of integer mode, bit for bit") {
  check_same_gradients(options_of("w4a4-fl8", Granularity::kPerTensor, PerChannelBy::kFold), Bounds::kUneven);
  check_same_gradients(options_of("w8a8", Granularity::kPerChannel, PerChannelBy::kFold), Bounds::kEqual);
  NetworkOptions quirks = options_of("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kShift);
  quirks.same_padding = quirks.signed_block_input = true;
  check_same_gradients(quirks, Bounds::kWide);
}

TEST_CASE("fake mode: with one scale per tensor it gives the sums and logits of integer mode in every layer") {
  for (const char* precision : {"w4a4-fl8", "w8a8", "w4a4", "w8a4", "w4a8"}) {
    CAPTURE(precision);
    check_same(options_of(precision, Granularity::kPerTensor, PerChannelBy::kFold), Bounds::kUneven);
  }
}

TEST_CASE("fake mode: with shifted codes it gives the sums and logits of integer mode in every layer") {
  for (const char* precision : {"w4a4-fl8", "w4a4", "w8a4"}) {
    CAPTURE(precision);
    check_same(options_of(precision, Granularity::kPerChannel, PerChannelBy::kShift), Bounds::kWide);
  }
}

TEST_CASE("fake mode: where all channels of a tensor have one bound, folding changes no code and both modes agree") {
  check_same(options_of("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kFold), Bounds::kEqual);
}

TEST_CASE("fake mode: the named quirks leave both modes equal") {
  NetworkOptions o = options_of("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kShift);
  o.same_padding = o.signed_block_input = true;
  check_same(o, Bounds::kUneven);
}

/// Fake mode quantizes the weights themselves, integer mode under fold what fold makes of them: another model.
TEST_CASE("fake mode: it never folds, so with uneven bounds it equals shift and not integer mode under fold") {
  const Tensor images = random_images(2, 32);
  const NetworkOptions fold = options_of("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kFold);
  const NetworkOptions shift = options_of("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kShift);
  const Evaluated fake = evaluate(exact_model(fold, QuantMode::kFake, Bounds::kUneven), images);
  CHECK(same_bytes(fake.logits, evaluate(exact_model(shift, QuantMode::kFake, Bounds::kUneven), images).logits));
  CHECK(same_bytes(fake.logits, evaluate(exact_model(shift, QuantMode::kInteger, Bounds::kUneven), images).logits));
  const Evaluated folded = evaluate(exact_model(fold, QuantMode::kInteger, Bounds::kUneven), images);
  CHECK((folded.sums[0] == fake.sums[0]));  // the image's bounds are equal
  CHECK_FALSE((folded.sums[1] == fake.sums[1]));
  CHECK_FALSE(same_bytes(folded.logits, fake.logits));
}

}  // namespace
}  // namespace nibble
