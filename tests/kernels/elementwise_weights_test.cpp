// Weights and optimiser: largest magnitude, signed quantizer, SGD step, gradient sums.
#include <cmath>

#include "tests/kernels/elementwise_support.hpp"

namespace {

using nibble::kernels::Elementwise;
using nibble::kernels::Into;
using nibble::kernels::Store;
using namespace nibble::testing;

/// floor(clamp(w*fold*scale, -top, top) + 0.5); a NaN counts as the lower bound.
int8_t weight_code(float w, float fold, float scale, float top) {
  float t = w * fold;
  t *= scale;
  if (!(t > -top)) t = -top;
  if (!(t < top)) t = top;
  return static_cast<int8_t>(std::floor(t + 0.5f));
}

}  // namespace

TEST_CASE("the signed quantizer has the published golden values") {
  struct Case {
    float w;
    int8_t code;
  };
  const float scale = 7.0f / (1.0f + 0x1p-23f);
  CHECK(scale == 6.99999905f);
  const std::vector<Case> cases = {{0.0714f, 0}, {-0.0714f, 0}, {0.0715f, 1}, {-0.5f, -3}, {0.5f, 3},
                                   {0.93f, 7},   {1.0f, 7},     {-1.0f, -7},  {1.2f, 7},   {-1.2f, -7}};
  for_each_level([&](const Elementwise& ew, const std::string& level) {
    for (const Case& golden : cases) {
      const std::vector<float> w(19, golden.w);
      std::vector<int8_t> codes(19);
      ew.quantize_weights(w.data(), nullptr, 19, scale, 7.0f, codes.data());
      CHECK_MESSAGE(codes == std::vector<int8_t>(19, golden.code), level, " w ", golden.w);
    }
    // Halves round up: t = -0.5 -> 0, 0.5 -> 1, -1.5 -> -1.
    const std::vector<float> halves = {-0.5f, 0.5f, -1.5f, 1.5f, -6.5f, 6.5f, -126.5f, 126.5f};
    std::vector<int8_t> codes(halves.size());
    ew.quantize_weights(halves.data(), nullptr, std::ssize(halves), 1.0f, 127.0f, codes.data());
    const std::vector<int8_t> want = {0, 1, -1, 2, -6, 7, -126, 127};
    CHECK_MESSAGE(codes == want, level);
  });
}

TEST_CASE("quantizing weights follows its formula with and without folded factors") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    if (rows != 1) return;
    Values values(fill, seed);
    const Grid<float> w(1, n, values), fold = constants(n, 0.5f, 2.0f, values);
    for (const float top : {7.0f, 127.0f})
      for (const float* factors : {static_cast<const float*>(fold.data()), static_cast<const float*>(nullptr)}) {
        const float scale = top / 3.3f;
        Grid<int8_t> want(1, n);
        for (int64_t i = 0; i < n; ++i)
          want(0, i) = weight_code(w(0, i), factors != nullptr ? factors[i] : 1.0f, scale, top);
        for_each_level([&](const Elementwise& ew, const std::string& level) {
          Grid<int8_t> got(1, n);
          ew.quantize_weights(w.data(), factors, n, scale, top, got.data());
          CHECK_MESSAGE(got == want, level, " n ", n, " top ", top);
        });
      }
  });
}

TEST_CASE("the largest magnitude is found wherever it is, and any NaN wins") {
  for (int64_t n = 0; n <= 70; ++n) {
    Values values(Fill::kTame, static_cast<uint32_t>(n) + 1);
    const Grid<float> w = constants(n, -1.0f, 1.0f, values), fold = constants(n, 0.5f, 1.0f, values);
    const auto expect = [&](const Grid<float>& weights, const float* factors) {
      float want = 0;
      for (int64_t i = 0; i < n; ++i) {
        const float v = std::fabs(weights(0, i) * (factors != nullptr ? factors[i] : 1.0f));
        if (!(v <= want)) want = v;
        if (want != want) break;
      }
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        const float got = ew.absmax(weights.data(), factors, n);
        const bool same = want != want ? got != got : std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(want);
        CHECK_MESSAGE(same, level, " n ", n, " got ", got, " want ", want);
      });
    };
    expect(w, nullptr);
    expect(w, fold.data());
    for (int64_t at = 0; at < n; at += 3)
      for (const float special : {-77.0f, 77.0f, -std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
        Grid<float> with = w;
        with(0, at) = special;
        expect(with, nullptr);
        expect(with, fold.data());
      }
  }
}

TEST_CASE("the SGD step is multiply then add in the order written, plain and Nesterov") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    if (rows != 1) return;
    Values values(fill, seed);
    const Grid<float> w0(1, n, values), m0(1, n, values), g(1, n, values);
    const float rate = 0.37f, momentum = 0.9f, decay = 1e-4f;
    for (const bool nesterov : {false, true}) {
      Grid<float> want_w = w0, want_m = m0;
      for (int64_t i = 0; i < n; ++i) {
        const float decayed = decay * w0(0, i), d = g(0, i) + decayed;
        const float kept = momentum * m0(0, i);
        want_m(0, i) = kept + d;
        const float ahead = momentum * want_m(0, i), step = rate * (nesterov ? d + ahead : want_m(0, i));
        want_w(0, i) = w0(0, i) - step;
      }
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<float> w = w0, m = m0;
        ew.sgd_step(w.data(), m.data(), g.data(), n, rate, momentum, decay, nesterov);
        CHECK_MESSAGE(w == want_w, level, " n ", n);
        CHECK_MESSAGE(m == want_m, level, " n ", n);
      });
    }
  });
}

TEST_CASE("scaled fp32 sums multiply the two scales, then the element, and are written or added") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<float> x(rows, n, values), row(1, n, values), column(1, rows, values), other(rows, n, values);
    Grid<float> before(rows, n, store_at(rows, n) == Store::kStreamed ? 16 - n % 16 : 5);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < n; ++c) before(r, c) = other(r, c);
    // Bits of `scaled`: by column, by row.
    for (int scaled = 0; scaled < 4; ++scaled)
      for (const Into into : {Into::kAccumulate, Into::kOverwrite}) {
        Grid<float> want = before;
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < n; ++c) {
            const float scale = (scaled & 1 ? column(0, r) : 1.0f) * (scaled & 2 ? row(0, c) : 1.0f);
            const float product = scale * x(r, c);
            want(r, c) = into == Into::kAccumulate ? before(r, c) + product : product;
          }
        for_each_level([&](const Elementwise& ew, const std::string& level) {
          Grid<float> got = before;
          ew.scale_rows_f32(x.view(), rows, n, scaled & 1 ? column.data() : nullptr, scaled & 2 ? row.data() : nullptr,
                            got.out(), into, store_at(rows, n));
          ew.publish();
          CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n, " scaled ", scaled);
        });
      }
  });
}

TEST_CASE("fp32 sums add element by element") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    if (rows != 1) return;
    Values values(fill, seed);
    const Grid<float> x(1, n, values), before(1, n, values);
    Grid<float> want = before;
    for (int64_t i = 0; i < n; ++i) want(0, i) += x(0, i);
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<float> got = before;
      ew.add_f32(x.data(), n, got.data());
      CHECK_MESSAGE(got == want, level, " n ", n);
    });
  });
}
