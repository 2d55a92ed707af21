// The optimisers against the same formulas in double.
#include "nn/optimizer.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/nn/small_model.hpp"
#include "tests/worst.hpp"

namespace nibble {
namespace {

using testing::random_model;
using testing::small_options;

void randomise(const Gradients& g, uint64_t seed, float size) {
  for (size_t u = 0; u < g.units.size(); ++u) {
    Rng rng(seed, rng_purpose::kTest, u);
    const UnitParameters& p = g.units[u];
    for (const Tensor* t : {&p.weights, &p.gamma, &p.beta, &p.bias})
      if (t->defined())
        for (int64_t i = 0; i < t->size(); ++i) t->data<float>()[i] = size * rng.normal();
  }
}

struct Reference {
  std::vector<double> w, m;
};

/// All tensors of parameters or gradients in one order.
std::vector<Tensor> tensors_of(const std::vector<UnitParameters>& units) {
  std::vector<Tensor> all;
  for (const UnitParameters& p : units)
    for (const Tensor* t : {&p.weights, &p.gamma, &p.beta, &p.bias})
      if (t->defined()) all.push_back(*t);
  return all;
}

std::vector<double> as_double(const Tensor& t) {
  return {t.data<float>(), t.data<float>() + t.size()};
}

double norm(const std::vector<double>& v) {
  double s = 0;
  for (double x : v) s += x * x;
  return std::sqrt(s);
}

/// Runs three steps of both and returns the largest difference, relative to the largest change.
double worst_difference(const OptimizerOptions& options) {
  Model model = random_model(small_options("w4a4-fl8", 0.1));
  Gradients gradients = make_gradients(model), momentum = make_gradients(model);
  const std::vector<Tensor> parameters = tensors_of(model.units), slots = tensors_of(gradients.units);
  std::vector<Reference> reference;
  for (const Tensor& t : parameters)
    reference.push_back({as_double(t), std::vector<double>(static_cast<size_t>(t.size()), 0.0)});
  double worst = 0;
  for (int64_t step = 0; step < 3; ++step) {
    randomise(gradients, static_cast<uint64_t>(step) + 100, 0.05f);
    const float rate = 0.1f / static_cast<float>(step + 1);
    double total = 0;
    for (const Tensor& g : slots) total += norm(as_double(g)) * norm(as_double(g));
    const double clip =
        options.clip_norm > 0 ? std::min(1.0, static_cast<double>(options.clip_norm) / std::sqrt(total)) : 1.0;
    for (size_t i = 0; i < slots.size(); ++i) {
      Reference& r = reference[i];
      const bool kernel = parameters[i].shape().rank() > 1;
      const double decay = kernel ? static_cast<double>(options.weight_decay) : 0.0;
      const double mu = static_cast<double>(options.momentum);
      std::vector<double> g = as_double(slots[i]);
      for (double& x : g) x *= clip;
      double trust = 1;
      if (options.kind == OptimizerKind::kLars && kernel)
        trust = static_cast<double>(options.lars_coefficient) * norm(r.w) / (norm(g) + decay * norm(r.w));
      for (size_t k = 0; k < g.size(); ++k) {
        const double d = trust * (g[k] + decay * r.w[k]);
        r.m[k] = mu * r.m[k] + d;
        r.w[k] -= static_cast<double>(rate) * (options.nesterov ? d + mu * r.m[k] : r.m[k]);
      }
    }
    const double returned = optimizer_step(model, gradients, {}, momentum, rate, options, step);
    CHECK(returned == doctest::Approx(std::sqrt(total)).epsilon(1e-6));  // before clipping
  }
  for (size_t i = 0; i < parameters.size(); ++i)
    for (int64_t k = 0; k < parameters[i].size(); ++k)
      worst = testing::worse(worst, std::fabs(static_cast<double>(parameters[i].data<float>()[k]) -
                                              reference[i].w[static_cast<size_t>(k)]));
  return worst;
}

// Parameters are at most about 8 (fan-in 3 in the narrowest layers): half a unit in the last place of 8 per step.
constexpr double kThreeRoundings = 3 * 4.8e-7;

TEST_CASE("optimizer: SGD with Nesterov momentum follows the double reference") {
  CHECK(worst_difference({}) < kThreeRoundings);
}

TEST_CASE("optimizer: SGD with plain momentum and large decay follows the double reference") {
  CHECK(worst_difference({.momentum = 0.8f, .nesterov = false, .weight_decay = 0.05f}) < kThreeRoundings);
}

TEST_CASE("optimizer: LARS keeps in its momentum what each step was worth when it was taken") {
  // A large gradient, then one of a millionth: were the trust of the second step to multiply what the first left in the
  // momentum, that would move the weights a million times as far.
  Model model = random_model(small_options("w4a4-fl8", 0.1));
  Gradients gradients = make_gradients(model), momentum = make_gradients(model);
  const OptimizerOptions options{.kind = OptimizerKind::kLars, .nesterov = false, .weight_decay = 0};
  const Tensor kernel = model.units[0].weights;
  std::vector<std::vector<double>> path = {as_double(kernel)};
  for (const float size : {1.0f, 1e-6f}) {
    randomise(gradients, 5, size);
    optimizer_step(model, gradients, {}, momentum, 0.1f, options, 0);
    path.push_back(as_double(kernel));
  }
  const auto moved = [&](size_t step) {
    std::vector<double> d = path[step + 1];
    for (size_t i = 0; i < d.size(); ++i) d[i] -= path[step][i];
    return norm(d);
  };
  CHECK(moved(1) < 2 * moved(0));  // 0.9 of the first step and one of its own, in the same direction
}

TEST_CASE("optimizer: LARS scales kernels by the ratio of norms and leaves norms and bias alone") {
  CHECK(worst_difference({.kind = OptimizerKind::kLars, .weight_decay = 0.01f, .lars_coefficient = 0.02f}) <
        kThreeRoundings);
}

TEST_CASE("optimizer: clipping by the global norm follows the double reference") {
  CHECK(worst_difference({.clip_norm = 0.5f}) < kThreeRoundings);
  CHECK(worst_difference({.kind = OptimizerKind::kLars, .clip_norm = 0.5f, .lars_coefficient = 0.02f}) <
        kThreeRoundings);
  CHECK(worst_difference({.clip_norm = 1e6f}) < kThreeRoundings);  // never reached
}

TEST_CASE("optimizer: two halves of a gradient are their sum, and a half that is not finite is found") {
  const OptimizerOptions options{.clip_norm = 0.5f};
  Model halved = random_model(small_options("w4a4-fl8", 0.1)), whole = random_model(small_options("w4a4-fl8", 0.1));
  Gradients first = make_gradients(halved), second = make_gradients(halved), sum = make_gradients(halved);
  Gradients momentum = make_gradients(halved), same_momentum = make_gradients(halved);
  randomise(first, 5, 0.05f);
  randomise(second, 6, 0.05f);
  sum.add(first);
  sum.add(second);
  CHECK(optimizer_step(halved, first, second, momentum, 0.1f, options, 0) ==
        optimizer_step(whole, sum, {}, same_momentum, 0.1f, options, 0));
  const std::vector<Tensor> a = tensors_of(halved.units), b = tensors_of(whole.units);
  for (size_t i = 0; i < a.size(); ++i) CHECK(testing::same_bytes(a[i], b[i]));
  second.units.back().bias.data<float>()[1] = std::nanf("");
  CHECK_THROWS_WITH_AS(optimizer_step(halved, first, second, momentum, 0.1f, options, 7),
                       doctest::Contains("fc (bias) is not finite at step 7"), DivergedError);
}

TEST_CASE("optimizer: decay shrinks kernels and nothing else") {
  Model model = random_model(small_options("w4a4-fl8", 0.1));
  Gradients zero = make_gradients(model), momentum = make_gradients(model);
  const std::vector<Tensor> parameters = tensors_of(model.units);
  std::vector<Tensor> before;
  for (const Tensor& t : parameters) before.push_back(t.clone());
  optimizer_step(model, zero, {}, momentum, 0.5f, {.momentum = 0.0f, .nesterov = false, .weight_decay = 0.5f}, 0);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const float factor = parameters[i].shape().rank() > 1 ? 0.75f : 1.0f;
    for (int64_t k = 0; k < parameters[i].size(); ++k)
      REQUIRE(parameters[i].data<float>()[k] == doctest::Approx(factor * before[i].data<float>()[k]).epsilon(1e-6));
  }
}

TEST_CASE("optimizer: LARS on zero weights and zero gradients stays finite") {
  Model model = random_model(small_options("bf16", 0.1));
  Gradients zero = make_gradients(model), momentum = make_gradients(model);
  model.units.front().weights.zero();
  optimizer_step(model, zero, {}, momentum, 0.5f, {.kind = OptimizerKind::kLars}, 0);
  for (const Tensor& t : tensors_of(model.units))
    for (int64_t k = 0; k < t.size(); ++k) REQUIRE(std::isfinite(t.data<float>()[k]));
}

TEST_CASE("optimizer: a gradient that is not finite is named with its step, and nothing is changed") {
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Model model = random_model(small_options("w4a4-fl8", 0.1));
    Gradients gradients = make_gradients(model), momentum = make_gradients(model);
    randomise(gradients, 3, 0.1f);
    std::vector<Tensor> before;
    for (const Tensor& t : tensors_of(model.units)) before.push_back(t.clone());
    const int u = model.network.unit_index("layer2.0.conv2");
    gradients.units[static_cast<size_t>(u)].gamma.data<float>()[3] = bad;
    gradients.units.front().weights.data<float>()[0] = bad;  // carried there by backward
    CHECK_THROWS_WITH_AS(optimizer_step(model, gradients, {}, momentum, 0.1f, {}, 41),
                         doctest::Contains("layer2.0.conv2 (batch norm scale) is not finite at step 41"),
                         DivergedError);
    const std::vector<Tensor> after = tensors_of(model.units);
    for (size_t i = 0; i < after.size(); ++i) CHECK(testing::same_bytes(after[i], before[i]));
    for (const Tensor& t : tensors_of(momentum.units))
      for (int64_t k = 0; k < t.size(); ++k) REQUIRE(t.data<float>()[k] == 0.0f);
  }
}

TEST_CASE("optimizer: names parse, others are refused with the choices") {
  CHECK(optimizer_kind("sgd") == OptimizerKind::kSgd);
  CHECK(optimizer_kind("lars") == OptimizerKind::kLars);
  CHECK_THROWS_WITH_AS(optimizer_kind("adam"), doctest::Contains("sgd or lars"), UsageError);
}

}  // namespace
}  // namespace nibble
