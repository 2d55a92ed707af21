// Elementary functions with fixed bits against the C library in double.
#include "engine/math.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "tests/worst.hpp"

using namespace nibble;

namespace {

/// Every 251st single (a prime, so that all exponents and trailing bits are met) in [low, high] of positive words.
template <typename Body>
void visit(float low, float high, const Body& body) {
  for (uint64_t w = std::bit_cast<uint32_t>(low); w <= std::bit_cast<uint32_t>(high); w += 251)
    body(std::bit_cast<float>(static_cast<uint32_t>(w)));
}

}  // namespace

TEST_CASE("exp_exact is within 3e-7 of e^x wherever the result is a normal number") {
  double worst = 0;
  const auto check = [&](float x) {
    const double exact = std::exp(static_cast<double>(x));
    worst = testing::worse(worst, std::abs(static_cast<double>(exp_exact(x)) / exact - 1));
  };
  visit(1e-30f, 88.72283f, check);
  visit(1e-30f, 87.33654f, [&](float x) { check(-x); });
  check(0.0f);
  CHECK(worst < 3e-7);
  CHECK(exp_exact(0.0f) == 1.0f);
}

TEST_CASE("exp_exact saturates at both ends and passes NaN on") {
  const float inf = std::numeric_limits<float>::infinity();
  CHECK(exp_exact(88.8f) == inf);
  CHECK(exp_exact(inf) == inf);
  CHECK(exp_exact(-87.4f) == 0.0f);
  CHECK(exp_exact(-inf) == 0.0f);
  CHECK(std::isnan(exp_exact(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("log_exact is within 1e-6 of log x, relative to max(1, |log x|), for every normal magnitude") {
  double worst = 0;
  visit(std::bit_cast<float>(0x00800000u), std::bit_cast<float>(0x7f7fffffu), [&](float x) {
    const double exact = std::log(static_cast<double>(x));
    worst = testing::worse(worst, std::abs(static_cast<double>(log_exact(x)) - exact) / std::max(1.0, std::abs(exact)));
  });
  CHECK(worst < 1e-6);
  CHECK(log_exact(1.0f) == 0.0f);
}

TEST_CASE("cos2pi_exact is within 1e-6 of cos(2 pi t) over its whole domain") {
  double worst = 0;
  for (uint32_t i = 0; i < (1u << 24); i += 13) {
    const float t = static_cast<float>(i) * 0x1p-24f;
    const double exact = std::cos(2 * 3.14159265358979323846 * static_cast<double>(t));
    worst = testing::worse(worst, std::abs(static_cast<double>(cos2pi_exact(t)) - exact));
  }
  CHECK(worst < 1e-6);
  CHECK(cos2pi_exact(0.0f) == 1.0f);
  CHECK(cos2pi_exact(0.5f) == -1.0f);
}

TEST_CASE("cos_exact is within 2e-6 of cos for angles of a schedule, negative ones too") {
  double worst = 0;
  for (int i = -20000; i <= 20000; ++i) {
    const double a = i * 0.00137;
    worst = testing::worse(worst, std::abs(static_cast<double>(cos_exact(a)) - std::cos(a)));
  }
  // cos2pi's 1e-6 and the rounding of the turns to f32, 2 pi * 2^-25 = 1.9e-7.
  CHECK(worst < 1.2e-6);
  CHECK(cos_exact(0.0) == 1.0f);
}

TEST_CASE("elementary functions give the same bits as when they were written") {
  // A change of any of these changes initial weights and losses of all runs.
  CHECK(std::bit_cast<uint32_t>(exp_exact(1.0f)) == 0x402df854u);  // e rounded to nearest
  CHECK(std::bit_cast<uint32_t>(sqrt_exact(2.0f)) == 0x3fb504f3u);
  uint32_t hash = 2166136261u;  // FNV-1a
  const auto mix = [&](float v) {
    const uint32_t word = std::bit_cast<uint32_t>(v);
    for (int i = 0; i < 4; ++i) hash = (hash ^ ((word >> (8 * i)) & 255u)) * 16777619u;
  };
  for (int i = 1; i < 1000; ++i) {
    const float t = static_cast<float>(i);
    mix(exp_exact((t - 500.0f) * 0.17f));
    mix(log_exact(t * 0.37f));
    mix(cos2pi_exact(t * 0.001f));
  }
  CHECK(hash == 0x206fdf21u);
}
