// The packed ops of training and the plain ones of f32, which state what they compute: on small integers, where every
// sum is exact, they agree, forward and backward.
#include <doctest/doctest.h>

#include "ops/average_pool.hpp"
#include "ops/conv2d.hpp"
#include "ops/linear.hpp"
#include "ops/max_pool.hpp"
#include "ops/pool_activate.hpp"
#include "tests/ops/packed_layers.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

/// Whole numbers from low to high.
Tensor integers(const Shape& shape, int low, int high, uint32_t seed) {
  const Tensor t(DType::f32, shape);
  const std::vector<int> values = random_codes(t.size(), low, high, seed);
  std::copy(values.begin(), values.end(), t.data<float>());
  return t;
}

Tensor as_bf16(const Tensor& t) {
  const Tensor out(DType::bf16, t.shape(), Tensor::round_stride(DType::bf16, t.shape().back()));
  for (int64_t r = 0; r < t.rows(); ++r)
    for (int64_t c = 0; c < t.shape().back(); ++c) out.row<bf16>(r)[c] = to_bf16(t.row<float>(r)[c]);
  return out;
}

/// Elements that differ from the plain op's by more than `error` of the largest one, beyond one rounding to bf16 of
/// those that are stored so.
int64_t apart(const Tensor& packed, const Tensor& plain, double error) {
  REQUIRE(packed.shape() == plain.shape());
  const Doubles got = values_of(packed), expected = values_of(plain);
  double largest = 0;
  for (const double e : expected) largest = std::max(largest, std::abs(e));
  const double rounding = packed.dtype() == DType::bf16 ? kUnitBf16 : 0;
  int64_t wrong = 0;
  for (size_t i = 0; i < got.size(); ++i)
    wrong += !(std::abs(got[i] - expected[i]) <= error * largest + rounding * std::abs(expected[i]));
  return wrong;
}

/// Gradients of 3x3 layers may be made in tiles, whose transforms round (ops/winograd.hpp); seen: 2e-6 of the largest.
constexpr double kTiles = 1e-5;

}  // namespace

TEST_CASE("packed convolutions agree with conv2d, forward and backward") {
  for (const NamedShape& named : conv_shapes()) {
    const ConvShape& s = named.shape;
    CAPTURE(named.name);
    const Tensor x = integers({s.n, s.h, s.w, s.ic}, 0, 3, 5), w = integers({s.oc, s.kh, s.kw, s.ic}, -2, 2, 6);
    const Tensor d_y = integers({s.n, s.oh(), s.ow(), s.oc}, -2, 2, 7);
    const Conv2dArgs args{.stride = s.stride, .pad_before = s.pad_before, .pad_after = s.pad_after};
    const Tensor y = conv2d_forward(x, w, args), d_x = conv2d_backward_x(d_y, w, x.shape(), args);
    const Tensor d_w = conv2d_backward_w(d_y, x, w.shape(), args);
    on_every_level([&] {
      const LayerWeights layer =
          prepare_layer({.name = "layer", .shape = s, .weights = w, .passes = Passes::kForwardAndBackward});
      Tape tape;
      const Variable in(as_bf16(x), Grad::kWanted);
      const Tensor d_weights = Tensor::zeros(DType::f32, w.shape());
      ChannelSums sums;
      const Variable out = packed_conv(&tape, in, layer, d_weights, sums);
      CHECK(apart(out.value(), y, 0) == 0);
      tape.backward(out, as_bf16(d_y));
      CHECK(apart(in.grad(), d_x, kTiles) == 0);
      CHECK(apart(d_weights, d_w, kTiles) == 0);
    });
  }
}

TEST_CASE("the packed linear layer agrees with linear, forward and backward") {
  constexpr int64_t kImages = 5, kIn = 79, kOut = 39;
  const Tensor x = integers({kImages, kIn}, 0, 3, 8), w = integers({kOut, kIn}, -2, 2, 9);
  const Tensor bias = integers({kOut}, -3, 3, 10), d_y = integers({kImages, kOut}, -2, 2, 11);
  const ConvShape shape{.n = kImages, .h = 1, .w = 1, .ic = kIn, .oc = kOut};
  on_every_level([&] {
    const LayerWeights layer = prepare_layer(
        {.name = "fc", .shape = shape, .weights = w.reshape({kOut, 1, 1, kIn}), .passes = Passes::kForwardAndBackward});
    Tape tape;
    const Variable in(as_bf16(x.reshape({kImages, 1, 1, kIn})), Grad::kWanted);
    const Tensor d_weights = Tensor::zeros(DType::f32, {kOut, 1, 1, kIn}), d_bias = Tensor::zeros(DType::f32, {kOut});
    const Variable logits = packed_linear(&tape, in, layer, bias, d_weights, d_bias);
    CHECK(apart(logits.value(), linear_forward(x, w, bias), 0) == 0);
    tape.backward(logits, d_y);
    CHECK(apart(in.grad(), linear_backward_x(d_y, w).reshape({kImages, 1, 1, kIn}), 0) == 0);
    CHECK(apart(d_weights, linear_backward_w(d_y, x).reshape({kOut, 1, 1, kIn}), 0) == 0);
    CHECK(apart(d_bias, linear_backward_bias(d_y), 0) == 0);
  });
}

TEST_CASE("the pools of training agree with the plain ones, forward and backward") {
  for (const Shape& shape : {Shape{3, 15, 13, 39}, Shape{2, 8, 8, 64}}) {
    const Tensor x = integers(shape, 0, 9, 12);  // many equal values: the first one wins
    const PoolShape pool{};
    const MaxPooled plain = max_pool_forward(x, pool);
    const Tensor d_max = integers(plain.y.shape(), -3, 3, 13), d_mean = integers({shape[0], 1, 1, shape[3]}, -3, 3, 14);
    const Tensor mean = average_pool_forward(x).reshape({shape[0], 1, 1, shape[3]});
    on_every_level([&] {
      Tape tape;
      const Variable in(as_bf16(x), Grad::kWanted);
      const Activated out = max_pool_activate(&tape, in, pool);
      CHECK(apart(out.z.value(), plain.y, 0) == 0);
      tape.backward(out.z, as_bf16(d_max));
      CHECK(apart(in.grad(), max_pool_backward_x(d_max, plain.winner, shape), 0) == 0);

      const Variable again(as_bf16(x), Grad::kWanted);
      const Activated pooled = average_pool_activate(&tape, again);
      CHECK(apart(pooled.z.value(), mean, 0) == 0);
      tape.backward(pooled.z, as_bf16(d_mean));
      CHECK(apart(again.grad(), average_pool_backward_x(d_mean.reshape({shape[0], shape[3]}), shape), 0) == 0);
    });
  }
}
