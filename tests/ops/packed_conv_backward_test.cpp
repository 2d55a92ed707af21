// Gradients of the packed convolution against the analytic straight-through gradients in double.
#include "ops/packed_conv.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "ops/packed_conv_weight_gradient.hpp"
#include "ops/winograd.hpp"
#include "tests/ops/packed_gradients.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

/// Calls check(layer, expected) on every level; `expected_of(layer)` is the same on levels that multiply alike.
template <typename Expected, typename Check>
void on_every_level_with(const Operands& op, const Expected& expected_of, const Check& check) {
  std::map<int64_t, std::optional<Sums>> by_edge;
  on_every_level([&] {
    const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
    std::optional<Sums>& expected = by_edge[layer.gradient_edge];
    if (!expected) expected = expected_of(layer);
    check(layer, *expected);
  });
}

void check_input(const Operands& op) {
  const ConvShape& s = op.shape;
  const OutputGradient g = output_gradient(op);
  on_every_level_with(
      op, [&](const LayerWeights& layer) { return input_gradient_of(layer, s, g, op.w_hat); },
      [&](const LayerWeights& layer, const Sums& expected) {
        check_input_gradient(s, packed_conv_backward_input(layer, g.carried, {s.n, s.h, s.w, s.ic}), expected,
                             layer.gradient_edge);
      });
}

/// Whatever d_w held before.
void check_weights(const Operands& op) {
  const ConvShape& s = op.shape;
  const OutputGradient g = output_gradient(op);
  const Tensor before = random_f32({s.oc, s.kh, s.kw, s.ic}, 42);
  on_every_level_with(
      op, [&](const LayerWeights& layer) { return weight_gradient_of(layer, s, g, op.x_hat); },
      [&](const LayerWeights& layer, const Sums& expected) {
        const Tensor d_w = before.clone();
        packed_conv_backward_weights(layer, op.x, g.carried, d_w);
        check_weight_gradient(s, d_w, expected, layer.gradient_edge);
      });
}

void check_both(const Operands& op) {
  check_input(op);
  check_weights(op);
}

NamedShape several_tasks(const char* geometry) {
  for (const auto& all : {conv_shapes(), first_layer_shapes()})
    for (const NamedShape& s : all)
      if (s.name == std::string(geometry) + ", several tasks") return s;
  throw ShapeError("no test shape is named {}", geometry);
}

}  // namespace

TEST_CASE("straight-through gradients of code inputs match their definition for every shape and precision") {
  for_each_layer(conv_shapes(), code_precisions(), check_both);
}

TEST_CASE("gradients of bf16 inputs match their definition for every shape and precision") {
  for_each_layer(conv_shapes(), float_precisions(), check_both);
}

TEST_CASE("weight gradients of first layers match their definition for signed codes and bf16 images") {
  for_each_layer(first_layer_shapes(), signed_precisions(), check_weights);
  for_each_layer(first_layer_shapes(), float_precisions(), check_weights);
}

TEST_CASE("a stride that skips pixels leaves them a gradient of exactly zero") {
  const ConvShape s{.n = 2, .h = 5, .w = 4, .ic = 17, .oc = 3, .stride = 2};
  for (const Precision& p : {code_precisions()[4], float_precisions()[0]}) {
    const Operands op = make_operands({"1x1 stride 2", s}, p);
    const OutputGradient g = output_gradient(op);
    on_every_level([&] {
      const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
      const Doubles d_x = values_of(packed_conv_backward_input(layer, g.carried, {s.n, s.h, s.w, s.ic}));
      for (size_t i = 0; i < d_x.size(); ++i) {
        const size_t pixel = i / at(s.ic), x = pixel % at(s.w), y = pixel / at(s.w) % at(s.h);
        if (x % 2 != 0 || y % 2 != 0) CHECK(d_x[i] == 0.0);
      }
    });
  }
}

TEST_CASE("an empty batch has gradients of zero") {
  const ConvShape s{.n = 1, .h = 4, .w = 4, .ic = 3, .oc = 5, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1};
  for (const Precision& p : {signed_precisions()[0], code_precisions()[4], float_precisions()[0]}) {
    const Operands op = make_operands({"any", s}, p);
    const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
    const Tensor x(op.x.dtype(), {0, s.h, s.w, s.ic}, op.x.stride()), d_y(DType::bf16, {0, s.oh(), s.ow(), s.oc});
    const Tensor d_w = random_f32({s.oc, s.kh, s.kw, s.ic}, 1);
    packed_conv_backward_weights(layer, x, d_y, d_w);
    CHECK(same_bytes(d_w, Tensor::zeros(DType::f32, d_w.shape())));
    CHECK(packed_conv_backward_input(layer, d_y, x.shape()).shape() == x.shape());
  }
}

TEST_CASE("the gradient that y must carry is one over the weight scale, or nothing") {
  for (const auto& precisions : {code_precisions(), float_precisions()})
    for (const Precision& p : precisions) {
      const Operands op = make_operands({"any", {.n = 1, .h = 1, .w = 1, .ic = 3, .oc = 5}}, p);
      const std::vector<float> scale = y_gradient_scale(op.layer(Passes::kForward));
      const bool bare = p.weight_bits == 16 || p.mode == Precision::Mode::kDequantized;
      REQUIRE(scale.size() == (bare ? 0u : 5u));
      for (size_t o = 0; o < scale.size(); ++o) CHECK(scale[o] == 1.0f / op.weights.scale[o]);
    }
}

TEST_CASE("weight gradients of so many points that they are summed in parts match their definition on any thread") {
  CHECK(gradient_parts(1, 40) == 5);
  CHECK(gradient_parts(4, 40) == 4);
  CHECK(gradient_parts(1, 400) == 16);
  CHECK(gradient_parts(1, 15) == 1);
  CHECK(gradient_parts(9, 400) == 1);
  // Maps 80 wide have chunks of 6 rows: 40 in three images, the last part's last one shorter than the others. By
  // Winograd a chunk has 5 of an image's 21 rows of 20 tiles: 17 in four images, the last a row short, in two parts.
  const ConvShape s{.n = 3, .h = 79, .w = 80, .ic = 17, .oc = 15};
  ConvShape padded = s;
  padded.n = 4;
  padded.h = 83;
  padded.kh = padded.kw = 3;
  padded.pad_before = padded.pad_after = 1;
  for (const NamedShape& named : {NamedShape{"1x1", s}, NamedShape{"3x3", padded}})
    for (const Precision& p : {code_precisions()[6], float_precisions()[2]}) {
      const Operands op = make_operands(named, p);
      INFO(named.name << "; " << p.name);
      check_weights(op);
      const Tensor d_y = output_gradient(op).carried;
      on_every_level([&] {
        const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
        std::vector<Tensor> d_w;
        with_thread_counts([&] {
          d_w.emplace_back(DType::f32, Shape{s.oc, named.shape.kh, named.shape.kw, s.ic});
          packed_conv_backward_weights(layer, op.x, d_y, d_w.back());
        });
        for (const Tensor& other : d_w) CHECK(same_bytes(d_w.front(), other));
      });
    }
}

TEST_CASE("gradients do not depend on the number of threads") {
  for (const char* geometry : {"1x1", "3x3", "3x3 stride 2", "3x3, 64 images", "stem"})
    for (const Precision& p : {signed_precisions()[0], code_precisions()[6], float_precisions()[2]}) {
      const NamedShape named = several_tasks(geometry);
      if (named.first_layer && p.form == FactorForm::kShiftFold) continue;  // images are signed
      const Operands op = make_operands(named, p);
      const ConvShape& s = op.shape;
      const Tensor d_y = output_gradient(op).carried;
      INFO(geometry << "; " << p.name);
      on_every_level([&] {
        const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
        std::vector<Tensor> d_x, d_w;
        with_thread_counts([&] {
          if (!op.first_layer) d_x.push_back(packed_conv_backward_input(layer, d_y, {s.n, s.h, s.w, s.ic}));
          d_w.push_back(Tensor::zeros(DType::f32, {s.oc, s.kh, s.kw, s.ic}));
          packed_conv_backward_weights(layer, op.x, d_y, d_w.back());
        });
        for (size_t i = 1; i < d_w.size(); ++i) {
          CHECK(same_bytes(d_w[i], d_w[0]));
          if (!op.first_layer) CHECK(same_bytes(d_x[i], d_x[0]));
        }
      });
    }
}

TEST_CASE("the gradient of an image is the same, bit by bit, alone and among images that are worked on together") {
  for (const NamedShape& named : conv_shapes())
    for (const Precision& p : {code_precisions()[6], float_precisions()[0]}) {
      if (named.shape.n < 32) continue;
      const Operands op = make_operands(named, p);
      const ConvShape& s = op.shape;
      const Tensor d_y = output_gradient(op).carried;
      INFO(named.name << "; " << p.name);
      on_every_level([&] { check_images_alone(op.layer(Passes::kForwardAndBackward), s, d_y); });
    }
}

TEST_CASE("what was there before is added, and the rows of the sum are handed over once each, in order") {
  for (const NamedShape& named : conv_shapes())
    for (const Precision& p : {code_precisions()[6], float_precisions()[2]}) {
      const Operands op = make_operands(named, p);
      const ConvShape& s = op.shape;
      const Shape x_shape{s.n, s.h, s.w, s.ic};
      const Tensor d_y = output_gradient(op).carried, before = random_bf16(x_shape, 96);
      const Doubles b = values_of(before);
      INFO(named.name << "; " << p.name);
      on_every_level([&] {
        const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
        const Doubles bare = values_of(packed_conv_backward_input(layer, d_y, x_shape));
        Doubles expected = bare;
        for (size_t i = 0; i < b.size(); ++i)
          expected[i] = static_cast<double>(to_float(to_bf16(static_cast<float>(b[i] + expected[i]))));
        CHECK(values_of(packed_conv_backward_input(layer, d_y, x_shape, before)) == expected);
        Collected collected(x_shape);
        if (!hands_over_rows(layer)) {
          CHECK(s.stride > 1);
          CHECK(error_of<UsageError>([&] { packed_conv_backward_input(layer, d_y, x_shape, before, &collected); }) ==
                "[conv] layer makes its input's gradient in several passes; only the whole of it can be taken");
          return;
        }
        CHECK(!packed_conv_backward_input(layer, d_y, x_shape, before, &collected).defined());
        // A strided layer rounds only the sum, not its own part before.
        CHECK(first_beyond(values_of(collected.rows), expected, [&](size_t i) {
                return s.stride == 1 || bare[i] == 0 ? 0.0 : 2 * kUnitBf16 * (std::abs(b[i]) + std::abs(bare[i]));
              }) == "");
        Collected alone(x_shape);
        packed_conv_backward_input(layer, d_y, x_shape, {}, &alone);
        CHECK(values_of(alone.rows) == bare);
        CHECK(collected.each_once());
        CHECK(collected.in_order);
      });
    }
}

namespace {

/// Makes the rows of a tensor, and counts them.
class RowsOf final : public GradientRows {
 public:
  explicit RowsOf(const Tensor& t) : made(static_cast<size_t>(t.rows())), t_(t) {}
  void make(int64_t first, int64_t count, bf16* to, int64_t stride) const override {
    for (int64_t r = 0; r < count; ++r) {
      std::copy_n(t_.row<bf16>(first + r), t_.shape().back(), to + r * stride);
      ++made.at(static_cast<size_t>(first + r));
    }
  }
  mutable std::vector<std::atomic<int>> made;

 private:
  const Tensor& t_;
};

/// The layers of conv_shapes() that could take rows, and two that are cut into several chunks.
std::vector<NamedShape> shapes_of_rows() {
  std::vector<NamedShape> all;
  for (const NamedShape& named : conv_shapes())
    if (named.shape.taps() == 1 && named.shape.stride == 1) all.push_back(named);
  all.push_back({"1x1, three chunks of two tasks", {.n = 3, .h = 28, .w = 28, .ic = 64, .oc = 256}});
  all.push_back({"1x1, chunks of one task", {.n = 5, .h = 14, .w = 14, .ic = 520, .oc = 79}});
  all.push_back({"1x1, too deep for a chunk", {.n = 3, .h = 14, .w = 14, .ic = 2, .oc = 1030}});
  return all;
}

}  // namespace

TEST_CASE("a gradient that comes as rows gives the same input gradient, and the weight gradient of the definition") {
  bool compared = false;
  for (const NamedShape& named : shapes_of_rows())
    for (const Precision& p : {code_precisions()[4], code_precisions()[6], float_precisions()[0]}) {
      const Operands op = make_operands(named, p);
      const ConvShape& s = op.shape;
      const OutputGradient g = output_gradient(op);
      const Shape x_shape{s.n, s.h, s.w, s.ic};
      const Tensor before = random_bf16(x_shape, 96);
      INFO(named.name << "; " << p.name);
      on_every_level([&] {
        const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
        // A task's 512 points, d_y twice (as rows and transposed) and x once, fit the 1,280 KiB of a chunk.
        const bool fits = 512 * int64_t{sizeof(bf16)} * (2 * s.oc + s.ic) <= (int64_t{1280} << 10);
        CHECK(takes_gradient_rows(layer) == (active_isa() == Isa::amx && fits));
        if (!takes_gradient_rows(layer)) return;
        compared = true;
        std::vector<Tensor> d_w;
        with_thread_counts([&] {
          d_w.push_back(random_f32({s.oc, 1, 1, s.ic}, 42));
          const RowsOf rows(g.carried);
          CHECK(same_bytes(packed_conv_backward(layer, op.x, rows, d_w.back(), before),
                           packed_conv_backward_input(layer, g.carried, x_shape, before)));
          CHECK(std::all_of(rows.made.begin(), rows.made.end(), [](const auto& times) { return times == 1; }));
        });
        for (const Tensor& other : d_w) CHECK(same_bytes(other, d_w[0]));
        check_weight_gradient(s, d_w[0], weight_gradient_of(layer, s, g, op.x_hat), layer.gradient_edge);
        Collected collected(x_shape), as_tensor(x_shape);
        CHECK(!packed_conv_backward(layer, op.x, RowsOf(g.carried), d_w[0], before, &collected).defined());
        packed_conv_backward_input(layer, g.carried, x_shape, before, &as_tensor);
        CHECK(same_bytes(collected.rows, as_tensor.rows));
        CHECK(collected.taken_by == as_tensor.taken_by);
        CHECK(collected.each_once());
        CHECK(collected.in_order);
      });
    }
  // What it does there is checked on emulated tiles, tests/kernels/emulated/gradient_drivers_test.cpp.
  if (!compared) MESSAGE("skipped: no level under test takes the gradient as rows");
}

TEST_CASE("the taped convolution takes its gradient as rows or as a tensor") {
  const Operands op = make_operands({"taped", {.n = 2, .h = 6, .w = 5, .ic = 3, .oc = 17}}, code_precisions()[4]);
  const Tensor d_y = output_gradient(op).carried;
  on_every_level([&] {
    const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
    const Tensor expected = packed_conv_backward_input(layer, d_y, op.x.shape());
    for (const bool rows : {false, true}) {
      const Variable x(op.x, Grad::kWanted);
      const Tensor d_w = Tensor::zeros(DType::f32, {17, 1, 1, 3});
      Tape tape;
      ChannelSums sums;
      const Variable y = packed_conv(&tape, x, layer, d_w, sums);
      CHECK(y.takes_grad_rows() == takes_gradient_rows(layer));
      if (rows && !y.takes_grad_rows()) continue;
      if (rows) {
        y.set_grad_rows(std::make_shared<RowsOf>(d_y));
        tape.backward(Variable(Tensor::zeros(DType::f32, {1})));
      } else {
        tape.backward(y, d_y);
      }
      CHECK(same_bytes(x.grad(), expected));
      CHECK(y.grad_rows() == nullptr);
    }
  });
}

TEST_CASE("weight gradients of layers that are cut into chunks and groups are the same on every level, within bounds") {
  kernels::active();  // probes the levels first
  std::vector<Isa> levels;
  for (const Isa isa : runnable_isas())
    if (isa == Isa::avx512 || isa >= Isa::avx512bf16) levels.push_back(isa);
  if (levels.size() < 2) {
    MESSAGE("skipped: this machine has AVX-512 without products of bf16, or not even that");
    return;
  }
  const auto layer_of = [](int64_t n, int64_t side, int64_t ic, int64_t oc, int64_t kernel, int64_t stride) {
    return ConvShape{.n = n,
                     .h = side,
                     .w = side,
                     .ic = ic,
                     .oc = oc,
                     .kh = kernel,
                     .kw = kernel,
                     .stride = stride,
                     .pad_before = kernel / 2,
                     .pad_after = kernel / 2};
  };
  for (const ConvShape& s :
       {layer_of(3, 56, 64, 256, 1, 1), layer_of(3, 56, 256, 39, 1, 1), layer_of(3, 28, 79, 64, 3, 1),
        layer_of(6, 14, 256, 256, 3, 1), layer_of(32, 7, 300, 512, 3, 1), layer_of(5, 28, 128, 300, 3, 2),
        layer_of(32, 7, 512, 1030, 1, 1)}) {
    const Operands op = make_operands({"large", s}, code_precisions()[4]);
    // All products are positive, so that their sum is the sum of their magnitudes.
    const Tensor d_y = random_bf16({s.n, s.oh(), s.ow(), s.oc}, 44, 0.0f, 1.0f);
    std::vector<Doubles> results;
    const Isa before = active_isa();
    for (const Isa isa : levels) {
      set_active_isa(isa);
      const LayerWeights layer = op.layer(Passes::kForward);
      const Tensor d_w = Tensor::zeros(DType::f32, {s.oc, s.kh, s.kw, s.ic});
      packed_conv_backward_weights(layer, op.x, d_y, d_w);
      results.push_back(values_of(d_w));
    }
    set_active_isa(before);
    const Doubles magnitude = level_magnitude(op, d_y, results[0]);
    const double terms = static_cast<double>(s.out_pixels()) + other_roundings(4);
    for (const Doubles& other : results)
      CHECK(first_beyond(other, results[0], [&](size_t i) { return terms * 4 * kUnitF32 * magnitude[i]; }) == "");
  }
}

TEST_CASE("weight gradients of small maps, whose steps are images, match their definition") {
  const ConvShape wide{.n = 32, .h = 2, .w = 9, .ic = 7, .oc = 5, .kh = 1, .kw = 3, .pad_before = 1, .pad_after = 0};
  const ConvShape strided{.n = 32, .h = 7, .w = 8, .ic = 5, .oc = 4, .kh = 2, .kw = 2, .stride = 3};
  int64_t index = 0;
  for (const ConvShape& s : {three(32, 1, 1, 39, 17, 1, 1), three(32, 2, 2, 64, 79, 1, 1),
                             three(64, 4, 4, 33, 32, 1, 1), three(32, 7, 5, 15, 40, 1, 1), three(32, 8, 8, 32, 3, 1, 1),
                             three(32, 8, 8, 16, 17, 2, 1), three(32, 7, 5, 17, 16, 2, 1), three(32, 6, 6, 3, 33, 2, 0),
                             three(64, 15, 16, 3, 4, 2, 1), three(31, 4, 4, 8, 8, 1, 1), wide, strided}) {
    INFO("shape " << index++);
    for (const Precision& p : {code_precisions()[4], code_precisions()[0], float_precisions()[0]})
      check_weights(make_operands({"small", s}, p));
  }
}

/// Root mean square of the differences of values to what they should be, as a share of that of the latter.
double relative_error(const Doubles& got, const Doubles& expected) {
  double error = 0, all = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    all += expected[i] * expected[i];
  }
  return std::sqrt(error / all);
}

TEST_CASE("gradients in fewer products match their definition on every small map") {
  std::vector<NamedShape> shapes;
  for (int64_t side = 1; side <= 9; ++side) shapes.push_back({"small maps", three(3, side, 10 - side, 16, 17, 1, 1)});
  for (int64_t side = 8; side <= 13; ++side) shapes.push_back({"larger maps", three(2, side, 21 - side, 16, 17, 1, 1)});
  shapes.push_back({"14x14", three(2, 14, 14, 79, 39, 1, 1)});
  shapes.push_back({"several chunks and tasks", three(9, 15, 24, 15, 33, 1, 1)});
  shapes.push_back({"no pad before", three(2, 6, 5, 15, 16, 1, 0)});
  shapes.push_back({"two pads before", three(2, 6, 5, 15, 16, 1, 2)});
  shapes.push_back({"large, no pad before", three(2, 12, 9, 15, 16, 1, 0)});
  shapes.push_back({"large, two pads before", three(2, 12, 9, 15, 16, 1, 2)});
  std::set<int64_t> edges;
  for_each_layer(shapes, {code_precisions()[4], code_precisions()[8], float_precisions()[0]}, [&](const Operands& op) {
    on_every_level([&] {
      const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
      const bool tiles = layer.float_gemm->run_strided != nullptr;
      CHECK(layer.gradient_edge == (tiles ? 0 : winograd::gradient_edge(op.shape, layer.float_gemm->kr)));
      CHECK((layer.gradient_gemm != nullptr) == (layer.gradient_edge > 0));
      edges.insert(layer.gradient_edge);
    });
    check_both(op);
  });
  if (!edges.contains(2)) MESSAGE("skipped: the levels under test have no tiles of 2x2 outputs");
  if (!edges.contains(4)) MESSAGE("skipped: the levels under test have no tiles of 4x4 outputs");
}

TEST_CASE("the errors of gradients in fewer products are as small as measured, far below what a lost product makes") {
  // Bounds by magnitudes grow with the transforms, 600-fold in tiles of 4x4. For random values the errors were 1e-6 to
  // 4e-6 in fp32; a lost tap of these makes 2e-2.
  const std::vector<NamedShape> shapes = {{"14x14", three(2, 14, 14, 79, 39, 1, 1)},
                                          {"7x7", three(3, 7, 7, 79, 39, 1, 1)},
                                          {"several chunks", three(9, 15, 24, 15, 33, 1, 1)}};
  for_each_layer(shapes, {code_precisions()[4], float_precisions()[0]}, [&](const Operands& op) {
    const ConvShape& s = op.shape;
    const OutputGradient g = output_gradient(op);
    const Doubles d_x = naive_input_gradient(s, g.of_y, op.w_hat).value,
                  d_w = naive_weight_gradient(s, g.of_y, op.x_hat).value;
    on_every_level([&] {
      const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
      const Tensor to = Tensor::zeros(DType::f32, {s.oc, s.kh, s.kw, s.ic});
      packed_conv_backward_weights(layer, op.x, g.carried, to);
      CHECK(relative_error(values_of(to), d_w) < 2e-5);
      // Rounded to bf16: 2^-9 of a value at most.
      const Tensor got = packed_conv_backward_input(layer, g.carried, {s.n, s.h, s.w, s.ic});
      CHECK(relative_error(values_of(got), d_x) < 1.0 / 512 + 2e-5);
    });
  });
}

TEST_CASE("tiles of 4x4 outputs are for large maps, of 2x2 for others, and none for maps that they do not suit") {
  const auto edge = [](ConvShape s, int kr = 1) { return winograd::gradient_edge(s, kr); };
  CHECK(edge(three(1, 7, 7, 1024, 1024, 1, 1)) == 2);
  CHECK(edge(three(1, 7, 7, 1025, 1024, 1, 1)) == 0);  // sums above 64 MiB
  CHECK(edge(three(1, 7, 7, 3, 5, 1, 1)) == 2);
  CHECK(edge(three(1, 2, 2, 3, 5, 1, 1)) == 2);
  CHECK(edge(three(1, 8, 8, 3, 5, 1, 1)) == 4);
  CHECK(edge(three(1, 14, 14, 256, 256, 1, 1)) == 4);
  CHECK(edge(three(1, 9, 9, 3, 5, 1, 1)) == 4);
  CHECK(edge(three(1, 10, 10, 3, 5, 1, 1)) == 4);
  CHECK(edge(three(1, 2, 40, 3, 5, 1, 1)) == 2);  // a tile of 4x4 would be half empty
  CHECK(edge(three(1, 4, 16, 3, 5, 1, 0)) == 2);  // the output's, of 3 x 15
  CHECK(edge(three(1, 12, 9, 15, 16, 1, 0)) == 4);
  CHECK(edge(three(1, 12, 9, 15, 16, 1, 2)) == 4);
  CHECK(edge(three(1, 14, 14, 512, 512, 1, 1)) == 2);  // 36 MiB of sums
  for (const ConvShape& s : {three(1, 1, 1, 3, 5, 1, 1), three(1, 1, 8, 3, 5, 1, 1), three(1, 1, 80, 3, 5, 1, 1),
                             three(1, 3, 3, 3, 5, 1, 1), three(1, 8, 8, 3, 5, 2, 1)}) {
    CHECK(edge(s) == 0);
    CHECK(edge(s, 2) == 0);
  }
  // On levels that multiply pairs, where the sums over tiles are of few channels.
  CHECK(edge(three(1, 56, 56, 64, 64, 1, 1), 2) == 4);
  CHECK(edge(three(1, 28, 28, 128, 128, 1, 1), 2) == 4);
  CHECK(edge(three(1, 28, 28, 128, 227, 1, 1), 2) == 4);
  CHECK(edge(three(1, 28, 28, 128, 228, 1, 1), 2) == 0);  // 4 MiB and 7 KiB
  CHECK(edge(three(1, 14, 14, 256, 256, 1, 1), 2) == 0);
  CHECK(edge(three(1, 9, 9, 64, 64, 1, 1), 2) == 0);
  CHECK(edge(three(1, 7, 7, 64, 64, 1, 1), 2) == 0);
}

TEST_CASE("the taped convolution gives both gradients, and none to the image") {
  for (const bool first : {false, true}) {
    const ConvShape s{.n = 2, .h = 6, .w = 5, .ic = 3, .oc = 17, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1};
    const Operands op = make_operands({"taped", s, first}, signed_precisions()[0]);
    const Tensor d_y = output_gradient(op).carried;
    on_every_level([&] {
      const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
      CHECK(layer.input_gradient.empty() == first);
      const Tensor d_w = Tensor::zeros(DType::f32, {s.oc, s.kh, s.kw, s.ic}), expected = d_w.clone();
      const Variable x(op.x, first ? Grad::kNone : Grad::kWanted);
      Tape tape;
      ChannelSums sums, same;
      const Variable y = packed_conv(&tape, x, layer, d_w, sums);
      CHECK(same_bytes(y.value(), packed_conv_forward(layer, op.x, same)));
      CHECK(sums.sum == same.sum);
      tape.backward(y, d_y);
      packed_conv_backward_weights(layer, op.x, d_y, expected);
      CHECK(same_bytes(d_w, expected));
      CHECK(x.grad().defined() == !first);
      if (!first) CHECK(same_bytes(x.grad(), packed_conv_backward_input(layer, d_y, op.x.shape())));
    });
  }
}

TEST_CASE("a taped linear layer gives the gradients of its input, weights and bias") {
  for (const auto& precisions : {code_precisions(), float_precisions()})
    for (const Precision& p : precisions) {
      const ConvShape s{.n = 5, .h = 1, .w = 1, .ic = 39, .oc = 17};
      const Operands op = make_operands({"linear", s}, p);
      const Tensor d_logits = random_f32({s.n, s.oc}, 43);
      const Doubles g = values_of(d_logits);
      const Sums d_x = naive_input_gradient(s, g, op.w_hat), d_w = naive_weight_gradient(s, g, op.x_hat);
      INFO(p.name);
      on_every_level([&] {
        const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
        const Variable x(op.x, Grad::kWanted);
        const Tensor bias = random_f32({s.oc}, 44), d_bias = Tensor::zeros(DType::f32, {s.oc});
        const Tensor d_weights = Tensor::zeros(DType::f32, {s.oc, 1, 1, s.ic});
        Tape tape;
        tape.backward(packed_linear(&tape, x, layer, bias, d_weights, d_bias), d_logits);
        for (int64_t o = 0; o < s.oc; ++o) {
          double sum = 0;
          for (int64_t i = 0; i < s.n; ++i) sum += g[at(i * s.oc + o)];
          CHECK(std::abs(static_cast<double>(d_bias.data<float>()[o]) - sum) <= 2 * kUnitF32 * 5 * 5);
        }
        // d_logits is rounded to bf16 on its way (one unit of every product), d_x once more at the end.
        CHECK(first_beyond(values_of(x.grad()), d_x.value, [&](size_t i) {
                return 1.01 * kUnitBf16 * (d_x.magnitude[i] + std::abs(d_x.value[i]));
              }) == "");
        CHECK(first_beyond(values_of(d_weights), d_w.value,
                           [&](size_t i) { return 1.01 * kUnitBf16 * d_w.magnitude[i]; }) == "");
      });
    }
}

TEST_CASE("gradients that do not fit a layer are refused in words") {
  const ConvShape s{.n = 1, .h = 4, .w = 4, .ic = 3, .oc = 5, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1};
  const Operands op = make_operands({"any", s}, code_precisions()[0]);
  const LayerWeights layer = op.layer(Passes::kForwardAndBackward);
  const Tensor d_w = Tensor::zeros(DType::f32, {5, 3, 3, 3});
  CHECK(error_of<ShapeError>([&] {
          packed_conv_backward_weights(layer, op.x, random_bf16({1, 4, 3, 5}, 1), d_w);
        }) == "[conv] layer makes [1,4,4,5], but its gradient is [1,4,3,5]");
  for (const Tensor& wrong : {Tensor::zeros(DType::f32, {4, 3, 3, 3}), Tensor::zeros(DType::bf16, {5, 3, 3, 3}),
                              Tensor::zeros(DType::f32, {5, 3, 3, 3}, 4)})
    CHECK(error_of<ShapeError>([&] {
            packed_conv_backward_weights(layer, op.x, random_bf16({1, 4, 4, 5}, 1), wrong);
          }) ==
          fmt::format("[conv] layer has 135 weights, but their gradient is {} {}; pass a dense f32 tensor of as many",
                      name_of(wrong.dtype()), wrong.shape().str()));
  CHECK(error_of<ShapeError>([&] {
          packed_conv_backward_input(layer, random_bf16({1, 4, 4, 6}, 1), {1, 4, 4, 3});
        }) == "[conv] layer makes [1,4,4,5], but its gradient is [1,4,4,6]");
  CHECK(error_of<ShapeError>([&] {
          packed_conv_backward_input(layer, random_bf16({1, 4, 4, 5}, 1), {1, 4, 4, 4});
        }) == "[conv] layer reads [n,4,4,3], but the gradient of [1,4,4,4] is wanted");
  CHECK(error_of<ShapeError>([&] {
          packed_conv_backward_input(op.layer(Passes::kForward), random_bf16({1, 4, 4, 5}, 1), {1, 4, 4, 3});
        }) == "[conv] layer has no panels for the gradient of its input; prepare it with kForwardAndBackward");
  CHECK(error_of<ShapeError>([&] {
          packed_conv_backward_input(layer, random_bf16({1, 4, 4, 5}, 1), {1, 4, 4, 3}, random_bf16({1, 4, 3, 3}, 1));
        }) == "[conv] gradient [1,4,4,3] does not add to bf16 [1,4,3,3]");
}
