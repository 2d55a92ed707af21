// Quantizers: the golden values of METHOD.md section 2, the exact forms of per-channel scales, refusals.
#include "ops/quantization.hpp"

#include "tests/ops/packed_support.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

struct Golden {
  float x;
  int code;
  double gradient;
};

/// One channel per column, so that vector bodies and tails see every value.
Tensor columns_of(const std::vector<Golden>& golden, int64_t channels) {
  Tensor x(DType::f32, {static_cast<int64_t>(golden.size()), channels});
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t c = 0; c < channels; ++c) x.row<float>(r)[c] = golden[at(r)].x;
  return x;
}

constexpr int64_t kChannels = 19;

/// Codes through the affine kernel on fp32, because the golden values are not bf16 numbers.
std::vector<int> codes_of_f32(const Tensor& x, const ActivationQuantizer& q) {
  const int64_t rows = x.rows();
  Tensor codes(DType::u8, x.shape());
  const std::vector<float> one(at(kChannels), 1.0f), zero(at(kChannels), 0.0f);
  kernels::active().ew.affine_quantize_f32(x.data<float>(), x.stride(), rows, kChannels, one.data(), zero.data(),
                                           q.kernel(), {codes.data<uint8_t>(), codes.stride()});
  const Doubles v = values_of(codes);
  return {v.begin(), v.end()};
}

/// Straight-through derivative of the kernel at fp32 values: y = 1 (bf16), v = 1*m + 0 with m = x.
double slope_of(float x, const ActivationQuantizer& q) {
  const std::vector<float> m(at(kChannels), x), zero(at(kChannels), 0.0f);
  const std::vector<bf16> one(at(kChannels), to_bf16(1.0f));
  std::vector<bf16> g(at(kChannels));
  std::vector<float> sums(at(2 * kChannels), 0.0f);
  kernels::active().ew.activate_backward({.rows = 1,
                                          .n = kChannels,
                                          .y = {one.data(), kChannels},
                                          .m = m.data(),
                                          .a = zero.data(),
                                          .z = {},
                                          .classes = {},
                                          .through_quantizer = {one.data(), kChannels},
                                          .direct = {},
                                          .quantizer = q.kernel(),
                                          .mean = zero.data(),
                                          .g = {g.data(), kChannels},
                                          .sum_g = sums.data(),
                                          .sum_g_centred = sums.data() + kChannels});
  for (const bf16 v : g) CHECK(v.bits == g[0].bits);
  return static_cast<double>(to_float(g[0]));
}

void check_unsigned(float bound, const std::vector<Golden>& golden, QuantScheme scheme = QuantScheme::kPaper) {
  const ActivationQuantizer q =
      make_activation_quantizer(std::vector<float>(at(kChannels), bound), 4, false, FactorForm::kFold, scheme);
  on_every_level([&] {
    const std::vector<int> codes = codes_of_f32(columns_of(golden, kChannels), q);
    for (size_t i = 0; i < golden.size(); ++i) {
      INFO("bound " << bound << ", x = " << golden[i].x);
      for (int64_t c = 0; c < kChannels; ++c) CHECK(codes[i * at(kChannels) + at(c)] == golden[i].code);
      // ReLU stands before the quantizer, so nothing at or below zero gets a gradient.
      CHECK(slope_of(golden[i].x, q) == (golden[i].x > 0 ? golden[i].gradient : 0.0));
    }
  });
}

Tensor weight_rows(const std::vector<std::vector<float>>& rows) {
  const int64_t oc = static_cast<int64_t>(rows.size()), ic = static_cast<int64_t>(rows[0].size());
  Tensor w(DType::f32, {oc, 1, 1, ic});
  for (int64_t o = 0; o < oc; ++o) std::copy_n(rows[at(o)].data(), ic, w.row<float>(o));
  return w;
}

constexpr FactorForm kAllForms[] = {FactorForm::kNone, FactorForm::kFold, FactorForm::kShift, FactorForm::kShiftFold};

const char* name_of_form(FactorForm form) {
  constexpr const char* kNames[] = {"none", "fold", "shift", "shift+fold"};
  return kNames[static_cast<int>(form)];
}

/// sum_c x_hat_c * w_hat[o,c] against sum_c (code*factor)_c * w_code[o,c] / (common * s_w[o]) on random codes.
void check_identity(int bits, bool is_signed, FactorForm form, int weight_bits, int64_t ic, QuantScheme scheme) {
  INFO(bits << " bits, signed " << is_signed << ", form " << name_of_form(form) << ", weights of " << weight_bits
            << " bits, " << ic << " channels");
  const auto q = make_activation_quantizer(random_bounds(ic, 3), bits, is_signed, form, scheme);
  constexpr int64_t kOut = 5;
  const Tensor w = random_f32({kOut, 1, 1, ic}, 4);
  const WeightCodes codes = quantize_weights(w, q.fold, {weight_bits}, "layer");
  const int top = static_cast<int>(q.top());
  const std::vector<int> x = random_codes(ic, is_signed ? -top : 0, top, 5);
  for (int64_t o = 0; o < kOut; ++o) {
    double exact = 0, magnitude = 0;
    int64_t integer = 0;
    for (int64_t c = 0; c < ic; ++c) {
      const int code = codes.codes.row<int8_t>(o)[c];
      const double fold = q.fold.empty() ? 1.0 : static_cast<double>(q.fold[at(c)]);
      const double x_hat = x[at(c)] / static_cast<double>(q.scale[at(c)]);
      const double w_hat = code / (static_cast<double>(codes.scale[at(o)]) * fold);
      exact += x_hat * w_hat;
      magnitude += std::abs(x_hat * w_hat);
      const int factor = q.factor.empty() ? 1 : q.factor[at(c)];
      CHECK(x[at(c)] * factor <= 240 + (bits == 8 ? 15 : 0));
      integer += int64_t{x[at(c)]} * factor * code;
    }
    const double scaled =
        static_cast<double>(integer) / (static_cast<double>(q.common) * static_cast<double>(codes.scale[at(o)]));
    // Scale, fold and common carry at most four fp32 roundings between them.
    CHECK(std::abs(scaled - exact) <= 6 * kUnitF32 * magnitude);
  }
}

}  // namespace

TEST_CASE("unsigned 4-bit codes and their gradients have the published golden values") {
  check_unsigned(4.0f, {{-0.1f, 0, 0},
                        {0.05f, 0, 0.5},
                        {0.25f, 1, 1},
                        {0.95f, 3, 1},
                        {3.74f, 14, 1},
                        {3.75f, 15, 0.5},
                        {4.0f, 15, 0},
                        {4.1f, 15, 0}});
  check_unsigned(1.0f, {{0.0625f, 0, 0.5},
                        {0.07f, 1, 1},
                        {0.25f, 3, 1},
                        {0.5f, 7, 1},
                        {0.9375f, 14, 1},
                        {1.0f, 15, 0.5},
                        {1.2f, 15, 0}});
}

TEST_CASE("clipped, then rounded to nearest: unsigned 4-bit codes and their gradients") {
  // A bound of 15 makes the scale 1, one of 6 (2.5 steps per unit) has ties at 0.2, 0.6, ...
  check_unsigned(15.0f,
                 {{-3.0f, 0, 0},
                  {0.25f, 0, 1},
                  {0.5f, 1, 1},
                  {1.4375f, 1, 1},
                  {1.5f, 2, 1},
                  {14.4375f, 14, 1},
                  {14.5f, 15, 1},
                  {15.0f, 15, 0.5},
                  {15.0625f, 15, 0},
                  {1e30f, 15, 0}},
                 QuantScheme::kNearest);
  check_unsigned(
      6.0f, {{0.19f, 0, 1}, {0.21f, 1, 1}, {0.59f, 1, 1}, {0.61f, 2, 1}, {5.79f, 14, 1}, {5.81f, 15, 1}, {6.1f, 15, 0}},
      QuantScheme::kNearest);
  // The bound itself has a code: dequantized it is the bound, where floor's largest value is one step below.
  const auto q = make_activation_quantizer({3.0f}, 4, false, FactorForm::kFold, QuantScheme::kNearest);
  CHECK(15.0f / q.scale[0] == doctest::Approx(3.0f).epsilon(1e-6));
}

TEST_CASE("weights that go through bf16 are quantized as their bf16 values are") {
  const Tensor w = random_f32({3, 3, 3, 39}, 8);
  Tensor half(DType::f32, w.shape());
  for (int64_t i = 0; i < w.size(); ++i) half.data<float>()[i] = to_float(to_bf16(w.data<float>()[i]));
  const std::vector<float> fold = random_bounds(39, 9);
  on_every_level([&] {
    for (const int bits : {4, 8}) {
      const WeightCodes through = quantize_weights(w, fold, {.bits = bits, .through_bf16 = true}, "layer");
      const WeightCodes of_half = quantize_weights(half, fold, {.bits = bits}, "layer");
      CHECK(through.scale == of_half.scale);
      CHECK(values_of(through.codes) == values_of(of_half.codes));
      CHECK(through.scale != quantize_weights(w, fold, {.bits = bits}, "layer").scale);
    }
  });
}

TEST_CASE("scales are 2^b / (bound + eps) unsigned and Q / (bound + eps) signed") {
  CHECK(make_activation_quantizer({4.0f}, 4, false, FactorForm::kNone).scale[0] == 4.0f);
  CHECK(make_activation_quantizer({1.0f}, 4, false, FactorForm::kNone).scale[0] == 15.9999981f);
  CHECK(make_activation_quantizer({1.0f}, 4, true, FactorForm::kNone).scale[0] == 6.99999905f);
  CHECK(make_activation_quantizer({2.0f}, 8, true, FactorForm::kNone).scale[0] == 127.0f / (2.0f + 0x1p-23f));
}

TEST_CASE("signed 4-bit codes have the published golden values and round half up") {
  const ActivationQuantizer q = make_activation_quantizer({1.0f}, 4, true, FactorForm::kNone);
  // The weight quantizer is the same formula on both signs; the largest weight of the row is the bound.
  const std::vector<float> row = {1.0f,  -1.0f,  0.0714f, -0.0714f, 0.0715f, -0.5f, 0.5f,
                                  0.93f, -0.93f, 0.0f,    0.21f,    -0.21f,  0.22f, -0.22f};
  const std::vector<int> expected = {7, -7, 0, 0, 1, -3, 3, 7, -7, 0, 1, -1, 2, -2};
  on_every_level([&] {
    const WeightCodes w = quantize_weights(weight_rows({row}), {}, {4}, "layer");
    CHECK(w.scale[0] == q.scale[0]);
    for (size_t i = 0; i < row.size(); ++i) {
      INFO("w = " << row[i]);
      CHECK(w.codes.data<int8_t>()[i] == expected[i]);
    }
    // Ties: with this bound the scale is 1, and t = -1.5, -0.5, 0.5, 1.5 become -1, 0, 1, 2.
    const WeightCodes tie = quantize_weights(weight_rows({{8.0f, -1.5f, -0.5f, 0.5f, 1.5f, -8.0f}}),
                                             {7.0f / 8, 1, 1, 1, 1, 7.0f / 8}, {4}, "layer");
    CHECK(tie.scale[0] == 1.0f);
    const std::vector<int> rounded = {7, -1, 0, 1, 2, -7};
    for (size_t i = 0; i < rounded.size(); ++i) CHECK(tie.codes.data<int8_t>()[i] == rounded[i]);
  });
}

TEST_CASE("the signed quirk on non-negative tensors has the golden codes and clip gradient") {
  // bf16 neighbours of the golden inputs: exactly representable values on either side of each boundary.
  const ActivationQuantizer q = make_activation_quantizer({1.0f, 1.0f, 8.0f}, 4, true, FactorForm::kFold);
  const Tensor x = Tensor::zeros(DType::bf16, {5, 3}, Tensor::round_stride(DType::bf16, 3));
  const float values[5] = {0.0f, 0.0712890625f, 0.072265625f, 0.5f, 1.203125f};
  for (int64_t r = 0; r < 5; ++r)
    for (int64_t c = 0; c < 3; ++c) x.row<bf16>(r)[c] = to_bf16(values[r]);
  on_every_level([&] {
    const Tensor codes = quantize_tensor(x, q);
    const int expected[5][3] = {{0, 0, 0}, {0, 0, 0}, {1, 1, 0}, {3, 3, 0}, {7, 7, 1}};
    for (int64_t r = 0; r < 5; ++r)
      for (int64_t c = 0; c < 3; ++c) CHECK(codes.row<uint8_t>(r)[c] == expected[r][c] + 128);
    const Doubles x_hat = values_of(dequantize_tensor(codes, q));
    for (size_t i = 0; i < x_hat.size(); ++i) {
      const double exact = expected[i / 3][i % 3] / static_cast<double>(q.scale[i % 3]);
      CHECK(std::abs(x_hat[i] - exact) <= kUnitBf16 * exact);
    }
    const Tensor through = random_bf16({5, 3}, 9, 0.5f, 1.0f), direct = random_bf16({5, 3}, 10, 0.5f, 1.0f);
    const Doubles t = values_of(through), d = values_of(direct);
    const Doubles alone = values_of(combine_gradients(x, through, Tensor(), &q));
    const Doubles both = values_of(combine_gradients(x, through, direct, &q));
    const Doubles only_direct = values_of(combine_gradients(x, Tensor(), direct, &q));
    for (size_t i = 0; i < alone.size(); ++i) {
      const bool positive = i >= 3;
      const double slope = !positive || (i / 3 == 4 && i % 3 < 2) ? 0.0 : 1.0;
      CHECK(alone[i] == t[i] * slope);
      CHECK(std::abs(both[i] - (positive ? t[i] * slope + d[i] : 0.0)) <= kUnitBf16 * 2);
      CHECK(only_direct[i] == (positive ? d[i] : 0.0));
    }
  });
}

TEST_CASE("the signed quirk passes half of the gradient of a value that is its bound exactly") {
  const ActivationQuantizer q = make_activation_quantizer({7.0f}, 4, true, FactorForm::kFold);
  REQUIRE(q.scale[0] == 1.0f);
  const Tensor x = Tensor::zeros(DType::bf16, {3, 1}, Tensor::round_stride(DType::bf16, 1));
  const Tensor through = Tensor::zeros(DType::bf16, x.shape(), x.stride());
  const float values[3] = {6.96875f, 7.0f, 7.03125f}, slopes[3] = {1.0f, 0.5f, 0.0f};
  for (int64_t r = 0; r < 3; ++r) {
    x.row<bf16>(r)[0] = to_bf16(values[r]);
    through.row<bf16>(r)[0] = to_bf16(1.0f);
  }
  on_every_level([&] {
    const Tensor g = combine_gradients(x, through, Tensor(), &q);
    for (int64_t r = 0; r < 3; ++r) CHECK(to_float(g.row<bf16>(r)[0]) == slopes[r]);
  });
}

TEST_CASE("every form of per-channel scales gives the exact product of the dequantized operands") {
  on_every_level([] {
    for (const int64_t ic : {1, 3, 39, 130})
      for (const int weight_bits : {4, 8}) {
        for (const QuantScheme scheme : {QuantScheme::kPaper, QuantScheme::kNearest}) {
          for (const FactorForm form : kAllForms) check_identity(4, false, form, weight_bits, ic, scheme);
          for (const FactorForm form : {FactorForm::kNone, FactorForm::kFold})
            for (const bool is_signed : {false, true}) check_identity(8, is_signed, form, weight_bits, ic, scheme);
          check_identity(4, true, FactorForm::kFold, weight_bits, ic, scheme);
        }
      }
  });
}

TEST_CASE("the folded remainder of shift+fold stays near one within 16x of the largest bound") {
  std::vector<float> bound;
  for (int i = 0; i <= 1000; ++i) bound.push_back(5.0f * std::pow(16.0f, -static_cast<float>(i) / 1000.0f));
  const ActivationQuantizer q = make_activation_quantizer(bound, 4, false, FactorForm::kShiftFold);
  for (size_t c = 0; c < bound.size(); ++c) {
    CHECK(q.scale[c] == 16.0f / (bound[c] + kBoundEpsilon));  // the paper's own step
    CHECK(q.fold[c] >= 0.70f);
    CHECK(q.fold[c] <= 1.42f);
    const int f = q.factor[c];
    CHECK((f >= 1 && f <= 16 && (f & (f - 1)) == 0));
  }
  CHECK(q.factor.front() == 16);
  CHECK(q.factor.back() == 1);
}

TEST_CASE("shift steps are at most twice the paper's within 32x of the largest bound and never clip below it") {
  std::vector<float> bound;
  for (int i = 0; i <= 1000; ++i) bound.push_back(3.0f * std::pow(31.99f, -static_cast<float>(i) / 1000.0f));
  bound.push_back(1e-4f);
  bound.push_back(1.5f);
  const ActivationQuantizer q = make_activation_quantizer(bound, 4, false, FactorForm::kShift);
  CHECK(q.fold.empty());
  for (size_t c = 0; c < bound.size(); ++c) {
    const double step = 1.0 / static_cast<double>(q.scale[c]);
    const double paper = (static_cast<double>(bound[c]) + static_cast<double>(kBoundEpsilon)) / 16;
    CHECK(step >= paper * (1 - 4 * kUnitF32));  // 16 steps reach the bound
    if (c <= 1000) CHECK(step <= 2 * paper * (1 + 4 * kUnitF32));
    CHECK(q.scale[c] * static_cast<float>(q.factor[c]) == q.common);
  }
  CHECK(q.factor[1001] == 1);  // far below the largest: the finest step there is
  CHECK(q.factor.front() == 16);
  CHECK(q.largest_multiplier() == 240);
}

TEST_CASE("one scale for the whole tensor is that of the largest bound") {
  const ActivationQuantizer q = make_activation_quantizer({1.0f, 4.0f, 2.0f}, 8, false, FactorForm::kNone);
  CHECK(q.scale == std::vector<float>(3, 64.0f));
  CHECK(q.common == 64.0f);
  CHECK(q.fold.empty());
  CHECK(q.factor.empty());
  CHECK(q.largest_multiplier() == 255);
  CHECK(make_activation_quantizer({1.0f}, 4, false, FactorForm::kFold).largest_multiplier() == 15);
  CHECK(make_activation_quantizer({1.0f}, 8, true, FactorForm::kFold).largest_multiplier() == 255);
}

TEST_CASE("quantizers that cannot exist are refused in words") {
  CHECK(error_of<UsageError>([] { make_activation_quantizer({1.0f}, 8, false, FactorForm::kShift); }) ==
        "[quantizer] shift forms are for unsigned 4-bit activations, got unsigned 8 bits; use fold");
  CHECK(error_of<UsageError>([] { make_activation_quantizer({1.0f}, 4, true, FactorForm::kShiftFold); }) ==
        "[quantizer] shift forms are for unsigned 4-bit activations, got signed 4 bits; use fold");
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    CHECK(!error_of<ModelError>([&] { make_activation_quantizer({1.0f, bad}, 4, false, FactorForm::kFold); }).empty());
  CHECK(!error_of<ModelError>([] { make_activation_quantizer({}, 4, false, FactorForm::kNone); }).empty());
}

TEST_CASE("weights take the full range of their codes per output channel, whatever the tap") {
  on_every_level([] {
    for (const int bits : {4, 8})
      for (const int64_t ic : {1, 3, 17, 39}) {
        const Tensor w = random_f32({4, 3, 2, ic}, 11);
        std::vector<float> fold = random_bounds(ic, 12, 0.1f, 3.0f);
        if (ic == 17) fold.clear();
        const WeightCodes codes = quantize_weights(w, fold, {bits}, "layer");
        const float top = static_cast<float>((1 << (bits - 1)) - 1);
        for (int64_t o = 0; o < 4; ++o) {
          float bound = 0;
          for (int64_t i = 0; i < 6 * ic; ++i)
            bound =
                std::max(bound, std::abs(w.data<float>()[o * 6 * ic + i] * (fold.empty() ? 1.0f : fold[at(i % ic)])));
          const float scale = top / (bound + kBoundEpsilon);
          CHECK(codes.scale[at(o)] == scale);
          int largest = 0;
          for (int64_t i = 0; i < 6 * ic; ++i) {
            float t = w.data<float>()[o * 6 * ic + i];
            if (!fold.empty()) t *= fold[at(i % ic)];
            const int code = static_cast<int>(std::floor(std::clamp(t * scale, -top, top) + 0.5f));
            CHECK(codes.codes.data<int8_t>()[o * 6 * ic + i] == code);
            largest = std::max(largest, std::abs(code));
          }
          CHECK(largest == static_cast<int>(top));
        }
      }
  });
}

TEST_CASE("a row of zero weights gets zero codes and a finite scale") {
  on_every_level([] {
    const WeightCodes codes = quantize_weights(Tensor::zeros(DType::f32, {2, 1, 1, 39}), {}, {4}, "layer");
    CHECK(values_of(codes.codes) == Doubles(78, 0.0));
    CHECK(std::isfinite(codes.scale[0]));
  });
}

TEST_CASE("weights that are not finite are refused with the layer's name and channel") {
  on_every_level([] {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
      for (const int64_t position : {0, 7, 16, 38}) {
        const Tensor w = random_f32({3, 2, 1, 39}, 1);
        w.row<float>(4)[position] = bad;  // tap 0 of output channel 2
        CHECK(error_of<DivergedError>([&] { quantize_weights(w, {}, {4}, "layer2.0.conv1"); }) ==
              "weights of layer2.0.conv1, output channel 2, are not finite; lower --lr or set --clip-grad-norm");
      }
  });
}

TEST_CASE("a fold of another length than the input channels is refused") {
  CHECK(error_of<ShapeError>([] {
          quantize_weights(random_f32({2, 1, 1, 3}, 1), {1.0f, 1.0f}, {4}, "fc");
        }) == "[quantize_weights] fc has 3 input channels, the quantizer 2");
}

TEST_CASE("sums that may overflow 32 bits are refused, those that just fit are not") {
  check_accumulator("fits", 0x7fffffff / (255 * 128), 255, 8);
  check_accumulator("fits", 0, 255, 8);
  CHECK(error_of<ModelError>([] { check_accumulator("layer4", 0x7fffffff / (255 * 128) + 1, 255, 8); }) ==
        "layer4: 65794 products of up to 255 x 128 may overflow the 32-bit sum; use fewer bits or a smaller width");
  check_accumulator("fits", 0x7fffffff / (240 * 8), 240, 4);
  CHECK(!error_of<ModelError>([] { check_accumulator("layer4", 0x7fffffff / (240 * 8) + 1, 240, 4); }).empty());
}

TEST_CASE("the image table is the signed quantizer of the normalised byte, plus 128") {
  const ActivationQuantizer q = make_activation_quantizer({2.2f, 2.4f, 2.0f}, 8, true, FactorForm::kFold);
  const std::vector<uint8_t> table = image_code_table(q, {});
  REQUIRE(table.size() == 768);
  for (int c = 0; c < 3; ++c)
    for (int byte = 0; byte < 256; ++byte) {
      const double value = (byte / 255.0 - PixelNorm().mean[at(c)]) / PixelNorm().std[at(c)];
      const double t = std::clamp(value * static_cast<double>(q.scale[at(c)]), -127.0, 127.0);
      const int code = table[at(c * 256 + byte)] - 128;
      CHECK(std::abs(code - t) <= 0.5 + 1e-4);
      CHECK((code >= -127 && code <= 127));
      if (byte > 0) CHECK(table[at(c * 256 + byte)] >= table[at(c * 256 + byte - 1)]);
    }
  CHECK(table[0] == 128 - 122);  // -2.1179 * 127 / 2.2 = -122.26
  CHECK(table[255] == 255);      // 2.2489 is above the bound: clipped to 127
  const std::vector<uint8_t> even = image_code_table(q, {.mean = {0.5, 0.5, 0.5}, .std = {0.5, 0.25, 1}});
  CHECK(even[0] == 128 - 58);           // -1 * 127 / 2.2 = -57.7
  CHECK(even[256 + 255] == 128 + 106);  // 2 * 127 / 2.4 = 105.8
  CHECK(even[512] == 128 - 32);         // -0.5 * 127 / 2 = -31.75
}
