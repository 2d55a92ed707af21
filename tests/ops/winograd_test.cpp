// 3x3 convolutions in fewer products: exact whatever the shape, the cut and the codes, and only where they are.
#include "tests/ops/winograd_checks.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

/// Shapes beside those of every convolution: maps of one to nine rows, blocks that span images, many channels.
std::vector<NamedShape> shapes() {
  std::vector<NamedShape> all;
  for (const NamedShape& named : conv_shapes())
    if (named.shape.kh == 3 && named.shape.kw == 3 && named.shape.stride == 1) all.push_back(named);
  for (int64_t side = 1; side <= 9; ++side) all.push_back({"small maps", three(3, side, 10 - side, 16, 17, 1, 1)});
  all.push_back({"14x14", three(2, 14, 14, 79, 39, 1, 1)});
  all.push_back({"7x7, several images a block", three(5, 7, 7, 64, 33, 1, 1)});
  all.push_back({"no pad before", three(2, 6, 5, 15, 16, 1, 0)});
  all.push_back({"two pads before", three(2, 6, 5, 15, 16, 1, 2)});
  ConvShape unpadded_below = three(2, 6, 9, 15, 16, 1, 1);  // an odd number of rows and columns, and more pixels below
  unpadded_below.pad_after = 0;
  all.push_back({"no pad after", unpadded_below});
  return all;
}

const std::vector<Precision>& suitable() {
  static const std::vector<Precision> all = {{"u4 fold, s4", 4, false, FactorForm::kFold, 4},
                                             {"u4 none, s4", 4, false, FactorForm::kNone, 4}};
  return all;
}

}  // namespace

TEST_CASE("served 3x3 layers of 4-bit codes in fewer products have the sums of the plain product") {
  on_every_level([] {
    int64_t layers = 0;
    for_each_layer(shapes(), suitable(), [&](const Operands& op) {
      const LayerWeights layer = op.layer(Passes::kServing);
      CHECK(layer.fewer_products == !layer.strided());
      if (!layer.fewer_products) return;
      ++layers;
      CHECK(layer.int_gemm == &kernels::active().u6s7);
      check_fewer_products(op, layer);
    });
    if (layers == 0) MESSAGE("skipped: this level multiplies rows in place");
  });
}

TEST_CASE("the largest codes and weights of either sign reach the ends of what the transforms may give") {
  on_every_level([] {
    for (const int pattern : {0, 1, 2, 3}) {
      CAPTURE(pattern);
      Operands op = make_operands({"extremes", three(2, 6, 7, 130, 17, 1, 1)}, suitable().back());
      const ConvShape& s = op.shape;
      std::vector<int> codes;
      for (int64_t i = 0; i < s.n * s.h * s.w * s.ic; ++i) {
        const int64_t pixel = i / s.ic, y = pixel / s.w % s.h, x = pixel % s.w;
        codes.push_back(
            pattern == 0 || (pattern == 1 && (x / 2 + y / 2) % 2 == 0) || (pattern > 1 && (x + y) % 2 == 0) ? 15 : 0);
      }
      op.multiplied_x.assign(codes.begin(), codes.end());
      op.x = store_codes(codes, {s.n, s.h, s.w, s.ic}, op.quantizer);
      for (int64_t i = 0; i < s.oc * s.k(); ++i) {
        const int64_t tap = i / s.ic % 9;
        const int code = pattern == 3 && (tap / 3 + tap % 3) % 2 == 1 ? -7 : i / s.k() % 2 == 0 ? 7 : -7;
        op.weights.codes.data<int8_t>()[i] = static_cast<int8_t>(code);
        op.multiplied_w[at(i)] = code;
      }
      const LayerWeights layer = op.layer(Passes::kServing);
      if (layer.fewer_products) check_fewer_products(op, layer);
    }
  });
}

TEST_CASE("transformed codes and weights stay in the ranges of their kernels, and reach them") {
  const std::vector<int8_t> weights(at(2 * 9 * 3), 7);
  std::vector<int8_t> transformed(at(winograd::kPositions * 2 * 3));
  winograd::transform_weights(weights.data(), 2, 3, transformed.data());
  CHECK(*std::max_element(transformed.begin(), transformed.end()) == 63);
  CHECK(*std::min_element(transformed.begin(), transformed.end()) == 7);
  const auto suits = [](ConvShape s, int64_t multiplier, int bits) { return winograd::suits(s, multiplier, bits); };
  CHECK(suits(three(1, 5, 5, 64, 64, 1, 1), 15, 4));
  CHECK_FALSE(suits(three(1, 5, 5, 64, 64, 2, 1), 15, 4));
  CHECK_FALSE(suits(three(1, 5, 5, 64, 64, 1, 1), 16, 4));
  CHECK_FALSE(suits(three(1, 5, 5, 64, 64, 1, 1), 15, 5));
  CHECK_FALSE(suits(three(1, 5, 5, 32769, 64, 1, 1), 15, 4));
  CHECK_FALSE(suits({.n = 1, .h = 5, .w = 5, .ic = 64, .oc = 64}, 15, 4));
}

TEST_CASE("layers that fewer products do not suit keep the plain product") {
  on_every_level([] {
    for_each_layer({{"3x3", three(1, 4, 5, 16, 17, 1, 1)}}, code_precisions(), [](const Operands& op) {
      const Precision& p = op.precision;
      const bool suits = p.bits == 4 && p.weight_bits == 4 && !p.is_signed &&
                         (p.form == FactorForm::kFold || p.form == FactorForm::kNone);
      const LayerWeights layer = op.layer(Passes::kServing);
      CHECK(layer.fewer_products == (suits && !layer.strided()));
      CHECK_FALSE(op.layer(Passes::kForward).fewer_products);
    });
    // A file may hold -8, which no quantizer here makes and the transformed weights have no room for.
    Operands op = make_operands({"3x3", three(1, 4, 5, 16, 17, 1, 1)}, suitable().back());
    op.weights.codes.data<int8_t>()[5] = -8;
    op.multiplied_w[5] = -8;
    const LayerWeights layer = op.layer(Passes::kServing);
    CHECK_FALSE(layer.fewer_products);
    CHECK(values_of(conv_accumulators(layer, op.x)) == naive_forward(op.shape, op.multiplied_x, op.multiplied_w).value);
  });
}
