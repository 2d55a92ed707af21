// Checks an op against a naive double-precision reference: values, gradients of every argument, and the tape's rules.
//
// The numeric derivative is a central difference of the reference in double (step 1e-5: error about 1e-10), so what is
// left between it and the op's backward is the op's own f32 rounding, and the tolerance can be derived from that:
// roundings * 2^-24 * (sum of the magnitudes that were added up).
#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "engine/rng.hpp"
#include "engine/tape.hpp"
#include "tests/error_of.hpp"

namespace nibble::testing {

using Doubles = std::vector<double>;
using TapedOp = std::function<Variable(Tape*, const std::vector<Variable>&)>;
using Reference = std::function<Doubles(const std::vector<Doubles>&)>;

struct GradcheckArgs {
  std::vector<Tensor> arguments;  // dense f32; the op's differentiable inputs
  TapedOp op;
  Reference reference;  // the same function in double: flattened arguments in, flattened result out
  /// Longest chain of f32 roundings behind one result or gradient; a sum of k products has about 2k.
  double roundings = 0;
};

struct GradcheckReport {
  bool ok = true;
  std::string message;  // first failure; empty if ok
};

inline Tensor random_tensor(const Shape& shape, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  Tensor t(DType::f32, shape);
  Rng rng(seed, rng_purpose::kTest);
  for (int64_t i = 0; i < t.size(); ++i) t.data<float>()[i] = low + (high - low) * rng.uniform();
  return t;
}

/// Values of which no two are closer than 1/32 and none is closer to 0 than 1/64, in random order: no kink of ReLU or
/// max lies within a difference step.
inline Tensor distinct_tensor(const Shape& shape, uint32_t seed) {
  Tensor t(DType::f32, shape);
  const int64_t n = t.size();
  float* x = t.data<float>();
  for (int64_t i = 0; i < n; ++i) x[i] = (static_cast<float>(i - n / 2) + 0.5f) / 32.0f;
  Rng rng(seed, rng_purpose::kTest);
  for (int64_t i = n - 1; i > 0; --i) std::swap(x[i], x[rng.below(static_cast<uint32_t>(i + 1))]);
  return t;
}

inline Doubles to_doubles(const Tensor& t) {
  return {t.data<float>(), t.data<float>() + t.size()};
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && a.bytes() == b.bytes() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

namespace gradcheck_detail {

struct Run {
  Tensor value;
  std::vector<Tensor> gradients;
};

/// Runs the op on a fresh tape; `wanted` (-1: all) is the argument whose gradient is wanted.
inline Run run(const GradcheckArgs& args, const Tensor& cotangent, int wanted) {
  std::vector<Variable> inputs;
  for (size_t a = 0; a < args.arguments.size(); ++a)
    inputs.emplace_back(args.arguments[a], wanted < 0 || wanted == static_cast<int>(a) ? Grad::kWanted : Grad::kNone);
  Tape tape;
  const Variable y = args.op(&tape, inputs);
  tape.backward(y, cotangent);
  Run out{y.value(), {}};
  for (const Variable& input : inputs) out.gradients.push_back(input.grad());
  return out;
}

inline GradcheckReport failure(std::string message) {
  return {false, std::move(message)};
}

/// Same values without a tape; the same gradient when it alone is wanted; none for arguments that want none.
inline GradcheckReport check_tape(const GradcheckArgs& args, const Tensor& cotangent, const Run& all) {
  std::vector<Variable> inputs;
  for (const Tensor& t : args.arguments) inputs.emplace_back(t);
  const Variable plain = args.op(nullptr, inputs);
  if (!same_bits(plain.value(), all.value)) return failure("the result without a tape differs from the one with");
  if (plain.wants_grad()) return failure("the result wants a gradient though no input does");
  Tape unused;
  args.op(&unused, inputs);
  if (unused.size() != 0) return failure("a step was recorded though no input wants a gradient");
  for (size_t a = 0; a < inputs.size(); ++a) {
    const Run one = run(args, cotangent, static_cast<int>(a));
    for (size_t b = 0; b < inputs.size(); ++b) {
      if (b != a && one.gradients[b].defined())
        return failure(fmt::format("argument {} got a gradient that only argument {} wanted", b, a));
    }
    if (!one.gradients[a].defined() || !same_bits(one.gradients[a], all.gradients[a]))
      return failure(fmt::format("the gradient of argument {} changes when it alone is wanted", a));
  }
  return {};
}

/// d reference / d (element i of argument a), one number per output.
inline Doubles derivative(const GradcheckArgs& args, std::vector<Doubles>& x, size_t a, size_t i) {
  constexpr double kStep = 1e-5;
  const double kept = x[a][i];
  x[a][i] = kept + kStep;
  Doubles high = args.reference(x);
  x[a][i] = kept - kStep;
  const Doubles low = args.reference(x);
  x[a][i] = kept;
  for (size_t j = 0; j < high.size(); ++j) high[j] = (high[j] - low[j]) / (2 * kStep);
  return high;
}

inline GradcheckReport compare(const std::string& what, const Doubles& got, const Doubles& expected, double bound) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (!(std::abs(got[i] - expected[i]) <= bound))
      return failure(fmt::format("{} element {}: got {}, expected {}, off by {:.3g}, allowed {:.3g}", what, i, got[i],
                                 expected[i], std::abs(got[i] - expected[i]), bound));
  }
  return {};
}

}  // namespace gradcheck_detail

inline GradcheckReport gradcheck(const GradcheckArgs& args) {
  using namespace gradcheck_detail;
  std::vector<Doubles> x;
  std::vector<Variable> plain;
  for (const Tensor& t : args.arguments) {
    x.push_back(to_doubles(t));
    plain.emplace_back(t);
  }
  const Doubles expected = args.reference(x);
  const Shape shape = args.op(nullptr, plain).shape();
  if (static_cast<int64_t>(expected.size()) != shape.size())
    return failure(fmt::format("the result has shape {}, but the reference {} elements", shape.str(), expected.size()));
  const Tensor cotangent = random_tensor(shape, 4711);
  const Run all = run(args, cotangent, -1);
  if (GradcheckReport report = check_tape(args, cotangent, all); !report.ok) return report;

  const double unit = args.roundings * 0x1p-24;
  const Doubles c = to_doubles(cotangent);
  Doubles magnitude(expected.size());
  for (size_t a = 0; a < x.size(); ++a) {
    Doubles numeric;
    double largest = 0;
    for (size_t i = 0; i < x[a].size(); ++i) {
      const Doubles column = derivative(args, x, a, i);
      double sum = 0, absolute = 0;
      for (size_t j = 0; j < column.size(); ++j) {
        sum += c[j] * column[j];
        absolute += std::abs(c[j] * column[j]);
        magnitude[j] += std::abs(column[j] * x[a][i]);
      }
      numeric.push_back(sum);
      largest = std::max(largest, absolute);
    }
    if (all.gradients[a].shape() != args.arguments[a].shape())
      return failure(fmt::format("the gradient of argument {} has shape {}", a, all.gradients[a].shape().str()));
    const GradcheckReport report =
        compare(fmt::format("gradient of argument {}", a), to_doubles(all.gradients[a]), numeric, unit * largest);
    if (!report.ok) return report;
  }
  const double largest = *std::max_element(magnitude.begin(), magnitude.end());
  return compare("value", to_doubles(all.value), expected, unit * largest);
}

}  // namespace nibble::testing
