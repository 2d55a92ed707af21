// The two pools with the quantizer after them: forward bit by bit, gradients against their definition.
#include <optional>

#include "ops/pool_activate.hpp"
#include "tests/ops/packed_gradients.hpp"
#include "tests/ops/packed_support.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

double rounded(double v) {
  return static_cast<double>(to_float(to_bf16(static_cast<float>(v))));
}

struct Image {
  Shape shape;
  PoolShape pool;
};

/// Odd and even sides, one pixel, the stem's two paddings, several tasks; windows side by side, overlapping and apart.
const std::vector<Image>& images() {
  const PoolShape stem, same{.pad_before = 0};
  static const std::vector<Image> all = {
      {{1, 1, 1, 3}, stem},
      {{2, 5, 7, 39}, stem},
      {{1, 6, 8, 64}, same},
      {{3, 7, 6, 79}, same},
      {{2, 16, 16, 17}, stem},
      {{2, 16, 16, 1}, same},
      {{1, 2, 2, 16}, stem},
      {{1, 2, 3, 130}, same},
      {{2, 6, 5, 39}, {.window = 2, .stride = 2, .pad_before = 0, .pad_after = 0}},
      {{1, 5, 4, 17}, {.window = 3, .stride = 1, .pad_before = 1, .pad_after = 1}},
      {{2, 8, 7, 3}, {.window = 2, .stride = 3, .pad_before = 1, .pad_after = 0}},
      {{1, 3, 3, 5}, {.window = 1, .stride = 1, .pad_before = 0, .pad_after = 0}},
  };
  return all;
}

/// Post-ReLU data: many exact zeros, many ties.
Tensor activations(const Shape& shape, uint32_t seed) {
  const Tensor z = random_bf16(shape, seed, -1.0f, 3.0f);
  for (int64_t r = 0; r < z.rows(); ++r)
    for (int64_t c = 0; c < shape.back(); ++c) {
      const float v = std::floor(to_float(z.row<bf16>(r)[c]) * 4.0f) / 4.0f;
      z.row<bf16>(r)[c] = to_bf16(v > 0 ? v : 0.0f);
    }
  return z;
}

struct Pooled {
  Doubles value;
  std::vector<int64_t> winner;  // input element of each output element
};

Pooled naive_max_pool(const Image& image, const Doubles& z) {
  const int64_t h = image.shape[1], w = image.shape[2], c = image.shape[3];
  const PoolShape& s = image.pool;
  const int64_t pads = s.pad_before + s.pad_after, k_side = s.window;
  const int64_t oh = (h + pads - k_side) / s.stride + 1, ow = (w + pads - k_side) / s.stride + 1;
  Pooled out;
  for (int64_t i = 0; i < image.shape[0]; ++i)
    for (int64_t p = 0; p < oh; ++p)
      for (int64_t q = 0; q < ow; ++q)
        for (int64_t k = 0; k < c; ++k) {
          double best = -std::numeric_limits<double>::infinity();
          int64_t winner = -1;
          for (int64_t t = 0; t < k_side * k_side; ++t) {
            const int64_t y = p * s.stride - s.pad_before + t / k_side, x = q * s.stride - s.pad_before + t % k_side;
            if (y < 0 || y >= h || x < 0 || x >= w) continue;
            const int64_t element = ((i * h + y) * w + x) * c + k;
            if (z[at(element)] > best) {
              best = z[at(element)];
              winner = element;
            }
          }
          out.value.push_back(best);
          out.winner.push_back(winner);
        }
  return out;
}

/// METHOD.md section 2, for values after ReLU.
double clip_slope(double value, const ActivationQuantizer& q, size_t c) {
  const float t = static_cast<float>(value) * q.scale[c], bucket = std::floor(t);
  if (q.scheme == QuantScheme::kNearest) return t < q.top() ? 1.0 : t == q.top() ? 0.5 : 0.0;
  return bucket < 1 ? 0.5 : bucket < q.top() ? 1.0 : bucket == q.top() ? 0.5 : 0.0;
}

/// What the pool's own output gets back: through the quantizer and directly, nothing where it is zero.
Doubles output_gradient(const Doubles& pooled, const Doubles* through, const Doubles* direct,
                        const ActivationQuantizer* q, size_t channels) {
  Doubles g;
  for (size_t i = 0; i < pooled.size(); ++i) {
    double sum = 0;
    if (through != nullptr) sum += (*through)[i] * clip_slope(pooled[i], *q, i % channels);
    if (direct != nullptr) sum += (*direct)[i];
    g.push_back(pooled[i] > 0 ? rounded(sum) : 0.0);
  }
  return g;
}

struct Use {
  const char* name;
  int bits;  // 0: no quantizer
  bool dequantize, through, direct;
  QuantScheme scheme = QuantScheme::kPaper;
};
constexpr Use kUses[] = {
    {"bf16", 0, false, false, true},
    {"u4", 4, false, true, false},
    {"u8", 8, false, true, false},
    {"u4 and z", 4, false, true, true},
    {"u4 dequantized", 4, true, true, false},
    {"u4 to nearest and z", 4, false, true, true, QuantScheme::kNearest},
};

void check_outputs(const Activated& out, const Doubles& pooled, const Use& use, const ActivationQuantizer* q,
                   size_t channels) {
  CHECK(first_beyond(values_of(out.z.value()), pooled, kExact) == "");
  CHECK(out.codes.defined() == (q != nullptr));
  if (q == nullptr) return;
  Doubles expected;
  for (const double v : pooled) {
    const float scale = q->scale[expected.size() % channels];
    const float clipped = std::min(static_cast<float>(v) * scale, q->top());
    const float code = std::floor(use.scheme == QuantScheme::kNearest ? clipped + 0.5f : clipped);
    expected.push_back(use.dequantize ? rounded(static_cast<double>(code / scale)) : static_cast<double>(code));
  }
  CHECK(first_beyond(values_of(out.codes.value()), expected, kExact) == "");
}

/// Runs `pool(tape, z, args)` and checks outputs and gradient; `naive_backward(g)` spreads the
/// output's gradient over the input, with the bound of its rounding.
template <typename Pool, typename Backward>
void check_pool(const Tensor& z, const Shape& pooled_shape, const Doubles& pooled, const Use& use, const Pool& pool,
                const Backward& naive_backward) {
  const size_t c = at(z.shape().back());
  std::optional<ActivationQuantizer> quantizer;
  if (use.bits != 0)
    quantizer = make_activation_quantizer(random_bounds(z.shape().back(), 5, 0.4f, 2.0f), use.bits, false,
                                          FactorForm::kFold, use.scheme);
  const ActivationQuantizer* q = quantizer ? &*quantizer : nullptr;
  const Tensor through = random_bf16(pooled_shape, 6), direct = random_bf16(pooled_shape, 7);
  const Doubles t = values_of(through), d = values_of(direct);
  const Doubles g = output_gradient(pooled, use.through ? &t : nullptr, use.direct ? &d : nullptr, q, c);
  const Sums expected = naive_backward(g);
  std::vector<float> maxima = random_bounds(z.shape().back(), 8, 0.01f, 3.0f), raised = maxima;
  for (size_t i = 0; i < pooled.size(); ++i) raised[i % c] = std::max(raised[i % c], static_cast<float>(pooled[i]));
  INFO(use.name);
  on_every_level([&] {
    Tape tape;
    const Variable input(z, Grad::kWanted);
    std::vector<float> seen = maxima;
    const Activated out = pool(&tape, input, {q, use.dequantize, seen.data()});
    CHECK(seen == raised);
    CHECK(out.z.shape() == pooled_shape);
    check_outputs(out, pooled, use, q, c);
    const Activated plain = pool(nullptr, Variable(z), {q, use.dequantize, nullptr});
    CHECK(same_bytes(plain.z.value(), out.z.value()));
    CHECK(!plain.z.wants_grad());
    if (use.through) out.codes.accumulate(through);
    if (use.direct) out.z.accumulate(direct);
    tape.backward(Variable(Tensor::zeros(DType::f32, {1})));
    CHECK(first_beyond(values_of(input.grad()), expected.value, [&](size_t i) {
            return kUnitBf16 * std::abs(expected.value[i]) + 9 * kUnitF32 * expected.magnitude[i];
          }) == "");
  });
}

}  // namespace

TEST_CASE("max pool takes the largest of each window, quantizes it, and sends the gradient to the first largest") {
  for (const Image& image : images())
    for (const Use& use : kUses) {
      const Tensor z = activations(image.shape, 9);
      const Doubles values = values_of(z);
      const Pooled naive = naive_max_pool(image, values);
      const PoolShape& s = image.pool;
      const int64_t pads = s.pad_before + s.pad_after;
      const int64_t oh = (image.shape[1] + pads - s.window) / s.stride + 1;
      const int64_t ow = (image.shape[2] + pads - s.window) / s.stride + 1;
      INFO(image.shape.str() << ", window " << s.window << ", stride " << s.stride << ", padding " << s.pad_before
                             << " and " << s.pad_after);
      check_pool(
          z, {image.shape[0], oh, ow, image.shape[3]}, naive.value, use,
          [&](Tape* tape, const Variable& x, const PoolActivateArgs& args) {
            return max_pool_activate(tape, x, image.pool, args);
          },
          [&](const Doubles& g) {
            Sums d_z(static_cast<int64_t>(values.size()));
            for (size_t i = 0; i < g.size(); ++i) d_z.add(at(naive.winner[i]), g[i]);
            return d_z;
          });
    }
}

TEST_CASE("average pool is the fp32 sum in row-major order times one over the pixels, rounded once") {
  for (const Shape& shape : {Shape{1, 1, 1, 3}, Shape{5, 7, 7, 39}, Shape{2, 4, 4, 64}, Shape{3, 3, 5, 79}})
    for (const Use& use : kUses) {
      const Tensor z = activations(shape, 10);
      const Doubles values = values_of(z);
      const int64_t n = shape[0], pixels = shape[1] * shape[2], c = shape[3];
      const float inverse = 1.0f / static_cast<float>(pixels);
      Doubles pooled;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < c; ++k) {
          float sum = 0;
          for (int64_t p = 0; p < pixels; ++p) sum += static_cast<float>(values[at((i * pixels + p) * c + k)]);
          pooled.push_back(rounded(static_cast<double>(sum * inverse)));
        }
      INFO(shape.str());
      check_pool(
          z, {n, 1, 1, c}, pooled, use,
          [&](Tape* tape, const Variable& x, const PoolActivateArgs& args) {
            return average_pool_activate(tape, x, args);
          },
          [&](const Doubles& g) {
            Sums d_z(static_cast<int64_t>(values.size()));
            for (size_t e = 0; e < values.size(); ++e)
              d_z.add(e, g[e / at(pixels * c) * at(c) + e % at(c)] / static_cast<double>(pixels));
            return d_z;
          });
    }
}

TEST_CASE("max pool hands the next stage the rows that it else gives its input, each once, although z is gone") {
  for (const Shape& shape : {Shape{3, 15, 13, 39}, Shape{2, 32, 32, 64}}) {
    const Tensor z = activations(shape, 11);
    on_every_level([&] {
      with_thread_counts([&] {
        const auto collected = std::make_shared<Collected>(shape);
        Tensor gradient;
        for (const bool handed_over : {false, true}) {
          Tape tape;
          const Variable x(z, Grad::kWanted);
          const Activated out = max_pool_activate(&tape, x, PoolShape{}, {}, handed_over ? collected : nullptr);
          x.drop();
          tape.backward(out.z, random_bf16(out.z.shape(), 12));
          if (handed_over)
            CHECK_FALSE(x.grad().defined());
          else
            gradient = x.grad();
        }
        CHECK(collected->each_once());
        CHECK(collected->in_order);
        CHECK(same_bytes(collected->rows, gradient));
      });
    });
  }
}

TEST_CASE("pools do not depend on the number of threads") {
  const Tensor z = activations({3, 15, 13, 39}, 11);
  on_every_level([&] {
    std::vector<Tensor> results[4];
    with_thread_counts([&] {
      for (const bool max : {true, false}) {
        Tape tape;
        const Variable x(z, Grad::kWanted);
        const Activated out = max ? max_pool_activate(&tape, x, PoolShape{}) : average_pool_activate(&tape, x);
        results[max ? 0 : 1].push_back(out.z.value());
        tape.backward(out.z, random_bf16(out.z.shape(), 12));
        results[max ? 2 : 3].push_back(x.grad());
      }
    });
    for (const auto& r : results)
      for (const Tensor& t : r) CHECK(same_bytes(t, r[0]));
  });
}

TEST_CASE("a window that a pool cannot fill is refused in words") {
  CHECK(error_of<ShapeError>([] {
          max_pool_activate(nullptr, Variable(random_bf16({1, 1, 5, 3}, 1)), {.pad_before = 0});
        }) == "[max_pool] the 3x3 window does not fit the padded 1x5 image");
  CHECK(error_of<ShapeError>([] {
          max_pool_activate(nullptr, Variable(random_bf16({1, 5, 5, 3}, 1)), {.pad_before = 3});
        }) == "[max_pool] padding 3 and 1 reach the window size 3, so a window could hold no pixel; use less");
  CHECK(error_of<UnsupportedError>([] {
          max_pool_activate(nullptr, Variable(random_bf16({1, 9, 9, 3}, 1)), {.window = 4});
        }) == "[max_pool] a window of 4x4 is larger than the 3x3 that this pool has; use max_pool");
}
