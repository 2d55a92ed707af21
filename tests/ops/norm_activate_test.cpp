// Batch norm, shortcut, ReLU and quantizer in one pass: forward bit by bit, backward against the analytic gradient.
#include "ops/norm_activate.hpp"

#include <optional>

#include "tests/ops/packed_support.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

constexpr int64_t kChannelCounts[] = {1, 39, 64, 79};

/// One batch-normed branch with random parameters and the statistics of its own rows.
NormBranch make_branch(const Shape& shape, uint32_t seed) {
  const int64_t c = shape.back();
  NormBranch b;
  b.y = Variable(random_bf16(shape, seed, -3.0f, 4.0f), Grad::kWanted);
  ChannelSums sums{Doubles(at(c)), Doubles(at(c)), b.y.value().rows()};
  const Doubles y = values_of(b.y.value());
  for (size_t i = 0; i < y.size(); ++i) {
    sums.sum[i % at(c)] += y[i];
    sums.sum_sq[i % at(c)] += y[i] * y[i];
  }
  b.statistics = normalise_sums(sums);
  b.gamma = random_f32({c}, seed + 1, 0.5f, 1.5f);
  b.gamma.data<float>()[0] = -0.75f;
  b.beta = random_f32({c}, seed + 2, -0.5f, 0.7f);
  b.d_gamma = random_f32({c}, seed + 3);  // gradients overwrite what is there
  b.d_beta = random_f32({c}, seed + 4);
  b.gradient_scale = random_bounds(c, seed + 5, 0.2f, 4.0f);
  return b;
}

enum class Side { kNone, kShortcut, kProjection };

struct Setup {
  const char* name;
  Side side = Side::kNone;
  bool store_z = false;
  int bits = 0;  // 0: no quantizer
  bool dequantize = false;
  bool through = false, direct = false;  // which outputs are read
  QuantScheme scheme = QuantScheme::kPaper;
};

constexpr Setup kSetups[] = {
    {"inner unit, u4", Side::kNone, false, 4, false, true, false},
    {"inner unit, u8", Side::kNone, false, 8, false, true, false},
    {"inner unit, u4 dequantized", Side::kNone, false, 4, true, true, false},
    {"inner unit, bf16", Side::kNone, true, 0, false, false, true},
    {"shortcut, u4, both outputs used", Side::kShortcut, true, 4, false, true, true},
    {"shortcut, u8, both outputs used", Side::kShortcut, true, 8, false, true, true},
    {"shortcut, u4, codes alone used", Side::kShortcut, true, 4, false, true, false},
    {"shortcut, u4, z alone used", Side::kShortcut, true, 4, false, false, true},
    {"shortcut, bf16", Side::kShortcut, true, 0, false, false, true},
    {"projection, u4, both outputs used", Side::kProjection, true, 4, false, true, true},
    {"projection, u8 dequantized, both outputs used", Side::kProjection, true, 8, true, true, true},
    {"no one reads it", Side::kShortcut, true, 4, false, false, false},
    {"inner unit, u4 to nearest", Side::kNone, false, 4, false, true, false, QuantScheme::kNearest},
    {"inner unit, u4 to nearest, dequantized", Side::kNone, false, 4, true, true, false, QuantScheme::kNearest},
    {"shortcut, u8 to nearest, both outputs used", Side::kShortcut, true, 8, false, true, true, QuantScheme::kNearest},
    {"projection, u4 to nearest, both outputs used", Side::kProjection, true, 4, false, true, true,
     QuantScheme::kNearest},
};

/// The operands of one call; `args()` gives fresh variables.
struct Problem {
  Setup setup;
  Shape shape;
  std::optional<ActivationQuantizer> quantizer;
  NormBranch main, projection;
  Variable shortcut;

  Problem(const Setup& which, const Shape& dims) : setup(which), shape(dims) {
    main = make_branch(shape, 71);
    if (setup.side == Side::kProjection) projection = make_branch(shape, 81);
    if (setup.side == Side::kShortcut) shortcut = Variable(random_bf16(shape, 91, 0.0f, 2.0f), Grad::kWanted);
    // Bounds below the largest values, so that both ends of the clip rule are met.
    if (setup.bits != 0)
      quantizer = make_activation_quantizer(random_bounds(shape.back(), 92, 0.7f, 2.5f), setup.bits, false,
                                            FactorForm::kFold, setup.scheme);
  }
  NormActivateArgs args() const {
    NormActivateArgs a;
    a.main = main;
    a.shortcut = shortcut;
    if (setup.side == Side::kProjection) a.projection = &projection;
    a.store_z = setup.store_z;
    a.quantizer = quantizer ? &*quantizer : nullptr;
    a.dequantize = setup.dequantize;
    return a;
  }
};

float rounded(float v) {
  return to_float(to_bf16(v));
}

/// v before ReLU in the contract's fp32 order (METHOD.md section 8): multiply, add, shortcut.
std::vector<float> before_relu(const Problem& p) {
  const NormAffine f = norm_affine(p.main.statistics, p.main.gamma, p.main.beta);
  NormAffine side;
  Doubles other;
  if (p.setup.side == Side::kProjection) {
    side = norm_affine(p.projection.statistics, p.projection.gamma, p.projection.beta);
    other = values_of(p.projection.y.value());
  } else if (p.setup.side == Side::kShortcut) {
    other = values_of(p.shortcut.value());
  }
  std::vector<float> v;
  for (const double y : values_of(p.main.y.value())) {
    const size_t i = v.size(), c = i % at(p.shape.back());
    const float product = static_cast<float>(y) * f.m[c];
    float sum = product + f.a[c];
    if (p.setup.side == Side::kProjection) {
      const float scaled = static_cast<float>(other[i]) * side.m[c];
      sum += rounded(scaled + side.a[c]);
    } else if (p.setup.side == Side::kShortcut) {
      sum += static_cast<float>(other[i]);
    }
    v.push_back(sum);
  }
  return v;
}

struct Expected {
  Doubles z, codes, x_hat;
  std::vector<float> maxima, read;  // read: the value that the quantizer and the backward pass look at
};

Expected expected_forward(const Problem& p, const std::vector<float>& floor) {
  Expected e;
  e.maxima = floor;
  for (const float v : before_relu(p)) {
    const size_t c = e.read.size() % at(p.shape.back());
    const float positive = v > 0 ? v : 0.0f, z = rounded(positive);
    e.z.push_back(static_cast<double>(z));
    e.maxima[c] = std::max(e.maxima[c], z);
    e.read.push_back(p.setup.store_z ? z : positive);
    if (!p.quantizer) continue;
    const float t = e.read.back() * p.quantizer->scale[c];
    const float step = p.setup.scheme == QuantScheme::kNearest ? 0.5f : 0.0f;
    const float code = std::floor(std::min(t, p.quantizer->top()) + step);
    e.codes.push_back(static_cast<double>(code));
    e.x_hat.push_back(static_cast<double>(rounded(code / p.quantizer->scale[c])));
  }
  return e;
}

void check_activations(const Problem& p) {
  const int64_t c = p.shape.back();
  const std::vector<float> floor = random_bounds(c, 93, 0.01f, 10.0f);  // maxima seen before
  const Expected e = expected_forward(p, floor);
  on_every_level([&] {
    NormActivateArgs args = p.args();
    std::vector<float> maxima = floor;
    args.channel_max = maxima.data();
    const Activated out = norm_activate(nullptr, args);
    CHECK(maxima == e.maxima);
    CHECK(out.z.defined() == p.setup.store_z);
    if (out.z.defined()) CHECK(first_beyond(values_of(out.z.value()), e.z, kExact) == "");
    CHECK(out.codes.defined() == (p.setup.bits != 0));
    if (!out.codes.defined()) return;
    const Tensor& codes = out.codes.value();
    if (p.setup.dequantize) {
      CHECK(codes.dtype() == DType::bf16);
      CHECK(first_beyond(values_of(codes), e.x_hat, kExact) == "");
      return;
    }
    CHECK(codes.dtype() == (p.setup.bits == 4 ? DType::u4 : DType::u8));
    CHECK(codes.stride() == code_stride(c));
    CHECK(first_beyond(values_of(codes), e.codes, kExact) == "");
    int64_t dirty = 0;  // the padding of code rows is zero: products run over it
    for (int64_t r = 0; r < codes.rows(); ++r)
      for (int64_t i = c; i < codes.stride(); ++i)
        dirty += (p.setup.bits == 4 ? codes.row<uint8_t>(r)[i / 2] >> (i % 2 * 4) & 15 : codes.row<uint8_t>(r)[i]) != 0;
    CHECK(dirty == 0);
  });
}

/// METHOD.md section 2: 0.5 in the lowest and highest bucket, 1 between, 0 beyond; rounded to nearest 1 up to the
/// bound. ReLU before it.
double clip_slope(float read, const ActivationQuantizer& q, size_t c) {
  const float t = read * q.scale[c], bucket = std::floor(t);
  if (!(read > 0)) return 0.0;
  if (q.scheme == QuantScheme::kNearest) return t < q.top() ? 1.0 : t == q.top() ? 0.5 : 0.0;
  return bucket < 1 ? 0.5 : bucket < q.top() ? 1.0 : bucket == q.top() ? 0.5 : 0.0;
}

struct NormGradient {
  Doubles d_y, d_gamma, d_beta;
  Doubles bound_y, bound_gamma, bound_beta;
};

/// d_y = gamma*inv_std*(g - mean(g) - xhat*mean(g*xhat)) times the scale it carries, in double from the engine's g.
NormGradient norm_gradient(const NormBranch& b, const Doubles& g) {
  const size_t c = b.statistics.mean.size(), rows = g.size() / c;
  const Doubles y = values_of(b.y.value());
  Doubles sum(c), sum_xhat(c), magnitude(c), magnitude_xhat(c), mean(c), inv_std(c);
  for (size_t i = 0; i < c; ++i) {
    mean[i] = static_cast<double>(b.statistics.mean[i]);
    inv_std[i] = static_cast<double>(b.statistics.inv_std[i]);
  }
  const auto xhat = [&](size_t i) { return (y[i] - mean[i % c]) * inv_std[i % c]; };
  for (size_t i = 0; i < g.size(); ++i) {
    sum[i % c] += g[i];
    sum_xhat[i % c] += g[i] * xhat(i);
    magnitude[i % c] += std::abs(g[i]);
    magnitude_xhat[i % c] += std::abs(g[i]) * (std::abs(y[i]) + std::abs(mean[i % c])) * inv_std[i % c];
  }
  // Partial sums run over at most 512 rows in fp32, the rest in double; a term of xhat has three roundings.
  const double n = static_cast<double>(rows), unit = (std::min(n, 512.0) + 4) * kUnitF32;
  NormGradient out;
  for (size_t i = 0; i < c; ++i) {
    out.d_beta.push_back(sum[i]);
    out.d_gamma.push_back(sum_xhat[i]);
    out.bound_beta.push_back(unit * magnitude[i] + 3 * kUnitF32 * (1 + std::abs(out.d_beta[i])));
    out.bound_gamma.push_back(unit * magnitude_xhat[i] + 3 * kUnitF32 * (1 + std::abs(out.d_gamma[i])));
  }
  for (size_t i = 0; i < g.size(); ++i) {
    const size_t k = i % c;
    const double scale = b.gradient_scale.empty() ? 1.0 : static_cast<double>(b.gradient_scale[k]);
    const double m = static_cast<double>(b.gamma.data<float>()[k]) * inv_std[k] * scale;
    out.d_y.push_back(m * (g[i] - sum[k] / n - xhat(i) * sum_xhat[k] / n));
    const double slope = (std::abs(y[i]) + std::abs(mean[k])) * inv_std[k];
    const double parts = std::abs(g[i]) + magnitude[k] / n + slope * magnitude_xhat[k] / n;
    out.bound_y.push_back(kUnitBf16 * std::abs(out.d_y[i]) + (unit + 8 * kUnitF32) * std::abs(m) * parts);
  }
  return out;
}

/// The gradient of y, whether it is a tensor or made in pieces.
Tensor gradient_of(const NormBranch& b) {
  if (b.y.grad_rows() == nullptr) return b.y.grad();
  CHECK(!b.y.grad().defined());
  constexpr int64_t kPiece = 50;
  const Tensor all(DType::bf16, b.y.shape(), Tensor::round_stride(DType::bf16, b.y.shape().back()));
  for (int64_t first = 0; first < all.rows(); first += kPiece)
    b.y.grad_rows()->make(first, std::min(kPiece, all.rows() - first), all.row<bf16>(first), all.stride());
  return all;
}

/// Whatever d_gamma and d_beta held before.
void check_branch(const NormBranch& b, const Doubles& g) {
  const NormGradient e = norm_gradient(b, g);
  CHECK(first_beyond(values_of(b.d_beta), e.d_beta, [&](size_t i) { return e.bound_beta[i]; }) == "");
  CHECK(first_beyond(values_of(b.d_gamma), e.d_gamma, [&](size_t i) { return e.bound_gamma[i]; }) == "");
  CHECK(first_beyond(values_of(gradient_of(b)), e.d_y, [&](size_t i) { return e.bound_y[i]; }) == "");
}

/// Whether backward has z itself or only its clip classes.
enum class Keep { kZ, kClasses };

/// Whether the last gradient is there as a whole or is handed over row by row.
enum class Last { kWhole, kRows };

/// Whose convolutions take their gradients as rows.
struct TakeRows {
  bool main = false, projection = false;
};

/// Hands d over in three tasks of two parts each, one of which may be empty.
void hand_over(GradientStage& to, const Tensor& d) {
  constexpr int64_t kParts = 6;
  to.begin(kParts / 2);
  for (int64_t part = 0; part < kParts; ++part) {
    const int64_t first = d.rows() * part / kParts, end = d.rows() * (part + 1) / kParts;
    to.take(part / 2, {d.row<bf16>(first), d.stride()}, first, end - first);
  }
}

void check_backward(const Setup& setup, const Shape& shape, Keep keep, Last last, TakeRows take = {}) {
  const Tensor through = random_bf16(shape, 94), direct = random_bf16(shape, 95);
  const Doubles t = values_of(through), d = values_of(direct);
  on_every_level([&] {
    const Problem p(setup, shape);  // fresh gradients
    if (take.main) p.main.y.take_grad_rows();
    if (take.projection) p.projection.y.take_grad_rows();
    const Expected e = expected_forward(p, std::vector<float>(at(shape.back()), 0.0f));
    Doubles g;  // rounded once, as stored: products with 0.5 and 1 are exact, the sum is not
    for (size_t i = 0; i < t.size(); ++i) {
      double sum = 0;
      if (setup.through) sum += t[i] * (p.quantizer ? clip_slope(e.read[i], *p.quantizer, i % at(shape.back())) : 1.0);
      if (setup.direct) sum += d[i];
      g.push_back(e.read[i] > 0 ? static_cast<double>(rounded(static_cast<float>(sum))) : 0.0);
    }
    Tape tape;
    NormActivateArgs args = p.args();
    args.keep_classes = keep == Keep::kClasses;
    const Activated out = norm_activate(&tape, args);
    if (keep == Keep::kClasses) out.z.drop();
    if (keep == Keep::kClasses)  // and y, or both
      for (const NormBranch* branch : {&p.main, &p.projection})
        if (branch->y.defined()) branch->y.drop([y = branch->y.value()] { return y; });
    const bool rows = last == Last::kRows;
    if (setup.through && !rows) out.codes.accumulate(through);
    if (setup.direct && !(rows && !setup.through)) out.z.accumulate(direct);
    if (rows) hand_over(*out.backward, setup.through ? through : direct);
    const Variable start(Tensor::zeros(DType::f32, {1}));
    tape.backward(start);
    CHECK((p.main.y.grad_rows() != nullptr) == take.main);
    check_branch(p.main, g);
    if (setup.side == Side::kProjection) check_branch(p.projection, g);
    if (setup.side == Side::kShortcut) CHECK(first_beyond(values_of(p.shortcut.grad()), g, kExact) == "");
    if (out.z.defined()) CHECK(!out.z.value().defined());  // memory is given back
    if (out.codes.defined()) CHECK(!out.codes.value().defined());
  });
}

/// Both sides of every task and block border: 512 rows per task, 64 per kernel call.
const Shape& shape_of(int64_t channels) {
  static const Shape kSmall[] = {{1, 1, 1, 1}, {2, 5, 7, 39}, {1, 27, 21, 64}, {3, 1, 29, 79}};
  for (const Shape& s : kSmall)
    if (s.back() == channels) return s;
  return kSmall[0];
}

}  // namespace

TEST_CASE("statistics are the mean and biased variance, clamped at zero") {
  const NormStatistics s = normalise_sums({{6.0, 3.0, 0.0}, {20.0, 2.9999999, 0.0}, 3});
  CHECK(s.mean == std::vector<float>{2.0f, 1.0f, 0.0f});
  CHECK(s.variance[0] == static_cast<float>(20.0 / 3 - 4.0));
  CHECK(s.variance[1] == 0.0f);
  CHECK(s.inv_std[0] == 1.0f / std::sqrt(s.variance[0] + 1e-5f));
  CHECK(s.inv_std[2] == 1.0f / std::sqrt(1e-5f));
  const Tensor gamma = random_f32({3}, 1), beta = random_f32({3}, 2);
  const NormAffine f = norm_affine(s, gamma, beta);
  for (size_t c = 0; c < 3; ++c) {
    CHECK(f.m[c] == gamma.data<float>()[c] * s.inv_std[c]);
    CHECK(f.a[c] == beta.data<float>()[c] - s.mean[c] * f.m[c]);
  }
}

TEST_CASE("z, codes and maxima are those of the written order of operations, bit by bit") {
  for (const Setup& setup : kSetups)
    for (const int64_t c : kChannelCounts) {
      INFO(setup.name << ", " << c << " channels");
      check_activations(Problem(setup, shape_of(c)));
    }
}

TEST_CASE("an activation computed again has the bits of the first time") {
  for (int64_t c : kChannelCounts) {
    NormActivateArgs args;
    args.main = make_branch({2, 17, 19, c}, 71);
    args.store_z = true;
    const Tensor first = norm_activate(nullptr, args).z.value(), again = normalised_activation(args.main);
    REQUIRE(again.shape() == first.shape());
    CHECK(values_of(again) == values_of(first));
  }
  CHECK(normalised_activation(make_branch({0, 3, 3, 39}, 71)).size() == 0);
}

TEST_CASE("gradients are the analytic ones of batch norm, ReLU, the clip rule, the shortcut and the projection") {
  for (const Setup& setup : kSetups)
    for (const int64_t c : kChannelCounts) {
      INFO(setup.name << ", " << c << " channels");
      // Rows come from readers of the codes, or of z where there are none.
      const bool by_rows = setup.through || (setup.direct && setup.bits == 0);
      for (const Last last : {Last::kWhole, Last::kRows}) {
        if (last == Last::kRows && !by_rows) continue;
        check_backward(setup, shape_of(c), Keep::kZ, last);
        if (setup.store_z) check_backward(setup, shape_of(c), Keep::kClasses, last);
      }
    }
}

TEST_CASE("a gradient that is made in rows is the one that is stored, and the other branch's is untouched by it") {
  for (const Setup& setup : kSetups) {
    INFO(setup.name);
    const bool projection = setup.side == Side::kProjection;
    check_backward(setup, shape_of(79), Keep::kZ, Last::kWhole, {.main = true});
    if (!projection) continue;
    check_backward(setup, shape_of(79), Keep::kZ, Last::kWhole, {.projection = true});
    check_backward(setup, shape_of(79), Keep::kZ, Last::kWhole, {.main = true, .projection = true});
  }
}

TEST_CASE("all five regions of the clip rule occur in these tests") {
  const Problem p(kSetups[0], shape_of(39));
  const Expected e = expected_forward(p, std::vector<float>(39, 0.0f));
  int64_t relu = 0, low = 0, inside = 0, high = 0, beyond = 0;
  for (size_t i = 0; i < e.read.size(); ++i) {
    const double slope = clip_slope(e.read[i], *p.quantizer, i % 39);
    if (!(e.read[i] > 0))
      ++relu;
    else if (e.codes[i] == 0)
      ++low;
    else if (slope == 1.0)
      ++inside;
    else
      ++(slope == 0.5 ? high : beyond);
  }
  CHECK((relu > 0 && low > 0 && inside > 0 && high > 0 && beyond > 0));
}

TEST_CASE("results do not depend on the number of threads") {
  const Shape shape{3, 19, 23, 39};
  const Tensor through = random_bf16(shape, 94), direct = random_bf16(shape, 95);
  on_every_level([&] {
    std::vector<Tensor> results[7];
    std::vector<std::vector<float>> maxima;
    with_thread_counts([&] {
      const Problem p(kSetups[9], shape);
      NormActivateArgs args = p.args();
      maxima.emplace_back(at(39), 0.0f);
      args.channel_max = maxima.back().data();
      Tape tape;
      const Activated out = norm_activate(&tape, args);
      results[0].push_back(out.z.value());
      results[1].push_back(out.codes.value());
      out.codes.accumulate(through);
      tape.backward(out.z, direct);
      results[2].push_back(p.main.y.grad());
      results[3].push_back(p.projection.y.grad());
      results[4].push_back(p.main.d_gamma);
      results[5].push_back(p.main.d_beta);
      results[6].push_back(p.projection.d_gamma);
    });
    for (const auto& r : results)
      for (const Tensor& t : r) CHECK(same_bytes(t, r[0]));
    for (const auto& m : maxima) CHECK(m == maxima[0]);
  });
}

TEST_CASE("quantize_tensor and dequantize_tensor are the quantizer's formulas on padded rows") {
  on_every_level([] {
    for (const int64_t c : kChannelCounts)
      for (const int bits : {4, 8})
        for (const FactorForm form : {FactorForm::kNone, FactorForm::kFold}) {
          const auto q = make_activation_quantizer(random_bounds(c, 97, 0.5f, 4.0f), bits, false, form);
          const Tensor x = random_bf16(shape_of(c), 98, 0.0f, 4.5f);
          const Tensor codes = quantize_tensor(x, q);
          CHECK(codes.dtype() == code_dtype(q));
          Doubles expected, x_hat;
          for (const double v : values_of(x)) {
            const float scale = q.scale[expected.size() % at(c)];
            const float code = std::floor(std::min(static_cast<float>(v) * scale, q.top()));
            expected.push_back(static_cast<double>(code));
            x_hat.push_back(static_cast<double>(rounded(code / scale)));
          }
          CHECK(first_beyond(values_of(codes), expected, kExact) == "");
          CHECK(first_beyond(values_of(dequantize_tensor(codes, q)), x_hat, kExact) == "");
        }
  });
}

TEST_CASE("combine_gradients adds what came through the quantizer and what bypassed it") {
  on_every_level([] {
    const Shape shape = shape_of(79);
    const auto q = make_activation_quantizer(random_bounds(79, 99, 0.7f, 2.5f), 4, false, FactorForm::kFold);
    const Tensor x = random_bf16(shape, 100, -0.5f, 3.0f), through = random_bf16(shape, 101);
    const Tensor direct = random_bf16(shape, 102);
    const Doubles v = values_of(x), t = values_of(through), d = values_of(direct);
    for (const bool has_through : {false, true})
      for (const bool has_direct : {false, true})
        for (const bool quantized : {false, true}) {
          Doubles expected;
          for (size_t i = 0; i < v.size(); ++i) {
            const float read = static_cast<float>(v[i]);
            double sum = has_through ? t[i] * (quantized ? clip_slope(read, q, i % 79) : 1.0) : 0.0;
            if (has_direct) sum += d[i];
            expected.push_back(v[i] > 0 ? static_cast<double>(rounded(static_cast<float>(sum))) : 0.0);
          }
          const Tensor g = combine_gradients(x, has_through ? through : Tensor(), has_direct ? direct : Tensor(),
                                             quantized ? &q : nullptr);
          CHECK(first_beyond(values_of(g), expected, kExact) == "");
        }
  });
}

TEST_CASE("arguments that cannot be differentiated or do not fit are refused in words") {
  Problem p(kSetups[4], {1, 2, 3, 5});
  NormActivateArgs args = p.args();
  args.shortcut = Variable(random_bf16({1, 2, 3, 6}, 1));
  CHECK(error_of<ShapeError>([&] { norm_activate(nullptr, args); }) ==
        "[norm_activate] shortcut [1,2,3,6] does not match [1,2,3,5]");
  args = p.args();
  args.store_z = false;
  Tape tape;
  CHECK(error_of<UsageError>([&] { norm_activate(&tape, args); }) ==
        "[norm_activate] a unit with a shortcut must store z for its backward pass; set store_z");
  args.shortcut = Variable();
  args.keep_classes = true;
  CHECK(error_of<UsageError>([&] { norm_activate(&tape, args); }) ==
        "[norm_activate] keeps the classes of a stored z only; set store_z");
  args = p.args();
  args.main.gamma = random_f32({4}, 1);
  CHECK(error_of<ShapeError>([&] { norm_activate(nullptr, args); }).find("gamma 4") != std::string::npos);
  const auto four = make_activation_quantizer(std::vector<float>(4, 1.0f), 8, false, FactorForm::kFold);
  args = p.args();
  args.quantizer = &four;
  CHECK(error_of<ShapeError>([&] { norm_activate(nullptr, args); }).find("its quantizer 4") != std::string::npos);
  const auto q = make_activation_quantizer(std::vector<float>(5, 1.0f), 8, true, FactorForm::kFold);
  args = p.args();
  args.quantizer = &q;
  CHECK(error_of<UsageError>([&] { norm_activate(nullptr, args); }) ==
        "[norm_activate] writes unsigned codes only; store z and call quantize_tensor for a signed quantizer");
}
