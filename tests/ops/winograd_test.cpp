// 3x3 Winograd convolutions: exact whatever the shape, the cut and the codes, and only where they are.
#include <algorithm>
#include <utility>

#include "tests/ops/winograd_checks.hpp"

using namespace nibble;
using namespace nibble::testing;
using winograd::Form;

namespace {

/// Shapes in addition to those of every convolution: maps of one to nine rows, blocks that span images, many channels.
std::vector<NamedShape> shapes() {
  std::vector<NamedShape> all;
  for (const NamedShape& named : conv_shapes())
    if (named.shape.kh == 3 && named.shape.kw == 3 && named.shape.stride == 1) all.push_back(named);
  for (int64_t side = 1; side <= 9; ++side) all.push_back({"small maps", three(3, side, 10 - side, 16, 17, 1, 1)});
  for (int64_t side = 8; side <= 13; ++side) all.push_back({"larger maps", three(2, side, 21 - side, 16, 17, 1, 1)});
  all.push_back({"14x14", three(2, 14, 14, 79, 39, 1, 1)});
  all.push_back({"more channels than tiles of 4x4 have", three(1, 8, 8, 130, 129, 1, 1)});
  all.push_back({"7x7, several images per block", three(5, 7, 7, 64, 33, 1, 1)});
  all.push_back({"no pad before", three(2, 6, 5, 15, 16, 1, 0)});
  all.push_back({"two pads before", three(2, 6, 5, 15, 16, 1, 2)});
  ConvShape unpadded_below = three(2, 6, 8, 15, 16, 1, 1);  // 5x7 outputs: odd both ways, without a pad after
  unpadded_below.pad_after = 0;
  all.push_back({"no pad after", unpadded_below});
  return all;
}

const std::vector<Precision>& four_bits() {
  static const std::vector<Precision> all = {{"u4 fold, s4", 4, false, FactorForm::kFold, 4},
                                             {"u4 none, s4", 4, false, FactorForm::kNone, 4}};
  return all;
}
const std::vector<Precision>& eight_bits() {
  static const std::vector<Precision> all = {{"u8 fold, s8", 8, false, FactorForm::kFold, 8},
                                             {"u4 shift+fold, s8", 4, false, FactorForm::kShiftFold, 8}};
  return all;
}

/// In tiles of which edge the level in use serves a suitable layer; 0: by the plain product.
int64_t edge_here(const LayerWeights& layer, const Operands& op) {
  const Precision& p = op.precision;
  if (layer.strided() || p.is_signed || op.shape.oh() * op.shape.ow() <= 4) return 0;
  if (p.weight_bits <= 4) return p.bits == 4 && (p.form == FactorForm::kFold || p.form == FactorForm::kNone) ? 2 : 0;
  const bool dot_of_bytes = active_isa() == Isa::avxvnni || active_isa() >= Isa::avx512vnni;
  const int64_t edge = winograd::wide_edge(op.shape, dot_of_bytes);
  return edge == 4 && !winograd::fits_larger_tiles(op.weights.codes.data<int8_t>(), op.shape.oc, op.shape.k(), 255)
             ? (dot_of_bytes ? 0 : 2)
             : edge;
}

/// Checks a layer; returns 1 if it is served this way, otherwise 0.
int64_t check_served(const Operands& op) {
  const LayerWeights layer = op.layer(Passes::kServing);
  CHECK(layer.served_edge == edge_here(layer, op));
  if (!layer.fewer_products()) return 0;
  if (op.precision.weight_bits > 4)
    CHECK(layer.wide_gemm == &kernels::active().s16s14);
  else
    CHECK((layer.wide_gemm == nullptr && layer.int_gemm == &kernels::active().u6s7));
  check_fewer_products(op, layer);
  return 1;
}

/// Codes and weights that reach the ends of what the transforms may give, by one of four patterns.
void set_extremes(Operands& op, int pattern) {
  const ConvShape& s = op.shape;
  const int most = op.precision.bits == 4 ? 15 : 255, top = op.precision.weight_bits == 4 ? 7 : 127;
  std::vector<int> codes;
  for (int64_t i = 0; i < s.n * s.h * s.w * s.ic; ++i) {
    const int64_t pixel = i / s.ic, y = pixel / s.w % s.h, x = pixel % s.w;
    const bool high = pattern == 0 || (pattern == 1 ? (x / 2 + y / 2) % 2 == 0 : (x + y) % 2 == 0);
    codes.push_back(high ? most : 0);
  }
  op.multiplied_x.assign(codes.begin(), codes.end());
  op.x = store_codes(codes, {s.n, s.h, s.w, s.ic}, op.quantizer);
  for (int64_t i = 0; i < s.oc * s.k(); ++i) {
    const int64_t tap = i / s.ic % 9;
    const bool low = i / s.k() % 2 != 0 || (pattern == 3 && (tap / 3 + tap % 3) % 2 == 1);
    const int code = low ? -top : top;
    op.weights.codes.data<int8_t>()[i] = static_cast<int8_t>(code);
    op.multiplied_w[at(i)] = code;
  }
}

}  // namespace

TEST_CASE("served 3x3 layers in fewer products have the sums of the plain product") {
  for (const auto* precisions : {&four_bits(), &eight_bits()})
    on_every_level([&] {
      int64_t layers = 0;
      for_each_layer(shapes(), *precisions, [&](const Operands& op) { layers += check_served(op); });
      if (layers == 0) MESSAGE("skipped: this level has the plain product alone");
    });
}

TEST_CASE("the largest codes and weights of either sign reach the ends of what the transforms may give") {
  on_every_level([] {
    for (const Precision& precision : {four_bits().back(), Precision{"u8 none, s8", 8, false, FactorForm::kNone, 8}})
      for (const ConvShape& s : {three(2, 6, 7, 130, 17, 1, 1), three(2, 6, 7, 1024, 17, 1, 1),
                                 three(2, 8, 11, 96, 17, 1, 1), three(2, 8, 11, 128, 17, 1, 1)})
        for (const int pattern : {0, 1, 2, 3}) {
          CAPTURE(pattern);
          INFO(precision.name, " channels ", s.ic);
          Operands op = make_operands({"extremes", s}, precision);
          set_extremes(op, pattern);
          check_served(op);
          // 9 * 96 * 127 * 255 are less than 2^25, with 128 channels they are more.
          const LayerWeights layer = op.layer(Passes::kServing);
          if (precision.weight_bits == 8 && s.h == 8 && !layer.strided())
            CHECK((layer.served_edge == 4) == (s.ic == 96));
        }
  });
}

TEST_CASE("tiles of 4x4 of 8-bit codes are exact up to the largest output that is let in, and no further") {
  // One filter of 2^25 / 255 or one more in all, another of the opposite sign, and a third that alternates.
  constexpr int64_t kDepth = 128, kSum = (int64_t{1} << 25) / 255;
  const Precision precision{"u8 none, s8", 8, false, FactorForm::kNone, 8};
  for (const int64_t sum : {kSum, kSum + 1}) {
    Operands op = make_operands({"largest output", three(1, 9, 8, kDepth, 3, 1, 1)}, precision);
    set_extremes(op, 0);
    const int64_t k = op.shape.k();
    for (int64_t o = 0; o < 3; ++o)
      for (int64_t i = 0, left = sum; i < k; ++i) {
        const int64_t code = std::min<int64_t>(left, 127);
        left -= code;
        const int64_t sign = o == 0 ? 1 : o == 1 ? -1 : i % 2 == 0 ? 1 : -1;
        op.weights.codes.data<int8_t>()[o * k + i] = static_cast<int8_t>(sign * code);
        op.multiplied_w[at(o * k + i)] = static_cast<double>(sign * code);
      }
    CHECK(winograd::fits_larger_tiles(op.weights.codes.data<int8_t>(), 3, k, 255) == (sum == kSum));
    on_every_level([&] {
      const bool tiles = op.layer(Passes::kServing).strided();
      CHECK((op.layer(Passes::kServing).served_edge == 4) == (sum == kSum && !tiles));
      check_served(op);
    });
  }
}

TEST_CASE("transformed codes and weights stay in the ranges of their kernels, and reach them") {
  const std::vector<int8_t> weights(at(2 * 9 * 3), 7);
  std::vector<int8_t> transformed(at(16 * 2 * 3));
  winograd::transform_weights(2, weights.data(), 2, 3, transformed.data());
  CHECK(*std::max_element(transformed.begin(), transformed.end()) == 63);
  CHECK(*std::min_element(transformed.begin(), transformed.end()) == 7);
  const std::vector<int8_t> lowest(at(2 * 9 * 3), -128);
  std::vector<int16_t> wide(at(36 * 2 * 3));
  winograd::transform_weights(4, lowest.data(), 2, 3, wide.data());
  CHECK(*std::max_element(wide.begin(), wide.end()) == -128);
  CHECK(*std::min_element(wide.begin(), wide.end()) == -6272);
  const auto form = [](ConvShape s, int64_t multiplier, int bits) { return winograd::form_of(s, multiplier, bits); };
  CHECK(form(three(1, 5, 5, 64, 64, 1, 1), 15, 4) == Form::kBytes);
  CHECK(form(three(1, 5, 5, 64, 64, 1, 1), 16, 4) == Form::kNone);
  CHECK(form(three(1, 5, 5, 64, 64, 1, 1), 15, 5) == Form::kWide);
  CHECK(form(three(1, 5, 5, 1024, 64, 1, 1), 255, 8) == Form::kWide);
  CHECK(form(three(1, 5, 5, 1025, 64, 1, 1), 255, 8) == Form::kNone);
  CHECK(form(three(1, 5, 5, 1025, 64, 1, 1), 15, 4) == Form::kBytes);
  CHECK(form(three(1, 5, 5, 64, 64, 2, 1), 15, 4) == Form::kNone);
  for (const auto& [h, w] : {std::pair(1, 1), std::pair(2, 2), std::pair(1, 4)})  // one tile
    for (const int bits : {4, 8}) CHECK(form(three(1, h, w, 64, 64, 1, 1), 15, bits) == Form::kNone);
  CHECK(form(three(9, 2, 3, 64, 64, 1, 1), 15, 4) == Form::kBytes);
  CHECK(form({.n = 1, .h = 5, .w = 5, .ic = 64, .oc = 64}, 15, 4) == Form::kNone);
}

TEST_CASE("8-bit layers of large maps and few channels are served in tiles of 4x4") {
  for (const bool dot_of_bytes : {false, true}) {
    const auto edge = [&](ConvShape s) { return winograd::wide_edge(s, dot_of_bytes); };
    CHECK(edge(three(1, 56, 56, 64, 64, 1, 1)) == 4);
    CHECK(edge(three(1, 8, 8, 128, 128, 1, 1)) == 4);
    CHECK(edge(three(1, 14, 14, 256, 64, 1, 1)) == 4);
    CHECK(edge(three(1, 14, 14, 128, 129, 1, 1)) == (dot_of_bytes ? 0 : 2));
    CHECK(edge(three(1, 7, 7, 64, 64, 1, 1)) == (dot_of_bytes ? 0 : 2));
    CHECK(edge(three(1, 9, 9, 64, 64, 1, 1)) == (dot_of_bytes ? 0 : 4));  // 2 * 324 products of 729
    CHECK(edge(three(1, 10, 10, 64, 64, 1, 1)) == 4);
    CHECK(edge(three(1, 2, 32, 64, 64, 1, 1)) == (dot_of_bytes ? 0 : 2));
  }
}

TEST_CASE("a cut into fewer products gives threads tasks and blocks that fit, whatever the map") {
  for (const NamedShape& named : shapes())
    for (const int64_t workers : {1, 2, 3, 8, 64})
      for (const int64_t mr : {4, 6, 14})
        for (const auto& [edge, bytes] : {std::pair<int64_t, int64_t>{2, 1}, {2, 2}, {4, 2}, {2, 4}}) {
          INFO(named.name, " workers ", workers);
          const Gather g = forward_gather(named.shape);
          Panels b;
          b.nr = 16;
          b.columns = workers % 2 == 0 ? 128 : 70;
          b.segment_k = round_up(named.shape.ic, 4);
          const winograd::Tiles tiles{g, edge};
          b.segments = tiles.positions();
          const winograd::Cut cut = winograd::cut_for_serving(tiles, b, workers, mr, bytes);
          CHECK(cut.tile_rows == g.n * ceil_div(g.gh, edge));
          CHECK((cut.panel_parts >= 1 && cut.panel_parts <= b.count()));
          CHECK((cut.row_parts >= 1 && cut.row_parts <= cut.tile_rows));
          CHECK(cut.tasks() >= std::min({workers, b.count(), cut.tile_rows}));
          // No fewer than half of the threads that the plain product keeps busy, as far as there are panels.
          const int64_t busy = std::min(workers, nibble::cut_for_serving(g, b, workers).tasks());
          CHECK((2 * cut.tasks() > busy || cut.panel_parts == b.count()));
          const int64_t across = tiles.across();
          const int64_t most = std::max(across, round_up<int64_t>(48, mr));
          CHECK((cut.rows_per_block >= 1 && cut.rows_per_block * across <= most));
          // Few channels: as many tiles as there are, up to the most.
          if (b.segment_k * bytes * tiles.positions() <= 128 * 16 && cut.tile_rows > cut.rows_per_block)
            CHECK((cut.rows_per_block + 1) * across > 48);
        }
}

TEST_CASE("a layer packed for serving is refused by the ops of training") {
  on_every_level([] {
    const Operands op = make_operands({"3x3", three(1, 4, 5, 16, 17, 1, 1)}, four_bits().back());
    const LayerWeights layer = op.layer(Passes::kServing);
    if (layer.fewer_products())
      CHECK_THROWS_WITH_AS(conv_accumulators(layer, op.x),
                           "[conv] layer was packed for serving; prepare it with Passes::kForward to compute it here",
                           ShapeError);
    else  // serves by the product of training
      CHECK_NOTHROW(conv_accumulators(layer, op.x));
  });
}

TEST_CASE("layers that fewer products do not suit keep the plain product") {
  on_every_level([] {
    for_each_layer({{"3x3", three(1, 4, 5, 16, 17, 1, 1)}}, code_precisions(), [](const Operands& op) {
      const LayerWeights layer = op.layer(Passes::kServing);
      CHECK(layer.served_edge == edge_here(layer, op));
      CHECK_FALSE(op.layer(Passes::kForward).fewer_products());
    });
    // A file may hold -8, which no quantizer here makes and for which the transformed weights have no room.
    Operands op = make_operands({"3x3", three(1, 4, 5, 16, 17, 1, 1)}, four_bits().back());
    op.weights.codes.data<int8_t>()[5] = -8;
    op.multiplied_w[5] = -8;
    const LayerWeights layer = op.layer(Passes::kServing);
    CHECK_FALSE(layer.fewer_products());
    CHECK(values_of(conv_accumulators(layer, op.x)) == naive_forward(op.shape, op.multiplied_x, op.multiplied_w).value);
  });
}
