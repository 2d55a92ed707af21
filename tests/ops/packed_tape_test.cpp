// A whole network on one tape: stem, residual block with projection, average pool, linear; every value and gradient
// against double arithmetic that starts each layer from the codes the engine stored.
#include "ops/pool_activate.hpp"
#include "tests/ops/packed_support.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

constexpr int64_t kBatch = 3, kClasses = 10, kInner = 39, kOuter = 64;

/// Geometry: 3 -> 39 channels at 9x8, then a 3x3 and a 1x1 projection with stride 2 to 64 channels at 5x4.
ConvShape stem_shape() {
  return {.n = kBatch, .h = 9, .w = 8, .ic = 3, .oc = kInner, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1};
}
ConvShape main_shape() {
  return {.n = kBatch,
          .h = 9,
          .w = 8,
          .ic = kInner,
          .oc = kOuter,
          .kh = 3,
          .kw = 3,
          .stride = 2,
          .pad_before = 1,
          .pad_after = 1};
}
ConvShape side_shape() {
  return {.n = kBatch, .h = 9, .w = 8, .ic = kInner, .oc = kOuter, .stride = 2};
}
ConvShape linear_shape() {
  return {.n = kBatch, .h = 1, .w = 1, .ic = kOuter, .oc = kClasses};
}

Shape kernel_of(const ConvShape& s) {
  return {s.oc, s.kh, s.kw, s.ic};
}

/// Parameters and gradients of one layer.
struct Layer {
  ConvShape shape;
  int bits;
  const ActivationQuantizer* quantizer;
  Tensor masters, d_weights;
  Tensor gamma, beta, d_gamma, d_beta;
  Layer(const ConvShape& s, int weight_bits, const ActivationQuantizer* q, uint32_t seed)
      : shape(s),
        bits(weight_bits),
        quantizer(q),
        masters(random_f32(kernel_of(s), seed)),
        d_weights(Tensor::zeros(DType::f32, kernel_of(s))),
        gamma(random_f32({s.oc}, seed + 1, 0.6f, 1.4f)),
        beta(random_f32({s.oc}, seed + 2, -0.3f, 0.5f)),
        d_gamma(Tensor::zeros(DType::f32, {s.oc})),
        d_beta(Tensor::zeros(DType::f32, {s.oc})) {}

  LayerWeights prepare(bool first_layer) const {
    return prepare_layer({.name = "layer",
                          .shape = shape,
                          .weights = masters,
                          .weight_bits = bits,
                          .quantizer = quantizer,
                          .passes = Passes::kForwardAndBackward,
                          .first_layer = first_layer});
  }
  /// The weights that the product stands for.
  Doubles w_hat() const {
    const WeightCodes w = quantize_weights(masters, quantizer->fold, {bits}, "layer");
    Doubles out = values_of(w.codes);
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t c = i % at(shape.ic), o = i / at(shape.k());
      out[i] /=
          static_cast<double>(w.scale[o]) * (quantizer->fold.empty() ? 1.0 : static_cast<double>(quantizer->fold[c]));
    }
    return out;
  }
};

Doubles dequantized(const Doubles& codes, const ActivationQuantizer& q, double offset) {
  Doubles out;
  for (const double code : codes) {
    const size_t c = out.size() % at(q.channels());
    out.push_back((code - offset) / static_cast<double>(q.scale[c]));
  }
  return out;
}

/// What the forward pass leaves behind, kept beyond the release of the variables.
struct Saved {
  Tensor y1, codes1, y2, y_side, z, pooled, pooled_codes, logits;
  NormStatistics s1, s2, s_side;
};

struct Network {
  ActivationQuantizer image, inner, outer;
  Layer stem, main, side, linear;
  Tensor bias = random_f32({kClasses}, 7), d_bias = Tensor::zeros(DType::f32, {kClasses});
  Tensor x;
  Doubles x_hat;

  explicit Network(FactorForm form)
      : image(make_activation_quantizer({2.2f, 2.4f, 2.6f}, 8, true, FactorForm::kFold)),
        inner(make_activation_quantizer(random_bounds(kInner, 1, 0.8f, 3.5f), 4, false, form)),
        outer(make_activation_quantizer(random_bounds(kOuter, 2, 0.8f, 1.6f), 8, false, FactorForm::kFold)),
        stem(stem_shape(), 8, &image, 10),
        main(main_shape(), 4, &inner, 20),
        side(side_shape(), 4, &inner, 30),
        linear(linear_shape(), 8, &outer, 40) {
    const std::vector<int> codes = random_codes(stem.shape.n * stem.shape.h * stem.shape.w * 3, -127, 127, 3);
    std::vector<uint8_t> bytes;
    for (const int code : codes) bytes.push_back(static_cast<uint8_t>(code + kSignedOffset));
    x = store_image<uint8_t>(bytes, stem.shape, kSignedOffset);
    x_hat = dequantized({codes.begin(), codes.end()}, image, 0.0);
  }

  static NormBranch branch(const Layer& layer, const LayerWeights& weights, const Variable& y,
                           const ChannelSums& sums) {
    return {.y = y,
            .statistics = normalise_sums(sums),
            .gamma = layer.gamma,
            .beta = layer.beta,
            .d_gamma = layer.d_gamma,
            .d_beta = layer.d_beta,
            .gradient_scale = y_gradient_scale(weights)};
  }

  Saved run(const Tensor& d_logits) const {
    const LayerWeights w1 = stem.prepare(true), w2 = main.prepare(false), w_side = side.prepare(false);
    const LayerWeights w3 = linear.prepare(false);
    Tape tape;
    ChannelSums sums;
    NormActivateArgs first, block;
    first.main = branch(stem, w1, packed_conv(&tape, Variable(x), w1, stem.d_weights, sums), sums);
    first.quantizer = &inner;
    const Variable codes1 = norm_activate(&tape, first).codes;
    const Variable y2 = packed_conv(&tape, codes1, w2, main.d_weights, sums);
    block.main = branch(main, w2, y2, sums);
    const Variable y_side = packed_conv(&tape, codes1, w_side, side.d_weights, sums);
    const NormBranch projection = branch(side, w_side, y_side, sums);
    block.projection = &projection;
    block.store_z = true;
    const Variable z = norm_activate(&tape, block).z;
    const Activated pooled = average_pool_activate(&tape, z, {.quantizer = &outer});
    const Variable logits = packed_linear(&tape, pooled.codes, w3, bias, linear.d_weights, d_bias);
    Saved s{first.main.y.value(), codes1.value(),       y2.value(),     y_side.value(),        z.value(),
            pooled.z.value(),     pooled.codes.value(), logits.value(), first.main.statistics, block.main.statistics,
            projection.statistics};
    tape.backward(logits, d_logits);
    return s;
  }
};

/// The reference's own batch norm in double.
struct Norm {
  Doubles mean, inv_std;
  Norm(const Doubles& y, size_t c) : mean(c), inv_std(c) {
    Doubles square(c);
    const double n = static_cast<double>(y.size() / c);
    for (size_t i = 0; i < y.size(); ++i) mean[i % c] += y[i] / n;
    for (size_t i = 0; i < y.size(); ++i) square[i % c] += (y[i] - mean[i % c]) * (y[i] - mean[i % c]) / n;
    for (size_t k = 0; k < c; ++k) inv_std[k] = 1 / std::sqrt(square[k] + 1e-5);
  }
  double xhat(const Doubles& y, size_t i) const { return (y[i] - mean[i % mean.size()]) * inv_std[i % mean.size()]; }
  Doubles apply(const Doubles& y, const Layer& layer) const {
    Doubles v;
    for (size_t i = 0; i < y.size(); ++i)
      v.push_back(xhat(y, i) * static_cast<double>(layer.gamma.data<float>()[i % mean.size()]) +
                  static_cast<double>(layer.beta.data<float>()[i % mean.size()]));
    return v;
  }
};

struct NormGradients {
  Doubles d_y, d_gamma, d_beta;
};

NormGradients backward(const Norm& norm, const Doubles& y, const Doubles& g, const Layer& layer) {
  const size_t c = norm.mean.size();
  NormGradients out{{}, Doubles(c), Doubles(c)};
  for (size_t i = 0; i < g.size(); ++i) {
    out.d_beta[i % c] += g[i];
    out.d_gamma[i % c] += g[i] * norm.xhat(y, i);
  }
  const double n = static_cast<double>(g.size() / c);
  for (size_t i = 0; i < g.size(); ++i)
    out.d_y.push_back(static_cast<double>(layer.gamma.data<float>()[i % c]) * norm.inv_std[i % c] *
                      (g[i] - out.d_beta[i % c] / n - norm.xhat(y, i) * out.d_gamma[i % c] / n));
  return out;
}

/// METHOD.md section 2: 0.5 in the lowest and the highest bucket, 0 beyond, and nothing behind a closed ReLU.
double slope(double v, const ActivationQuantizer& q, size_t i) {
  const double bucket = std::floor(v * static_cast<double>(q.scale[i % at(q.channels())]));
  const double top = static_cast<double>(q.top());
  return !(v > 0) ? 0.0 : bucket < 1 ? 0.5 : bucket < top ? 1.0 : bucket == top ? 0.5 : 0.0;
}

void check_network_forward(const Network& net, const Saved& s) {
  const Doubles y1 = values_of(s.y1), y2 = values_of(s.y2), y_side = values_of(s.y_side), codes1 = values_of(s.codes1);
  const auto near = [](const Doubles& got, const Sums& expected) {
    return first_beyond(got, expected.value, [&](size_t i) {
      return 1.01 * kUnitBf16 * std::abs(expected.value[i]) + 1e-5 * expected.magnitude[i];
    });
  };
  CHECK(near(y1, naive_forward(net.stem.shape, net.x_hat, net.stem.w_hat())) == "");
  const Doubles v1 = Norm(y1, at(kInner)).apply(y1, net.stem);
  for (size_t i = 0; i < v1.size(); ++i) {
    const double t = std::clamp(v1[i] * static_cast<double>(net.inner.scale[i % at(kInner)]), 0.0, 15.0);
    CHECK(std::abs(t - codes1[i] - 0.5) <= 0.5 + 1e-4);  // the bucket, up to fp32 at its edges
  }
  const Doubles a1 = dequantized(codes1, net.inner, 0.0);
  CHECK(near(y2, naive_forward(net.main.shape, a1, net.main.w_hat())) == "");
  CHECK(near(y_side, naive_forward(net.side.shape, a1, net.side.w_hat())) == "");
  const Doubles v = Norm(y2, at(kOuter)).apply(y2, net.main), w = Norm(y_side, at(kOuter)).apply(y_side, net.side);
  Sums z(static_cast<int64_t>(v.size()));
  for (size_t i = 0; i < v.size(); ++i) z.value[i] = std::max(0.0, v[i] + w[i]);
  // Two roundings to bf16: the projection's value, then z.
  CHECK(first_beyond(values_of(s.z), z.value,
                     [&](size_t i) { return 1.01 * kUnitBf16 * (std::abs(w[i]) + z.value[i]) + 1e-5; }) == "");
  const Doubles a3 = dequantized(values_of(s.pooled_codes), net.outer, 0.0);
  Sums logits = naive_forward(net.linear.shape, a3, net.linear.w_hat());
  for (size_t i = 0; i < logits.value.size(); ++i)
    logits.value[i] += static_cast<double>(net.bias.data<float>()[i % at(kClasses)]);
  CHECK(first_beyond(values_of(s.logits), logits.value, [&](size_t i) { return 1e-6 * (1 + logits.magnitude[i]); }) ==
        "");
}

/// Distance in the 2-norm; every rounding to bf16 on the way adds at most 2^-8.
void check_near(const Tensor& got, const Doubles& expected, int roundings) {
  CHECK(relative_distance(values_of(got), expected) <= roundings * kUnitBf16);
}

void check_backward(const Network& net, const Saved& s, const Tensor& d_logits) {
  const Doubles g = values_of(d_logits), pooled = values_of(s.pooled), z = values_of(s.z);
  Doubles d_bias(at(kClasses));
  for (size_t i = 0; i < g.size(); ++i) d_bias[i % d_bias.size()] += g[i];
  check_near(net.d_bias, d_bias, 0 + 1);
  const Doubles a3 = dequantized(values_of(s.pooled_codes), net.outer, 0.0);
  check_near(net.linear.d_weights, naive_weight_gradient(net.linear.shape, g, a3).value, 1);
  Doubles d_pooled = naive_input_gradient(net.linear.shape, g, net.linear.w_hat()).value;
  for (size_t i = 0; i < d_pooled.size(); ++i) d_pooled[i] *= slope(pooled[i], net.outer, i);

  Doubles d_v;  // of the block's sum: mean over the pixels, ReLU
  const size_t pixels = at(net.main.shape.oh() * net.main.shape.ow()), c2 = at(kOuter);
  for (size_t i = 0; i < z.size(); ++i)
    d_v.push_back(z[i] > 0 ? d_pooled[i / (pixels * c2) * c2 + i % c2] / static_cast<double>(pixels) : 0.0);
  const Doubles y2 = values_of(s.y2), y_side = values_of(s.y_side), y1 = values_of(s.y1);
  const NormGradients n2 = backward(Norm(y2, c2), y2, d_v, net.main);
  const NormGradients n_side = backward(Norm(y_side, c2), y_side, d_v, net.side);
  check_near(net.main.d_beta, n2.d_beta, 4);
  check_near(net.main.d_gamma, n2.d_gamma, 4);
  check_near(net.side.d_gamma, n_side.d_gamma, 4);
  const Doubles a1 = dequantized(values_of(s.codes1), net.inner, 0.0);
  check_near(net.main.d_weights, naive_weight_gradient(net.main.shape, n2.d_y, a1).value, 6);
  check_near(net.side.d_weights, naive_weight_gradient(net.side.shape, n_side.d_y, a1).value, 6);

  const Doubles from_main = naive_input_gradient(net.main.shape, n2.d_y, net.main.w_hat()).value;
  const Doubles from_side = naive_input_gradient(net.side.shape, n_side.d_y, net.side.w_hat()).value;
  const Norm norm1(y1, at(kInner));
  const Doubles v1 = norm1.apply(y1, net.stem);
  Doubles d_v1;
  for (size_t i = 0; i < v1.size(); ++i) d_v1.push_back((from_main[i] + from_side[i]) * slope(v1[i], net.inner, i));
  const NormGradients n1 = backward(norm1, y1, d_v1, net.stem);
  check_near(net.stem.d_beta, n1.d_beta, 8);
  check_near(net.stem.d_gamma, n1.d_gamma, 8);
  check_near(net.stem.d_weights, naive_weight_gradient(net.stem.shape, n1.d_y, net.x_hat).value, 10);
}

}  // namespace

TEST_CASE("a taped network has the values and gradients of double arithmetic on its codes") {
  const Tensor d_logits = random_f32({kBatch, kClasses}, 4);
  for (const FactorForm form : {FactorForm::kNone, FactorForm::kFold, FactorForm::kShift, FactorForm::kShiftFold}) {
    INFO("form " << static_cast<int>(form));
    on_every_level([&] {
      const Network net(form);
      const Saved saved = net.run(d_logits);
      check_network_forward(net, saved);
      check_backward(net, saved, d_logits);
    });
  }
}

TEST_CASE("a taped network gives the same bits with any number of threads") {
  const Tensor d_logits = random_f32({kBatch, kClasses}, 4);
  on_every_level([&] {
    std::vector<std::vector<Tensor>> runs;
    with_thread_counts([&] {
      const Network net(FactorForm::kShiftFold);
      const Saved s = net.run(d_logits);
      runs.push_back({s.logits, s.codes1, s.z, net.stem.d_weights, net.main.d_weights, net.side.d_weights,
                      net.linear.d_weights, net.d_bias, net.stem.d_gamma, net.main.d_gamma, net.side.d_beta});
    });
    for (const auto& run : runs)
      for (size_t i = 0; i < run.size(); ++i) CHECK(same_bytes(run[i], runs[0][i]));
  });
}

TEST_CASE("layers whose outputs nothing uses get zero gradients, and one of another size is refused") {
  const Network net(FactorForm::kFold);
  const LayerWeights conv = net.stem.prepare(true), linear = net.linear.prepare(false);
  const Tensor d_conv = random_f32(kernel_of(net.stem.shape), 1), d_linear = random_f32(kernel_of(linear.shape), 2);
  const Tensor d_bias = random_f32({kClasses}, 3);
  const Variable codes(Tensor::zeros(DType::u8, {kBatch, 1, 1, kOuter}, code_stride(kOuter)));
  Tape tape;
  ChannelSums sums;
  packed_conv(&tape, Variable(net.x), conv, d_conv, sums);
  packed_linear(&tape, codes, linear, net.bias, d_linear, d_bias);
  const Variable loss(Tensor::zeros(DType::f32, {1}), Grad::kWanted);
  tape.backward(loss);
  for (const Tensor& t : {d_conv, d_linear, d_bias})
    for (const double v : values_of(t)) CHECK(v == 0);

  Layer wrong = net.linear;
  wrong.masters = random_f32({kClasses, 1, 1, kOuter - 1}, 4);
  CHECK(error_of<ShapeError>([&] { wrong.prepare(false); }) == "[conv] layer has 630 weights, its shape asks for 640");
}
