// Training passes: normalise and activate, its backward, batch norm's backward, pooling; all argument combinations.
#include <cmath>

#include "tests/kernels/elementwise_support.hpp"

namespace {

using nibble::bf16;
using nibble::to_bf16;
using nibble::to_float;
using nibble::kernels::ActivateBackwardArgs;
using nibble::kernels::clip_class_bytes;
using nibble::kernels::Elementwise;
using nibble::kernels::NormaliseActivateArgs;
using nibble::kernels::Rows;
using nibble::kernels::Store;
using nibble::kernels::UnsignedQuantizer;
using namespace nibble::testing;

/// The outputs of normalise_activate.
struct Activated {
  Grid<bf16> z;
  Grid<uint8_t> codes, classes;
  Grid<float> channel_max;
  bool operator==(const Activated&) const = default;
};

/// The derivative of a quantizer at t = v * scale. Published: METHOD.md section 2, by the bucket that floor picks,
/// before clamping. Clipped before it is rounded: half of it at the two ends alone.
float slope(float t, const UnsignedQuantizer& q) {
  if (q.offset > 0) return t == 0.0f || t == q.top ? 0.5f : t > 0.0f && t < q.top ? 1.0f : 0.0f;
  const float bucket = std::floor(t);
  if (bucket == 0.0f || bucket == q.top) return 0.5f;
  return bucket > 0.0f && bucket < q.top ? 1.0f : 0.0f;
}

int class_of(float z, const UnsignedQuantizer& q, int64_t c) {
  if (!(z > 0.0f)) return 0;
  if (q.scale == nullptr) return 2;
  const float s = slope(z * q.scale[c], q);
  return s == 0.5f ? 1 : s == 1.0f ? 2 : 3;
}

/// Sets bit c of a row of bits.
void set_bit(Grid<uint8_t>& bits, int64_t r, int64_t first_byte, int64_t c, int value) {
  uint8_t& byte = bits(r, first_byte + c / 8);
  byte = static_cast<uint8_t>((byte & ~(1 << c % 8)) | value << c % 8);
}

void set_class(Grid<uint8_t>& classes, int64_t r, int64_t n, int64_t c, int value) {
  set_bit(classes, r, 0, c, value & 1);
  set_bit(classes, r, (n + 7) / 8, c, value >> 1);
}

void run_naively(const NormaliseActivateArgs& args, Activated& out) {
  const auto affine = [](bf16 x, float m, float a) {
    const float product = to_float(x) * m;
    return product + a;
  };
  for (int64_t r = 0; r < args.rows; ++r)
    for (int64_t c = 0; c < args.n; ++c) {
      float v = affine(args.y.data[r * args.y.stride + c], args.m[c], args.a[c]);
      if (args.shortcut.data != nullptr) {
        const bf16 s = args.shortcut.data[r * args.shortcut.stride + c];
        v += args.m2 != nullptr ? rounded(affine(s, args.m2[c], args.a2[c])) : to_float(s);
      }
      v = positive(v);
      if (args.z.data != nullptr) out.z(r, c) = to_bf16(v);
      if (args.quantizer.scale != nullptr)
        out.codes(r, c) = unsigned_code(args.through_bf16 ? rounded(v) : v, args.quantizer, c);
      if (args.classes.data != nullptr) set_class(out.classes, r, args.n, c, class_of(rounded(v), args.quantizer, c));
      if (args.channel_max != nullptr && rounded(v) > out.channel_max(0, c)) out.channel_max(0, c) = rounded(v);
    }
}

/// The outputs of activate_backward.
struct Gradient {
  Grid<bf16> g;
  Grid<float> sum, sum_centred;
  bool operator==(const Gradient&) const = default;
};

void run_naively(const ActivateBackwardArgs& args, Gradient& out) {
  for (int64_t r = 0; r < args.rows; ++r)
    for (int64_t c = 0; c < args.n; ++c) {
      const float y = to_float(args.y.data[r * args.y.stride + c]);
      float v = 0;
      if (args.z.data != nullptr) {
        v = to_float(args.z.data[r * args.z.stride + c]);
      } else {
        v = y * args.m[c];
        v += args.a[c];
      }
      float g = 0;
      if (args.through_quantizer.data != nullptr) {
        g = to_float(args.through_quantizer.data[r * args.through_quantizer.stride + c]);
        if (args.quantizer.scale != nullptr) g *= slope(v * args.quantizer.scale[c], args.quantizer);
      }
      if (args.direct.data != nullptr) {
        const float direct = to_float(args.direct.data[r * args.direct.stride + c]);
        g = args.through_quantizer.data != nullptr ? g + direct : direct;
      }
      out.g(r, c) = to_bf16(v > 0.0f ? g : 0.0f);
      const float stored = to_float(out.g(r, c));
      out.sum(0, c) += stored;
      const float with_y = stored * (y - args.mean[c]);
      out.sum_centred(0, c) += with_y;
    }
}

}  // namespace

TEST_CASE("normalise and activate follows its contract for every combination of arguments") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> y(rows, n, values), side(rows, n, values);
    const Grid<float> m = constants(n, -2.0f, 2.0f, values), a = constants(n, -1.0f, 1.0f, values);
    const Grid<float> m2 = constants(n, -2.0f, 2.0f, values), a2 = constants(n, -1.0f, 1.0f, values);
    const Grid<float> scale = scales(n, values), max0 = constants(n, 0.0f, 1.0f, values);
    const Activated before{Grid<bf16>(rows, n, padding_at(rows, n)), Grid<uint8_t>(rows, n),
                           Grid<uint8_t>(rows, clip_class_bytes(n)), max0};
    // Bits of `wanted`: z, codes, codes through bf16, maxima, classes. Shortcut: 0 none, 1 as it is, 2 projected.
    for (int shortcut = 0; shortcut < 3; ++shortcut)
      for (int wanted = 0; wanted < 32; ++wanted) {
        const auto arguments = [&](Activated& out) {
          NormaliseActivateArgs args;
          args.rows = rows;
          args.n = n;
          args.y = y.view();
          args.m = m.data();
          args.a = a.data();
          if (shortcut > 0) args.shortcut = side.view();
          if (shortcut == 2) args.m2 = m2.data();
          if (shortcut == 2) args.a2 = a2.data();
          if (wanted & 1) args.z = out.z.out();
          if (wanted & 2) args.codes = out.codes.out();
          const float top = wanted & 1 ? 15.0f : 255.0f;
          if (wanted & 2) args.quantizer = seed % 5 < 2 ? rounds(scale, top) : floors(scale, top);
          args.through_bf16 = (wanted & 4) != 0;
          if (wanted & 8) args.channel_max = out.channel_max.data();
          if (wanted & 16) args.classes = out.classes.out();
          args.store_z = store_at(rows, n);
          return args;
        };
        Activated want = before;
        run_naively(arguments(want), want);
        for_each_level([&](const Elementwise& ew, const std::string& level) {
          Activated got = before;
          ew.normalise_activate(arguments(got));
          ew.publish();
          const bool same = got == want;
          CHECK_MESSAGE(same, level, " rows ", rows, " n ", n, " shortcut ", shortcut, " wanted ", wanted);
        });
      }
  });
}

TEST_CASE("the backward of the activation follows its contract for every combination of arguments") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> y(rows, n, values), z(rows, n, values), through(rows, n, values), direct(rows, n, values);
    const Grid<float> m = constants(n, -2.0f, 2.0f, values), a = constants(n, -1.0f, 1.0f, values);
    const Grid<float> mean = constants(n, -1.0f, 1.0f, values);
    const Grid<float> scale = scales(n, values), sum0 = constants(n, -1.0f, 1.0f, values);
    const Gradient before{Grid<bf16>(rows, n, padding_at(rows, n)), sum0, sum0};
    // Bits of `given`: z, gradient through the quantizer, direct gradient.
    for (const UnsignedQuantizer& q : {UnsignedQuantizer{}, floors(scale, 15), floors(scale, 255), rounds(scale, 15)}) {
      Grid<uint8_t> classes(rows, clip_class_bytes(n));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < n; ++c) set_class(classes, r, n, c, class_of(to_float(z(r, c)), q, c));
      for (int given = 0; given < 8; ++given) {
        const auto arguments = [&](Gradient& out) {
          ActivateBackwardArgs args;
          args.rows = rows;
          args.n = n;
          args.y = y.view();
          args.m = m.data();
          args.a = a.data();
          if (given & 1) args.z = z.view();
          if (given & 2) args.through_quantizer = through.view();
          if (given & 4) args.direct = direct.view();
          args.quantizer = q;
          args.mean = mean.data();
          args.g = out.g.out();
          args.store_g = store_at(rows, n);
          args.sum_g = out.sum.data();
          args.sum_g_centred = out.sum_centred.data();
          return args;
        };
        Gradient want = before;
        run_naively(arguments(want), want);
        for_each_level([&](const Elementwise& ew, const std::string& level) {
          Gradient got = before;
          ew.activate_backward(arguments(got));
          ew.publish();
          const bool same = got == want;
          CHECK_MESSAGE(same, level, " rows ", rows, " n ", n, " top ", q.top, " offset ", q.offset, " given ", given);
          if (given & 6) {
            const Grid<bf16>& input = given & 4 ? direct : through;
            Gradient over{input, sum0, sum0}, want_over{input, want.sum, want.sum_centred};
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t c = 0; c < n; ++c) want_over.g(r, c) = want.g(r, c);
            ActivateBackwardArgs in_place = arguments(over);
            (given & 4 ? in_place.direct : in_place.through_quantizer) = over.g.view();
            ew.activate_backward(in_place);
            ew.publish();
            CHECK_MESSAGE((over == want_over), level, " in place, rows ", rows, " n ", n, " given ", given);
          }
          if (!(given & 1)) return;
          Gradient by_class = before;
          ActivateBackwardArgs args = arguments(by_class);
          args.z = {};
          args.classes = classes.view();
          ew.activate_backward(args);
          ew.publish();
          const bool equal = by_class == want;
          CHECK_MESSAGE(equal, level, " rows ", rows, " n ", n, " top ", q.top, " offset ", q.offset, " given ", given,
                        " by classes");
        });
      }
    }
  });
}

TEST_CASE("the unsigned quantizer's derivative has the published golden values") {
  struct Case {
    float x, scale, slope;
  };
  // Bounds 4 and 1 with 4 bits; x is not rounded to bf16 here, so y carries 1 and m carries x.
  const float s4 = 16.0f / (4.0f + 0x1p-23f), s1 = 16.0f / (1.0f + 0x1p-23f);
  const std::vector<Case> cases = {{-0.1f, s4, 0},      {0.05f, s4, 0.5f}, {0.25f, s4, 1}, {0.95f, s4, 1},
                                   {3.74f, s4, 1},      {3.75f, s4, 0.5f}, {4.0f, s4, 0},  {4.1f, s4, 0},
                                   {0.0625f, s1, 0.5f}, {0.07f, s1, 1},    {0.25f, s1, 1}, {0.5f, s1, 1},
                                   {0.9375f, s1, 1},    {1.0f, s1, 0.5f},  {1.2f, s1, 0}};
  const int64_t n = std::ssize(cases);
  Grid<float> m(1, n), scale(1, n), zero(1, n);
  Grid<bf16> one(1, n), want(1, n);
  for (int64_t c = 0; c < n; ++c) {
    const Case& golden = cases[static_cast<size_t>(c)];
    m(0, c) = golden.x;
    scale(0, c) = golden.scale;
    zero(0, c) = 0;
    one(0, c) = to_bf16(1.0f);
    want(0, c) = to_bf16(golden.slope);
  }
  for_each_level([&](const Elementwise& ew, const std::string& level) {
    Grid<bf16> got(1, n);
    Grid<float> sum = zero, sum_centred = zero;
    ew.activate_backward({.rows = 1,
                          .n = n,
                          .y = one.view(),
                          .m = m.data(),
                          .a = zero.data(),
                          .z = {},
                          .classes = {},
                          .through_quantizer = one.view(),
                          .direct = {},
                          .quantizer = {scale.data(), 15.0f},
                          .mean = zero.data(),
                          .g = got.out(),
                          .sum_g = sum.data(),
                          .sum_g_centred = sum_centred.data()});
    CHECK_MESSAGE(got == want, level);
  });
}

TEST_CASE("batch norm's backward sums go down the rows and its apply adds in the order written") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> g(rows, n, values), y(rows, n, values);
    const Grid<float> p = constants(n, -2.0f, 2.0f, values), q = constants(n, -2.0f, 2.0f, values);
    const Grid<float> k = constants(n, -2.0f, 2.0f, values);
    Grid<float> want_sum = k, want_centred = q;
    const Grid<bf16> before(rows, n, padding_at(rows, n));
    Grid<bf16> want = before, in_place = g;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < n; ++c) {
        const float gradient = to_float(g(r, c)), value = to_float(y(r, c));
        want_sum(0, c) += gradient;
        const float with_y = gradient * (value - p(0, c));
        want_centred(0, c) += with_y;
        const float first = p(0, c) * gradient, second = q(0, c) * value;
        want(r, c) = in_place(r, c) = to_bf16(first + second + k(0, c));
      }
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<float> sum = k, centred = q;
      Grid<bf16> got = before, over = g;
      ew.norm_backward_sums(g.view(), y.view(), rows, n, p.data(), sum.data(), centred.data());
      ew.norm_backward_apply(g.view(), y.view(), rows, n, p.data(), q.data(), k.data(), got.out(), store_at(rows, n));
      ew.publish();
      ew.norm_backward_apply(over.view(), y.view(), rows, n, p.data(), q.data(), k.data(), over.out(), Store::kCached);
      CHECK_MESSAGE(over == in_place, level, " rows ", rows, " n ", n);
      CHECK_MESSAGE(sum == want_sum, level, " rows ", rows, " n ", n);
      CHECK_MESSAGE(centred == want_centred, level, " rows ", rows, " n ", n);
      CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
    });
  });
}

TEST_CASE("adding bf16 rows rounds the fp32 sum, also in place") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> a(rows, n, values), b(rows, n, values);
    Grid<bf16> want = a;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < n; ++c) want(r, c) = to_bf16(to_float(a(r, c)) + to_float(b(r, c)));
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<bf16> got = a;
      ew.add_bf16(got.view(), b.view(), rows, n, got.out());
      CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
    });
  });
}

TEST_CASE("the maximum over rows keeps the first row that attains it") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    if (rows == 0) return;
    Values values(fill, seed);
    Grid<bf16> x(rows, n, values);
    for (int64_t c = 0; c < n; c += 3) x(rows - 1, c) = x(0, c);  // ties between the first and the last row
    std::vector<const bf16*> pointers;
    for (int64_t r = 0; r < rows; ++r) pointers.push_back(x.row(r));
    Grid<bf16> want(1, n);
    Grid<uint8_t> want_arg(1, n);
    for (int64_t c = 0; c < n; ++c) {
      int64_t best = 0;
      for (int64_t r = 1; r < rows; ++r)
        if (to_float(x(r, c)) > to_float(x(best, c))) best = r;
      want(0, c) = to_bf16(to_float(x(best, c)));  // denormals become zero
      want_arg(0, c) = static_cast<uint8_t>(best);
    }
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<bf16> got(1, n), without_arg(1, n);
      Grid<uint8_t> arg(1, n);
      ew.max_rows_bf16(pointers.data(), static_cast<int>(rows), n, got.data(), arg.data());
      ew.max_rows_bf16(pointers.data(), static_cast<int>(rows), n, without_arg.data(), nullptr);
      CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
      CHECK_MESSAGE(without_arg == want, level, " rows ", rows, " n ", n);
      CHECK_MESSAGE(arg == want_arg, level, " rows ", rows, " n ", n);
    });
  });
}

TEST_CASE("a pixel's gradient is the sum of the windows that chose it") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> g(rows, n, values);
    Grid<uint8_t> arg(rows, n);
    std::vector<const bf16*> gradients;
    std::vector<const uint8_t*> args;
    std::vector<uint8_t> place;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < n; ++c) arg(r, c) = static_cast<uint8_t>(values.integer(0, 2) + (c % 5 == 0 ? 253 : 0));
      gradients.push_back(g.row(r));
      args.push_back(arg.row(r));
      place.push_back(static_cast<uint8_t>(r % 2 == 0 ? 1 : 254));
    }
    Grid<bf16> want(1, n);
    for (int64_t c = 0; c < n; ++c) {
      float sum = 0;
      for (int64_t r = 0; r < rows; ++r) sum += arg(r, c) == place[static_cast<size_t>(r)] ? to_float(g(r, c)) : 0.0f;
      want(0, c) = to_bf16(sum);
    }
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<bf16> got(1, n);
      ew.max_rows_backward_bf16(gradients.data(), args.data(), place.data(), static_cast<int>(rows), n, got.data());
      CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
    });
  });
}

TEST_CASE("the sum over rows starts at zero and goes down the rows") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> x(rows, n, values);
    Grid<float> want(1, n);
    for (int64_t c = 0; c < n; ++c) want(0, c) = 0.0f;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < n; ++c) want(0, c) += to_float(x(r, c));
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<float> got(1, n);
      ew.sum_rows_bf16(x.view(), rows, n, got.data());
      CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
    });
  });
}
