// The packed convolution forward: exact accumulators, rescaling, channel sums, threads, the linear layer.
#include "ops/packed_conv.hpp"

#include "tests/ops/packed_layers.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

/// fp32 sums of `terms` exact products in any order, a few roundings more for what is around them.
double sum_bound(double terms, double magnitude) {
  return (terms + 4) * 2 * kUnitF32 * magnitude;
}

void check_forward(const Operands& op) {
  const Sums expected = naive_forward(op.shape, op.multiplied_x, op.multiplied_w);
  const double k = static_cast<double>(op.shape.k());
  on_every_level([&] {
    const LayerWeights layer = op.layer(Passes::kForward);
    CHECK(layer.row_folded == op.row_folded);
    CHECK(layer.integer() == op.codes());
    const Tensor acc = conv_accumulators(layer, op.x);
    CHECK(acc.dtype() == (op.codes() ? DType::s32 : DType::f32));
    CHECK(first_beyond(values_of(acc), expected.value,
                       [&](size_t i) { return op.codes() ? 0.0 : sum_bound(k, expected.magnitude[i]); }) == "");
  });
}

/// y from the accumulators of the level itself: one multiplication, one rounding, bit by bit.
void check_rescaling(const Operands& op) {
  const ConvShape& s = op.shape;
  const Sums exact = naive_forward(s, op.x_hat, op.w_hat);
  on_every_level([&] {
    const LayerWeights layer = op.layer(Passes::kForward);
    ChannelSums sums;
    const Doubles acc = values_of(conv_accumulators(layer, op.x));
    const Tensor y = packed_conv_forward(layer, op.x, sums);
    CHECK(y.shape() == Shape{s.n, s.oh(), s.ow(), s.oc});
    CHECK(y.row_bytes() % 64 == 0);
    Doubles bits, sum(at(s.oc)), sum_sq(at(s.oc)), magnitude(at(s.oc));
    for (size_t i = 0; i < acc.size(); ++i) {
      const size_t o = i % at(s.oc);
      const float scale = layer.rescale.empty() ? 1.0f : layer.rescale[o];
      const double v = static_cast<double>(to_float(to_bf16(static_cast<float>(acc[i]) * scale)));
      bits.push_back(v);
      sum[o] += v;
      sum_sq[o] += v * v;
      magnitude[o] += std::abs(v);
    }
    const Doubles got = values_of(y);
    CHECK(first_beyond(got, bits, [](size_t) { return 0.0; }) == "");
    // The dequantized meaning: one bf16 rounding, and the roundings of scale, fold and common.
    CHECK(first_beyond(got, exact.value, [&](size_t i) {
            return kUnitBf16 * std::abs(exact.value[i]) + sum_bound(static_cast<double>(s.k()), exact.magnitude[i]);
          }) == "");
    CHECK(sums.count == s.out_pixels());
    const double terms = static_cast<double>(s.out_pixels());
    CHECK(first_beyond(sums.sum, sum, [&](size_t o) { return terms * kUnitF32 * magnitude[o]; }) == "");
    CHECK(first_beyond(sums.sum_sq, sum_sq, [&](size_t o) { return (terms + 1) * kUnitF32 * sum_sq[o]; }) == "");
  });
}

NamedShape shape_named(const std::string& name) {
  for (const auto& all : {conv_shapes(), first_layer_shapes()})
    for (const NamedShape& s : all)
      if (s.name == name) return s;
  throw ShapeError("no test shape is named {}", name);
}

}  // namespace

TEST_CASE("integer accumulators are exact for every shape and every kind of codes") {
  for_each_layer(conv_shapes(), code_precisions(), check_forward);
}

TEST_CASE("integer accumulators of first layers are exact, with the signed offset in the padding") {
  for_each_layer(first_layer_shapes(), signed_precisions(), check_forward);
}

TEST_CASE("accumulators of bf16 inputs are within the bound of their fp32 sums") {
  for_each_layer(conv_shapes(), float_precisions(), check_forward);
  for_each_layer(first_layer_shapes(), float_precisions(), check_forward);
}

TEST_CASE("accumulators stay exact at the largest codes of the longest sums") {
  const ConvShape s{.n = 1, .h = 2, .w = 2, .ic = 600, .oc = 17, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1};
  for (const Precision& p : code_precisions()) {
    Operands op = make_operands({"largest", s}, p);
    const int top = static_cast<int>(op.quantizer.top());
    const int weight = (1 << (p.weight_bits - 1)) - 1;
    op.x = store_codes(std::vector<int>(at(s.n * s.h * s.w * s.ic), top), {s.n, s.h, s.w, s.ic}, op.quantizer);
    for (size_t i = 0; i < op.multiplied_x.size(); ++i)
      op.multiplied_x[i] = top * (op.quantizer.factor.empty() ? 1 : op.quantizer.factor[i % at(s.ic)]);
    for (int64_t i = 0; i < s.oc * s.k(); ++i) {
      const int code = i / s.k() % 2 == 0 ? weight : -weight;  // output channels of one sign
      op.weights.codes.data<int8_t>()[i] = static_cast<int8_t>(code);
      op.multiplied_w[at(i)] = code;
    }
    INFO(p.name);
    check_forward(op);
  }
}

TEST_CASE("y is bf16(acc * rescale), its channel sums are those of the rounded values") {
  for (const std::vector<Precision>& precisions : {code_precisions(), float_precisions()})
    for_each_layer({shape_named("1x1, 39 to 64"), shape_named("1x1, several tasks"), shape_named("1x1, 130 to 79"),
                    shape_named("3x3 stride 2, odd sides"), shape_named("3x3, several tasks"),
                    shape_named("3x3, 32 images"), shape_named("3x3, 64 images, several tasks")},
                   precisions, check_rescaling);
  for (const std::vector<Precision>& precisions : {signed_precisions(), float_precisions()})
    for_each_layer(first_layer_shapes(), precisions, check_rescaling);
}

TEST_CASE("weights quantized by prepare_layer give the sum of the dequantized operands") {
  for (const Precision& p : code_precisions()) {
    const Operands op = make_operands(shape_named("3x3, 64 to 64"), p);
    INFO(p.name);
    on_every_level([&] {
      const LayerWeightsArgs args{.name = "layer",
                                  .shape = op.shape,
                                  .weights = op.masters,
                                  .weight_bits = p.weight_bits,
                                  .quantizer = &op.quantizer};
      const WeightCodes codes = quantize_weights(op.masters, op.quantizer.fold, {p.weight_bits}, "layer");
      const Tensor a = conv_accumulators(prepare_layer(args), op.x);
      CHECK(same_bytes(a, conv_accumulators(prepare_layer(args, codes), op.x)));
      CHECK(first_beyond(values_of(a), naive_forward(op.shape, op.multiplied_x, values_of(codes.codes)).value,
                         [](size_t) { return 0.0; }) == "");
    });
  }
}

TEST_CASE("forward results do not depend on the number of threads or on the rest of the batch") {
  for (const char* name :
       {"1x1, several tasks", "3x3, several tasks", "3x3 stride 2, several tasks", "3x3, 64 images, several tasks",
        "3x3, 64 images, whole tasks", "3x3 stride 2, 32 images, SAME", "stem, several tasks"})
    for (const Precision& p : {signed_precisions()[0], float_precisions()[2]}) {
      const NamedShape named = shape_named(name);
      const Operands op = make_operands(named, p);
      INFO(name << "; " << p.name);
      on_every_level([&] {
        const LayerWeights layer = op.layer(Passes::kForward);
        std::vector<Tensor> acc, y;
        std::vector<ChannelSums> sums;
        with_thread_counts([&] {
          sums.emplace_back();
          acc.push_back(conv_accumulators(layer, op.x));
          y.push_back(packed_conv_forward(layer, op.x, sums.back()));
        });
        for (size_t i = 1; i < y.size(); ++i) {
          CHECK(same_bytes(acc[i], acc[0]));
          CHECK(same_bytes(y[i], y[0]));
          CHECK(sums[i].sum == sums[0].sum);
          CHECK(sums[i].sum_sq == sums[0].sum_sq);
        }
        const int64_t last = op.shape.n - 1, rows = op.x.rows() / op.shape.n;
        Tensor alone(op.x.dtype(), {1, op.x.dim(1), op.x.dim(2), op.x.dim(3)}, op.x.stride());
        std::memcpy(alone.raw(), op.x.raw() + at(last * rows) * op.x.row_bytes(), alone.bytes());
        const Tensor one = conv_accumulators(layer, alone);
        CHECK(std::memcmp(one.raw(), acc[0].raw() + at(last) * one.bytes(), one.bytes()) == 0);
      });
    }
}

TEST_CASE("codes give the same y and the same channel sums on every level, bit by bit") {
  for (const char* name : {"3x3, several tasks", "3x3, 64 images, several tasks", "3x3, 64 images, whole tasks",
                           "3x3 stride 2, 32 images, odd sides"})
    for (const Precision& p : {code_precisions()[4], signed_precisions()[0]}) {
      const Operands op = make_operands(shape_named(name), p);
      INFO(name << "; " << p.name);
      std::vector<Tensor> y;
      std::vector<ChannelSums> sums;
      on_levels(runnable_isas(), [&] {  // also where one is forced: they are compared with each other
        sums.emplace_back();
        y.push_back(packed_conv_forward(op.layer(Passes::kForward), op.x, sums.back()));
        CHECK(same_bytes(y.back(), y[0]));
        CHECK(sums.back().sum == sums[0].sum);
        CHECK(sums.back().sum_sq == sums[0].sum_sq);
      });
    }
}

TEST_CASE("an empty batch gives an empty result") {
  const Operands op = make_operands(shape_named("3x3"), code_precisions()[0]);
  const LayerWeights layer = op.layer(Passes::kForward);
  ChannelSums sums;
  const Tensor none(DType::u8, {0, op.shape.h, op.shape.w, op.shape.ic}, code_stride(op.shape.ic));
  CHECK(packed_conv_forward(layer, none, sums).shape() == Shape{0, op.shape.oh(), op.shape.ow(), op.shape.oc});
  CHECK(sums.count == 0);
  CHECK(sums.sum == Doubles(at(op.shape.oc), 0.0));
}

TEST_CASE("the logits of a linear layer are acc * rescale + bias in fp32") {
  for (const std::vector<Precision>& precisions : {code_precisions(), float_precisions()})
    for (const Precision& p : precisions) {
      const Operands op = make_operands(shape_named("1x1, linear layer"), p);
      const int64_t n = op.shape.n, oc = op.shape.oc;
      const Tensor bias = random_f32({oc}, 31);
      INFO(p.name);
      on_every_level([&] {
        const LayerWeights layer = op.layer(Passes::kForward);
        const Variable logits = packed_linear(nullptr, Variable(op.x), layer, bias, Tensor(), Tensor());
        CHECK(logits.shape() == Shape{n, oc});
        const Doubles acc = values_of(conv_accumulators(layer, op.x));
        Doubles expected;
        for (size_t i = 0; i < acc.size(); ++i) {
          const size_t o = i % at(oc);
          const float product = static_cast<float>(acc[i]) * (layer.rescale.empty() ? 1.0f : layer.rescale[o]);
          expected.push_back(static_cast<double>(product + bias.data<float>()[o]));
        }
        CHECK(first_beyond(values_of(logits.value()), expected, [](size_t) { return 0.0; }) == "");
      });
    }
}

TEST_CASE("operands that do not fit a layer are refused in words") {
  const Operands op = make_operands(shape_named("3x3"), code_precisions()[0]);
  const LayerWeights layer = op.layer(Passes::kForward);
  CHECK(error_of<ShapeError>([&] {
          conv_accumulators(layer, Tensor(DType::u8, {1, 5, 4, 16}, 64));
        }) == "[conv] layer reads [n,5,4,17], got [1,5,4,16]");
  CHECK(error_of<DTypeError>([&] {
          conv_accumulators(layer, random_bf16({1, 5, 4, 17}, 1));
        }) == "[conv] layer reads u8 or u4 codes, got bf16");
  const Operands plain = make_operands(shape_named("3x3"), float_precisions()[0]);
  for (const DType other : {DType::u8, DType::f32})
    CHECK(error_of<DTypeError>([&] {
            conv_accumulators(plain.layer(Passes::kForward), Tensor(other, {1, 5, 4, 17}));
          }) == fmt::format("[conv] layer reads bf16, got {}", name_of(other)));
  const Operands stem = make_operands(shape_named("stem, odd sides"), signed_precisions()[0]);
  const LayerWeights folded = stem.layer(Passes::kForward);
  CHECK(!error_of<ShapeError>([&] { conv_accumulators(folded, Tensor(DType::u8, {1, 17, 19, 3}, 64)); }).empty());
  CHECK(error_of<DTypeError>([&] {
          prepare_layer({.name = "conv1", .shape = op.shape, .weights = op.masters, .quantizer = &op.quantizer});
        }) == "[conv] conv1 multiplies codes by bf16 weights; quantize the weights");
}
