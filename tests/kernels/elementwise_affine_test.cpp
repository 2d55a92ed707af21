// After the product: affine, quantize, shortcut, rescaling with statistics; every level against a naive reference.
#include <cmath>

#include "tests/kernels/elementwise_support.hpp"

namespace {

using nibble::bf16;
using nibble::to_bf16;
using nibble::to_float;
using nibble::kernels::Elementwise;
using nibble::kernels::Into;
using namespace nibble::testing;

/// The kernels of the table for one type of accumulator.
template <typename Acc>
struct Slots;
template <>
struct Slots<int32_t> {
  static constexpr auto quantize = &Elementwise::affine_quantize_s32;
  static constexpr auto to_half = &Elementwise::affine_bf16_s32;
  static constexpr auto add_relu = &Elementwise::affine_add_relu_bf16_s32;
  static constexpr auto to_single = &Elementwise::affine_f32_s32;
  static constexpr auto rescale = &Elementwise::rescale_stats_s32;
};
template <>
struct Slots<float> {
  static constexpr auto quantize = &Elementwise::affine_quantize_f32;
  static constexpr auto to_half = &Elementwise::affine_bf16_f32;
  static constexpr auto add_relu = &Elementwise::affine_add_relu_bf16_f32;
  static constexpr auto to_single = &Elementwise::affine_f32_f32;
  static constexpr auto rescale = &Elementwise::rescale_stats_f32;
};

/// Accumulators, m and a of one shape, and v for each element.
template <typename Acc>
struct Product {
  Values values;
  Grid<Acc> acc;
  Grid<float> m, a;
  Product(int64_t rows, int64_t n, Fill fill, uint32_t seed)
      : values(fill, seed),
        acc(rows, n, values),
        m(constants(n, -0.01f, 0.01f, values)),
        a(constants(n, -2.0f, 2.0f, values)) {}
  float v(int64_t r, int64_t c) const {
    const float product = static_cast<float>(acc(r, c)) * m(0, c);
    return product + a(0, c);
  }
};

template <typename T, typename Element>
void fill_expected(Grid<T>& want, int64_t rows, int64_t n, const Element& element) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < n; ++c) want(r, c) = element(r, c);
}

}  // namespace

TEST_CASE_TEMPLATE("affine then quantize gives the clamped floor of v times scale", Acc, int32_t, float) {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Product<Acc> p(rows, n, fill, seed);
    const Grid<float> scale = scales(n, p.values);
    for (const auto& q : {floors(scale, 15), floors(scale, 255), rounds(scale, 15), rounds(scale, 255)}) {
      Grid<uint8_t> want(rows, n);
      fill_expected(want, rows, n, [&](int64_t r, int64_t c) { return unsigned_code(p.v(r, c), q, c); });
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<uint8_t> got(rows, n);
        (ew.*Slots<Acc>::quantize)(p.acc.data(), p.acc.stride(), rows, n, p.m.data(), p.a.data(), q, got.out());
        CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n, " top ", q.top, " offset ", q.offset);
      });
    }
  });
}

TEST_CASE_TEMPLATE("affine to bf16 and to fp32 multiplies, then adds", Acc, int32_t, float) {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    const Product<Acc> p(rows, n, fill, seed);
    Grid<bf16> want_half(rows, n);
    Grid<float> want_single(rows, n);
    fill_expected(want_half, rows, n, [&](int64_t r, int64_t c) { return to_bf16(p.v(r, c)); });
    fill_expected(want_single, rows, n, [&](int64_t r, int64_t c) { return p.v(r, c); });
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<bf16> half(rows, n);
      Grid<float> single(rows, n);
      (ew.*Slots<Acc>::to_half)(p.acc.data(), p.acc.stride(), rows, n, p.m.data(), p.a.data(), half.out(),
                                seed % 2 == 0 ? nullptr : half.out().data);
      (ew.*Slots<Acc>::to_single)(p.acc.data(), p.acc.stride(), rows, n, p.m.data(), p.a.data(), single.out());
      CHECK_MESSAGE(half == want_half, level, " rows ", rows, " n ", n);
      CHECK_MESSAGE(single == want_single, level, " rows ", rows, " n ", n);
    });
  });
}

TEST_CASE_TEMPLATE("affine, shortcut, ReLU gives bf16 and its codes, with and without each", Acc, int32_t, float) {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Product<Acc> p(rows, n, fill, seed);
    const Grid<bf16> shortcut(rows, n, p.values);
    const Grid<float> scale = scales(n, p.values);
    const float top = seed % 2 == 0 ? 15.0f : 255.0f;
    const auto quantizer = seed % 5 < 2 ? rounds(scale, top) : floors(scale, top);
    const bf16* const next = seed % 3 == 0 ? nullptr : shortcut.data();
    for (const auto& side : {shortcut.view(), nibble::kernels::Rows<const bf16>{}}) {
      Grid<bf16> want(rows, n);
      fill_expected(want, rows, n, [&](int64_t r, int64_t c) {
        const float v = p.v(r, c);
        return to_bf16(positive(side.data != nullptr ? v + to_float(shortcut(r, c)) : v));
      });
      Grid<uint8_t> want_codes(rows, n);
      fill_expected(want_codes, rows, n,
                    [&](int64_t r, int64_t c) { return unsigned_code(to_float(want(r, c)), quantizer, c); });
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        const auto run_over = [&](const auto& from, const auto& out, const nibble::kernels::UnsignedQuantizer& q,
                                  const auto& codes) {
          (ew.*Slots<Acc>::add_relu)(p.acc.data(), p.acc.stride(), rows, n, p.m.data(), p.a.data(),
                                     {.shortcut = from,
                                      .next_shortcut = next,
                                      .out = out,
                                      .quantizer = q,
                                      .codes = codes,
                                      .next_codes = seed % 3 == 1 ? codes.data : nullptr});
        };
        const auto run = [&](const auto& out, const nibble::kernels::UnsignedQuantizer& q, const auto& codes) {
          run_over(side, out, q, codes);
        };
        Grid<bf16> got(rows, n), with_codes(rows, n);
        Grid<uint8_t> codes(rows, n), codes_alone(rows, n);
        run(got.out(), {}, nibble::kernels::Rows<uint8_t>{});
        run(with_codes.out(), quantizer, codes.out());
        run(nibble::kernels::Rows<bf16>{}, quantizer, codes_alone.out());
        CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
        CHECK_MESSAGE(with_codes == want, level, " rows ", rows, " n ", n);
        CHECK_MESSAGE(codes == want_codes, level, " rows ", rows, " n ", n, " top ", top);
        CHECK_MESSAGE(codes_alone == want_codes, level, " rows ", rows, " n ", n, " top ", top);
        if (side.data == nullptr) return;
        // In place, as the executor puts a block's output where its shortcut was.
        Grid<bf16> over = shortcut, over_with_codes = shortcut, want_over = shortcut;
        fill_expected(want_over, rows, n, [&](int64_t r, int64_t c) { return want(r, c); });
        run_over(over.view(), over.out(), {}, nibble::kernels::Rows<uint8_t>{});
        run_over(over_with_codes.view(), over_with_codes.out(), quantizer, codes.out());
        CHECK_MESSAGE(over == want_over, level, " in place, rows ", rows, " n ", n);
        CHECK_MESSAGE(over_with_codes == want_over, level, " in place, rows ", rows, " n ", n);
        CHECK_MESSAGE(codes == want_codes, level, " in place, rows ", rows, " n ", n, " top ", top);
      });
    }
  });
}

TEST_CASE_TEMPLATE("rescaling stores bf16 and adds the sums of the rounded values in row order", Acc, int32_t, float) {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Product<Acc> p(rows, n, fill, seed);
    const Grid<float> sum0 = constants(n, -3.0f, 3.0f, p.values), sq0 = constants(n, 0.0f, 9.0f, p.values);
    for (const float* scale : {static_cast<const float*>(p.m.data()), static_cast<const float*>(nullptr)}) {
      Grid<bf16> want(rows, n, padding_at(rows, n));
      Grid<float> want_sum = sum0, want_sq = sq0;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < n; ++c) {
          const float acc = static_cast<float>(p.acc(r, c));
          want(r, c) = to_bf16(scale != nullptr ? acc * scale[c] : acc);
          const float y = to_float(want(r, c));
          want_sum(0, c) += y;
          const float square = y * y;
          want_sq(0, c) += square;
        }
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<bf16> got(rows, n, padding_at(rows, n)), without_sums = got;
        Grid<float> sum = sum0, sq = sq0;
        (ew.*Slots<Acc>::rescale)(p.acc.data(), p.acc.stride(), rows, n, scale, got.out(), store_at(rows, n),
                                  sum.data(), sq.data());
        (ew.*Slots<Acc>::rescale)(p.acc.data(), p.acc.stride(), rows, n, scale, without_sums.out(), store_at(rows, n),
                                  nullptr, nullptr);
        ew.publish();
        CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
        CHECK_MESSAGE(without_sums == want, level, " rows ", rows, " n ", n);
        CHECK_MESSAGE(sum == want_sum, level, " rows ", rows, " n ", n);
        CHECK_MESSAGE(sq == want_sq, level, " rows ", rows, " n ", n);
      });
    }
  });
}

TEST_CASE("scaling fp32 to bf16 overwrites, or adds to what is there before it rounds") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Product<float> p(rows, n, fill, seed);
    Grid<bf16> before(rows, n, padding_at(rows, n));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < n; ++c) before(r, c) = p.values.any<bf16>();
    for (const Into into : {Into::kOverwrite, Into::kAccumulate})
      for (const float* scale : {static_cast<const float*>(p.m.data()), static_cast<const float*>(nullptr)}) {
        Grid<bf16> want = before;
        fill_expected(want, rows, n, [&](int64_t r, int64_t c) {
          const float v = scale != nullptr ? p.acc(r, c) * scale[c] : p.acc(r, c);
          return to_bf16(into == Into::kAccumulate ? to_float(before(r, c)) + v : v);
        });
        for_each_level([&](const Elementwise& ew, const std::string& level) {
          Grid<bf16> got = before;
          ew.scale_bf16_f32(p.acc.data(), p.acc.stride(), rows, n, scale, got.out(), into, store_at(rows, n));
          CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
        });
      }
  });
}
