// The gradients' drivers of levels with tiles, on emulated ones: the input's by planes, by images and chunk by chunk,
// the weights' on tiles; and those of packed rows where bf16 is multiplied in pairs.
#include "ops/image_gemm.hpp"
#include "ops/packed_conv_chunks.hpp"
#include "ops/weight_gradient_plan.hpp"
#include "tests/kernels/emulated/levels.hpp"
#include "tests/ops/packed_gradients.hpp"

namespace nibble::testing {
namespace {

const kernels::Table& tiles() {
  return kernels::emulated_amx::kEmulated;
}

LayerWeights tiled_layer(const Operands& op) {
  LayerWeights layer = op.layer(Passes::kForwardAndBackward, &tiles());
  REQUIRE(layer.strided());
  return layer;
}

Shape x_shape(const ConvShape& s) {
  return {s.n, s.h, s.w, s.ic};
}

std::vector<Precision> some_precisions() {
  return {code_precisions()[6], float_precisions()[2]};
}

WeightSink sink_of(const LayerWeights& layer, const Tensor& d_w) {
  const ConvShape& s = layer.shape;
  return layer.row_folded ? weight_sink(layer, d_w, s.kh, s.kw * s.ic) : weight_sink(layer, d_w, s.taps(), s.ic);
}

/// Whatever d_w held before.
Tensor tiled_weight_gradient(const LayerWeights& layer, const Operands& op, const Tensor& d_y) {
  const ConvShape& s = op.shape;
  const Tensor d_w = random_f32({s.oc, s.kh, s.kw, s.ic}, 42);
  const WeightSink sink = sink_of(layer, d_w);
  weight_gradient_tiled(tiles().weight_gradient, layer, s, op.x, d_y, sink);
  return d_w;
}

void check_weights(const Operands& op) {
  const OutputGradient g = output_gradient(op);
  check_weight_gradient(op.shape, tiled_weight_gradient(tiled_layer(op), op, g.carried),
                        naive_weight_gradient(op.shape, g.of_y, op.x_hat));
}

/// A layer of one tap in chunks of `per` grid rows, as packed_conv_backward makes both gradients.
struct Chunked {
  Tensor d_x, d_w;
};
Chunked in_chunks(const LayerWeights& layer, const Operands& op, const Tensor& d_y, int64_t per, const Tensor& before,
                  GradientStage* next) {
  const ConvShape& s = op.shape;
  Chunked made{.d_x = {}, .d_w = random_f32({s.oc, 1, 1, s.ic}, 42)};
  const WeightSink sink = sink_of(layer, made.d_w);
  Scratch scratch;
  const InputGradientChunks input(layer, s, before, next);
  const WeightGradientChunks weights(scratch, tiles().weight_gradient, layer, s, op.x, sink, per);
  CHECK(weights.count() == (s.n * s.h + per - 1) / per);
  for (int64_t chunk = 0; chunk < weights.count(); ++chunk) {
    const int64_t g0 = chunk * per, g1 = std::min(s.n * s.h, g0 + per);
    const kernels::Rows<const bf16> rows{d_y.row<bf16>(g0 * s.w), d_y.stride()};
    weights.add(chunk, rows);
    input.add(g0, g1, rows);
  }
  made.d_x = input.d_x();
  return made;
}

/// A convolution with as many pads as keep the size.
ConvShape same_size(int64_t n, int64_t side, int64_t ic, int64_t oc, int64_t kernel) {
  return {.n = n,
          .h = side,
          .w = side,
          .ic = ic,
          .oc = oc,
          .kh = kernel,
          .kw = kernel,
          .pad_before = kernel / 2,
          .pad_after = kernel / 2};
}

TEST_CASE("emulated: both gradients from pairs of bf16 match their definition") {
  set_float_mode();
  const std::vector<NamedShape> shapes = {{"odd map", three(2, 7, 5, 39, 79, 1, 1)},
                                          {"odd points, stride 2", three(1, 5, 9, 33, 17, 2, 1)},
                                          {"several chunks", three(3, 31, 47, 16, 15, 2, 1)},
                                          {"one tap", {.n = 3, .h = 5, .w = 7, .ic = 79, .oc = 130}}};
  for_each_layer(shapes, {float_precisions()[0]}, [](const Operands& op) {
    const ConvShape& s = op.shape;
    const OutputGradient g = output_gradient(op);
    const LayerWeights layer = op.layer(Passes::kForwardAndBackward, &kernels::emulated_avx512bf16::kEmulated);
    REQUIRE(layer.gradient_gemm == nullptr);
    REQUIRE(layer.float_gemm->kr == 2);
    check_input_gradient(s, packed_conv_backward_input(layer, g.carried, x_shape(s)),
                         input_gradient_of(layer, s, g, op.w_hat));
    const Tensor d_w = random_f32({s.oc, s.kh, s.kw, s.ic}, 42);
    packed_conv_backward_weights(layer, op.x, g.carried, d_w);
    check_weight_gradient(s, d_w, weight_gradient_of(layer, s, g, op.x_hat));
  });
}

}  // namespace

TEST_CASE(
    "emulated drivers: the input's gradient matches its definition, and its rows are handed over once, in order") {
  set_float_mode();
  for_each_layer(conv_shapes(), some_precisions(), [](const Operands& op) {
    const ConvShape& s = op.shape;
    const OutputGradient g = output_gradient(op);
    const LayerWeights layer = tiled_layer(op);
    const Tensor d_x = packed_conv_backward_input(layer, g.carried, x_shape(s));
    check_input_gradient(s, d_x, naive_input_gradient(s, g.of_y, op.w_hat));
    const Tensor before = random_bf16(x_shape(s), 96);
    const Tensor sum = packed_conv_backward_input(layer, g.carried, x_shape(s), before);
    const Doubles b = values_of(before), bare = values_of(d_x);
    Doubles expected = bare;
    for (size_t i = 0; i < b.size(); ++i)
      expected[i] = static_cast<double>(to_float(to_bf16(static_cast<float>(b[i] + bare[i]))));
    CHECK(values_of(sum) == expected);
    if (!hands_over_rows(layer)) return;
    Collected collected(x_shape(s)), alone(x_shape(s));
    CHECK(!packed_conv_backward_input(layer, g.carried, x_shape(s), before, &collected).defined());
    // A strided layer rounds only the sum, not its own part before.
    CHECK(first_beyond(values_of(collected.rows), expected, [&](size_t i) {
            return s.stride == 1 || bare[i] == 0 ? 0.0 : 2 * kUnitBf16 * (std::abs(b[i]) + std::abs(bare[i]));
          }) == "");
    packed_conv_backward_input(layer, g.carried, x_shape(s), {}, &alone);
    CHECK(values_of(alone.rows) == bare);
    for (const Collected* c : {&collected, &alone}) {
      CHECK(c->each_once());
      CHECK(c->in_order);
    }
  });
}

TEST_CASE("emulated drivers: an image's gradient is the same, bit by bit, by planes and among 32 images") {
  set_float_mode();
  for (const NamedShape& named : conv_shapes()) {
    const ConvShape& s = named.shape;
    if (s.n < 32) continue;
    for_each_layer({named}, some_precisions(),
                   [&](const Operands& op) { check_images_alone(tiled_layer(op), s, output_gradient(op).carried); });
  }
}

TEST_CASE("emulated drivers: the tiled weight gradient matches its definition for every shape") {
  set_float_mode();
  for_each_layer(conv_shapes(),
                 {code_precisions()[4], code_precisions()[0], code_precisions()[8], float_precisions()[0]},
                 check_weights);
  for_each_layer(first_layer_shapes(), {signed_precisions()[0], float_precisions()[0]}, check_weights);
}

TEST_CASE("emulated drivers: the tiled weight gradient of small maps, whose steps are images, matches its definition") {
  set_float_mode();
  const ConvShape wide{.n = 32, .h = 2, .w = 9, .ic = 7, .oc = 5, .kh = 1, .kw = 3, .pad_before = 1, .pad_after = 0};
  const ConvShape strided{.n = 32, .h = 7, .w = 8, .ic = 5, .oc = 4, .kh = 2, .kw = 2, .stride = 3};
  for (const ConvShape& s :
       {three(32, 2, 2, 64, 79, 1, 1), three(64, 4, 4, 33, 32, 1, 1), three(32, 7, 5, 15, 40, 1, 1),
        three(32, 8, 8, 16, 17, 2, 1), three(32, 7, 5, 17, 16, 2, 1), three(32, 6, 6, 3, 33, 2, 0),
        three(64, 15, 16, 3, 4, 2, 1), wide, strided}) {
    CHECK(images_innermost(forward_gather(s)));
    for_each_layer({{"small", s}}, {code_precisions()[4], float_precisions()[0]}, check_weights);
  }
}

TEST_CASE(
    "emulated drivers: a weight gradient in chunks, groups and parts is the usual one within bounds, for any threads") {
  set_float_mode();
  bool chunks = false, groups = false, parts = false, either[2] = {};
  for (const ConvShape& s : {same_size(2, 28, 79, 64, 3), same_size(5, 14, 352, 330, 1), same_size(12, 28, 33, 130, 1),
                             same_size(4, 14, 15, 300, 3)}) {
    const Operands op = make_operands({"large", s}, code_precisions()[4]);
    const LayerWeights layer = tiled_layer(op);
    const weight_gradient::TiledPlan plan = weight_gradient::make_plan(weight_gradient::geometry(layer, s), s.oc, s.ic);
    chunks = chunks || plan.chunks > 1;
    groups = groups || plan.group < plan.staying();
    parts = parts || plan.at_once < plan.streaming();
    either[plan.left_stays] = true;
    // All products are positive, so that their sum is the sum of their magnitudes.
    const Tensor d_y = random_bf16({s.n, s.oh(), s.ow(), s.oc}, 44, 0.0f, 1.0f);
    const Tensor usual = Tensor::zeros(DType::f32, {s.oc, s.kh, s.kw, s.ic});
    packed_conv_backward_weights(op.layer(Passes::kForward), op.x, d_y, usual);
    const Doubles expected = values_of(usual);
    std::vector<Tensor> d_w;
    with_thread_counts([&] { d_w.push_back(tiled_weight_gradient(layer, op, d_y)); });
    for (const Tensor& other : d_w) CHECK(same_bytes(other, d_w[0]));
    const Doubles magnitude = level_magnitude(op, d_y, expected);
    const double terms = static_cast<double>(s.out_pixels()) + other_roundings(4);
    INFO(s.n << " of " << s.h << " px, " << s.ic << " to " << s.oc);
    CHECK(first_beyond(values_of(d_w[0]), expected, [&](size_t i) { return terms * 4 * kUnitF32 * magnitude[i]; }) ==
          "");
  }
  CHECK(chunks);
  CHECK(groups);
  CHECK(parts);
  CHECK((either[0] && either[1]));
}

TEST_CASE("emulated drivers: gradients made chunk by chunk are the input's bits and the weights' definition") {
  set_float_mode();
  std::vector<NamedShape> shapes;
  for (const NamedShape& named : conv_shapes())
    if (named.shape.taps() == 1 && named.shape.stride == 1) shapes.push_back(named);
  shapes.push_back({"1x1, several chunks", {.n = 5, .h = 14, .w = 14, .ic = 79, .oc = 39}});
  for_each_layer(shapes, {code_precisions()[4], code_precisions()[6], float_precisions()[0]}, [](const Operands& op) {
    const ConvShape& s = op.shape;
    const OutputGradient g = output_gradient(op);
    const LayerWeights layer = tiled_layer(op);
    const Tensor before = random_bf16(x_shape(s), 96);
    const Sums expected = naive_weight_gradient(s, g.of_y, op.x_hat);
    Gather gather = layer.input_gradient.front().pixels.gather;
    gather.n = s.n;
    const int64_t task = grid_rows_per_task(gather);
    for (const int64_t per : {task, 2 * task}) {
      INFO("chunks of " << per << " rows");
      std::vector<Tensor> d_w;
      with_thread_counts([&] {
        const Chunked made = in_chunks(layer, op, g.carried, per, before, nullptr);
        CHECK(same_bytes(made.d_x, packed_conv_backward_input(layer, g.carried, x_shape(s), before)));
        d_w.push_back(made.d_w);
      });
      for (const Tensor& other : d_w) CHECK(same_bytes(other, d_w[0]));
      check_weight_gradient(s, d_w[0], expected);
      Collected collected(x_shape(s)), whole(x_shape(s));
      CHECK(!in_chunks(layer, op, g.carried, per, before, &collected).d_x.defined());
      packed_conv_backward_input(layer, g.carried, x_shape(s), before, &whole);
      CHECK(same_bytes(collected.rows, whole.rows));
      CHECK(collected.taken_by == whole.taken_by);
      CHECK(collected.each_once());
      CHECK(collected.in_order);
    }
  });
}

}  // namespace nibble::testing
