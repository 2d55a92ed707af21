// Random numbers: published vectors of Philox, purity, distributions.
#include "engine/rng.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

using namespace nibble;

TEST_CASE("philox gives the known answers of Random123's kat_vectors (philox 4x32, 10 rounds)") {
  using Words = std::array<uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  constexpr uint32_t kOnes = 0xffffffffu;
  CHECK(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) ==
        Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
        Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("an rng is a pure function of seed, purpose and stream, and all of them matter") {
  const auto first = [](uint64_t seed, uint32_t purpose, uint64_t a, uint32_t b) {
    return Rng(seed, purpose, a, b).next_u32();
  };
  CHECK(first(1, 2, 3, 4) == first(1, 2, 3, 4));
  const std::set<uint32_t> all = {first(1, 2, 3, 4),
                                  first(2, 2, 3, 4),
                                  first(1, 3, 3, 4),
                                  first(1, 2, 4, 4),
                                  first(1, 2, 3, 5),
                                  first(1, 2, 3 + (1ull << 32), 4),
                                  first(1 + (1ull << 32), 2, 3, 4)};
  CHECK(all.size() == 7);
}

TEST_CASE("a copied rng continues from the same position") {
  Rng a(7, rng_purpose::kTest);
  for (int i = 0; i < 5; ++i) a.next_u32();
  Rng b = a;
  for (int i = 0; i < 9; ++i) CHECK(a.next_u32() == b.next_u32());
}

TEST_CASE("below is uniform and never reaches its bound") {
  Rng rng(1, rng_purpose::kTest);
  constexpr uint32_t kSides = 7;
  constexpr int kDraws = 70000;
  std::vector<int> counts(kSides);
  for (int i = 0; i < kDraws; ++i) {
    const uint32_t v = rng.below(kSides);
    REQUIRE(v < kSides);
    ++counts[v];
  }
  // Chi-squared with 6 degrees of freedom exceeds 22.5 once in a thousand; the draws are fixed by the seed.
  double chi2 = 0;
  for (int n : counts) chi2 += (n - kDraws / 7.0) * (n - kDraws / 7.0) / (kDraws / 7.0);
  CHECK(chi2 < 22.5);
  for (int i = 0; i < 100; ++i) CHECK(rng.below(1) == 0);
  // Three quarters of 2^32: plain reduction would draw the lower third twice as often (2/3 instead of 1/3).
  int low = 0;
  for (int i = 0; i < 10000; ++i) low += rng.below(0xC0000000u) < 0x40000000u;
  CHECK(std::abs(low - 3333) < 4 * 47);  // four standard deviations
}

TEST_CASE("uniform lies in [0, 1) with mean 1/2 and variance 1/12") {
  Rng rng(2, rng_purpose::kTest);
  constexpr int kDraws = 100000;
  double sum = 0, sum_sq = 0;
  for (int i = 0; i < kDraws; ++i) {
    const float u = rng.uniform();
    REQUIRE((u >= 0.0f && u < 1.0f));
    sum += static_cast<double>(u);
    sum_sq += static_cast<double>(u) * static_cast<double>(u);
  }
  const double mean = sum / kDraws, variance = sum_sq / kDraws - mean * mean;
  CHECK(std::abs(mean - 0.5) < 4 * std::sqrt(1.0 / 12 / kDraws));
  CHECK(std::abs(variance - 1.0 / 12) < 4 * std::sqrt(1.0 / 180 / kDraws));
}

TEST_CASE("normal has mean 0, variance 1, and the tails of a normal") {
  Rng rng(3, rng_purpose::kTest);
  constexpr int kDraws = 100000;
  double sum = 0, sum_sq = 0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double v = static_cast<double>(rng.normal());
    REQUIRE(std::isfinite(v));
    sum += v;
    sum_sq += v * v;
    beyond_two += std::abs(v) > 2;
  }
  CHECK(std::abs(sum / kDraws) < 4 / std::sqrt(double{kDraws}));
  CHECK(std::abs(sum_sq / kDraws - 1) < 4 * std::sqrt(2.0 / kDraws));
  CHECK(std::abs(beyond_two - 0.0455003 * kDraws) < 4 * std::sqrt(0.0455 * 0.9545 * kDraws));
}
