// Activation codes and conversions: golden values, bucket boundaries, packing, all bit patterns where they are few.
#include <cmath>

#include "tests/kernels/elementwise_support.hpp"

namespace {

using nibble::bf16;
using nibble::to_bf16;
using nibble::to_float;
using nibble::kernels::Elementwise;
using namespace nibble::testing;

}  // namespace

TEST_CASE("the unsigned quantizer has the published golden values") {
  struct Case {
    float x, scale;
    uint8_t code;
  };
  const float s4 = 16.0f / (4.0f + 0x1p-23f), s1 = 16.0f / (1.0f + 0x1p-23f);
  CHECK(s4 == 4.0f);
  CHECK(s1 == 15.9999981f);
  const std::vector<Case> cases = {{-0.1f, s4, 0},    {0.05f, s4, 0},  {0.25f, s4, 1}, {0.95f, s4, 3},
                                   {3.74f, s4, 14},   {3.75f, s4, 15}, {4.0f, s4, 15}, {4.1f, s4, 15},
                                   {0.0625f, s1, 0},  {0.07f, s1, 1},  {0.25f, s1, 3}, {0.5f, s1, 7},
                                   {0.9375f, s1, 14}, {1.0f, s1, 15},  {1.2f, s1, 15}};
  const int64_t n = std::ssize(cases);
  Grid<float> x(1, n), scale(1, n), one(1, n), zero(1, n);
  Grid<uint8_t> want(1, n);
  for (int64_t c = 0; c < n; ++c) {
    const Case& golden = cases[static_cast<size_t>(c)];
    x(0, c) = golden.x;
    scale(0, c) = golden.scale;
    one(0, c) = 1.0f;
    zero(0, c) = 0.0f;
    want(0, c) = golden.code;
  }
  for_each_level([&](const Elementwise& ew, const std::string& level) {
    Grid<uint8_t> got(1, n);
    ew.affine_quantize_f32(x.data(), x.stride(), 1, n, one.data(), zero.data(), {scale.data(), 15.0f}, got.out());
    CHECK_MESSAGE(got == want, level);
  });
}

TEST_CASE("every bucket boundary of 4 and 8 bit codes falls where floor puts it, one ulp to either side too") {
  nibble::set_float_mode();
  for (const float top : {15.0f, 255.0f}) {
    std::vector<float> points;
    for (float edge = 0; edge <= top + 2; ++edge)
      for (const float v : {std::nextafter(edge, -1.0f), edge, std::nextafter(edge, 1000.0f)}) points.push_back(v);
    const int64_t n = std::ssize(points);
    Grid<float> x(1, n), one(1, n), zero(1, n);
    Grid<uint8_t> want(1, n);
    for (int64_t c = 0; c < n; ++c) {
      x(0, c) = points[static_cast<size_t>(c)];
      one(0, c) = 1.0f;
      zero(0, c) = 0.0f;
      const double clamped = std::fmin(std::fmax(static_cast<double>(x(0, c)), 0.0), static_cast<double>(top));
      want(0, c) = static_cast<uint8_t>(std::floor(clamped));
    }
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<uint8_t> got(1, n);
      ew.affine_quantize_f32(x.data(), x.stride(), 1, n, one.data(), zero.data(), {one.data(), top}, got.out());
      CHECK_MESSAGE(got == want, level, " top ", top);
    });
  }
}

TEST_CASE("quantizing bf16 rows clamps before it converts") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> x(rows, n, values);
    const Grid<float> scale = scales(n, values);
    for (const auto& q : {floors(scale, 15), floors(scale, 255), rounds(scale, 15), rounds(scale, 255)}) {
      Grid<uint8_t> want(rows, n);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < n; ++c) want(r, c) = unsigned_code(to_float(x(r, c)), q, c);
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<uint8_t> got(rows, n);
        ew.quantize_bf16(x.view(), rows, n, q, got.out());
        CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
      });
    }
  });
}

TEST_CASE("dequantizing divides the code by the scale and rounds") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<uint8_t> codes(rows, n, values);
    const Grid<float> scale = scales(n, values);
    Grid<bf16> want(rows, n);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < n; ++c) want(r, c) = to_bf16(static_cast<float>(codes(r, c)) / scale(0, c));
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<bf16> got(rows, n);
      ew.dequantize_bf16(codes.view(), rows, n, scale.data(), got.out());
      CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n);
    });
  });
}

TEST_CASE("packed nibbles hold the first code in the low half, and unpack to the codes") {
  for (int64_t n = 0; n < 300; ++n) {
    Values values(Fill::kTame, static_cast<uint32_t>(n));
    Grid<uint8_t> codes(1, n), want(1, (n + 1) / 2);
    Grid<int8_t> signed_codes(1, n);
    for (int64_t i = 0; i < n; ++i) {
      codes(0, i) = static_cast<uint8_t>(values.integer(0, 15));
      signed_codes(0, i) = static_cast<int8_t>(codes(0, i) < 8 ? codes(0, i) : codes(0, i) - 16);
    }
    for (int64_t i = 0; i < n; i += 2)
      want(0, i / 2) = static_cast<uint8_t>(codes(0, i) + 16 * (i + 1 < n ? codes(0, i + 1) : 0));
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<uint8_t> packed(1, (n + 1) / 2), packed_signed(1, (n + 1) / 2), unpacked(1, n);
      Grid<int8_t> unpacked_signed(1, n);
      ew.pack_u4(codes.data(), n, packed.data());
      ew.pack_s4(signed_codes.data(), n, packed_signed.data());
      ew.unpack_u4(want.data(), n, unpacked.data());
      ew.unpack_s4(want.data(), n, unpacked_signed.data());
      CHECK_MESSAGE(packed == want, level, " n ", n);
      CHECK_MESSAGE(packed_signed == want, level, " n ", n);
      CHECK_MESSAGE(unpacked == codes, level, " n ", n);
      CHECK_MESSAGE(unpacked_signed == signed_codes, level, " n ", n);
    });
  }
}

TEST_CASE("codes times factors are exact for every pair of bytes up to 255") {
  std::vector<std::pair<int, int>> pairs;
  for (int x = 0; x < 256; ++x)
    for (int y = 0; y < 256 && x * y <= 255; ++y) pairs.emplace_back(x, y);
  for (const int64_t n : {std::ssize(pairs), int64_t{0}, int64_t{1}, int64_t{31}, int64_t{33}, int64_t{65}}) {
    Grid<uint8_t> codes(1, n), factor(1, n), want(1, n);
    for (int64_t i = 0; i < n; ++i) {
      const auto [x, y] = pairs[static_cast<size_t>((i * 7919) % std::ssize(pairs))];
      codes(0, i) = static_cast<uint8_t>(x);
      factor(0, i) = static_cast<uint8_t>(y);
      want(0, i) = static_cast<uint8_t>(x * y);
    }
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<uint8_t> got(1, n);
      ew.multiply_u8(codes.data(), factor.data(), n, got.data());
      CHECK_MESSAGE(got == want, level, " n ", n);
    });
  }
}

TEST_CASE("the largest of rows of codes, for pixels whose rows lie apart") {
  for (const int64_t rows : {1, 2, 4, 6, 9, 10})
    for (const int64_t pixels : {0, 1, 3})
      for (const int64_t n : {0, 1, 31, 39, 64, 79, 130}) {
        Values values(Fill::kTame, static_cast<uint32_t>(rows * 1000 + n));
        Grid<uint8_t> x(2 * pixels + rows, n), want(pixels, n);  // pixel p has the rows from 2 * p on
        for (int64_t r = 0; r < 2 * pixels + rows; ++r)
          for (int64_t c = 0; c < n; ++c) x(r, c) = static_cast<uint8_t>(values.integer(0, 255));
        std::vector<const uint8_t*> pointers;
        for (int64_t r = 0; r < rows; ++r) pointers.push_back(x.row(r));
        for (int64_t p = 0; p < pixels; ++p)
          for (int64_t c = 0; c < n; ++c) {
            want(p, c) = x(2 * p, c);
            for (int64_t r = 1; r < rows; ++r) want(p, c) = std::max(want(p, c), x(2 * p + r, c));
          }
        for_each_level([&](const Elementwise& ew, const std::string& level) {
          Grid<uint8_t> got(pixels, n);
          ew.max_rows_u8({pointers.data(), 2 * x.stride()}, static_cast<int>(rows), pixels, n, got.out());
          CHECK_MESSAGE(got == want, level, " rows ", rows, " pixels ", pixels, " n ", n);
        });
      }
}

TEST_CASE("fp32 rounds to bf16 to nearest even, denormals to signed zero, NaN to a quiet NaN of the same payload") {
  // Every upper half with the lower halves around the tie.
  constexpr std::array<uint32_t, 6> kLower = {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu};
  std::vector<float> x;
  for (uint32_t upper = 0; upper < 0x10000u; ++upper)
    for (const uint32_t lower : kLower) x.push_back(float_of(upper << 16 | lower));
  for (const int64_t n : {std::ssize(x), int64_t{0}, int64_t{1}, int64_t{23}}) {
    std::vector<bf16> want;
    for (int64_t i = 0; i < n; ++i) want.push_back(to_bf16(x[static_cast<size_t>(i)]));
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      std::vector<bf16> got(static_cast<size_t>(n) + 1, bf16{0xa5a5});
      ew.f32_to_bf16(x.data(), n, got.data());
      const bool same = n == 0 || std::memcmp(got.data(), want.data(), want.size() * sizeof(bf16)) == 0;
      CHECK_MESSAGE(same, level, " n ", n);
      CHECK_MESSAGE(got.back().bits == 0xa5a5, level, " n ", n);
    });
  }
  CHECK(to_bf16(float_of(0x3f808000u)).bits == 0x3f80);
  CHECK(to_bf16(float_of(0x3f818000u)).bits == 0x3f82);
  CHECK(to_bf16(float_of(0x807fffffu)).bits == 0x8000);
  CHECK(to_bf16(float_of(0x7f800001u)).bits == 0x7fc0);
}

TEST_CASE("bf16 and signed bytes convert exactly, all of them") {
  std::vector<bf16> halves, bytes_want;
  std::vector<float> want;
  for (int bits = 0; bits < 0x10000; ++bits) {
    halves.push_back({static_cast<uint16_t>(bits)});
    want.push_back(float_of(static_cast<uint32_t>(bits) << 16));
  }
  std::vector<int8_t> bytes;
  for (int v = -128; v < 128; ++v) {
    bytes.push_back(static_cast<int8_t>(v));
    bytes_want.push_back({static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(v)) >> 16)});
  }
  for_each_level([&](const Elementwise& ew, const std::string& level) {
    for (const size_t skip : {size_t{0}, size_t{1}, size_t{13}}) {
      std::vector<float> got(halves.size() - skip);
      ew.bf16_to_f32(halves.data() + skip, std::ssize(got), got.data());
      CHECK_MESSAGE(std::memcmp(got.data(), want.data() + skip, got.size() * sizeof(float)) == 0, level);
      std::vector<bf16> got_bytes(bytes.size() - skip);
      ew.s8_to_bf16(bytes.data() + skip, std::ssize(got_bytes), got_bytes.data());
      CHECK_MESSAGE(std::memcmp(got_bytes.data(), bytes_want.data() + skip, got_bytes.size() * sizeof(bf16)) == 0,
                    level);
    }
  });
}
