// Clip classes: two bits of an activation that give the gradients of the activation itself.
#include <cmath>

#include "tests/kernels/elementwise_support.hpp"

namespace {

using nibble::bf16;
using nibble::to_bf16;
using nibble::to_float;
using nibble::kernels::Elementwise;
using nibble::kernels::UnsignedQuantizer;
using namespace nibble::testing;

/// METHOD.md section 2 by the bucket that floor picks; ReLU before it.
int class_of(float z, float t, bool quantized, float top) {
  if (!(z > 0.0f)) return 0;
  if (!quantized) return 2;
  const float bucket = std::floor(t);
  if (bucket == 0.0f || bucket == top) return 1;
  return bucket < top ? 2 : 3;
}

/// What a quantizer may be: none, 4 and 8 bits.
std::vector<UnsignedQuantizer> quantizers(const Grid<float>& scale) {
  return {{nullptr, 0.0f}, {scale.data(), 15.0f}, {scale.data(), 255.0f}};
}

}  // namespace

TEST_CASE("the clip class is ReLU's and the quantizer's derivative in two bits") {
  for_each_shape([](int64_t rows, int64_t n, Fill fill, uint32_t seed) {
    Values values(fill, seed);
    const Grid<bf16> z(rows, n, values);
    const Grid<float> scale = scales(n, values);
    for (const UnsignedQuantizer& q : quantizers(scale)) {
      Grid<uint8_t> want(rows, n);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < n; ++c) {
          const float v = to_float(z(r, c));
          want(r, c) = static_cast<uint8_t>(class_of(v, v * scale(0, c), q.scale != nullptr, q.top));
        }
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<uint8_t> got(rows, n);
        ew.clip_classes(z.view(), rows, n, q, got.out());
        CHECK_MESSAGE(got == want, level, " rows ", rows, " n ", n, " top ", q.top);
      });
    }
  });
}

TEST_CASE("the value of a clip class is of that class, whatever the scale") {
  // 2^31 and 2^35 are the scales of a channel whose bound is zero (the epsilon alone), 7.6e-37 that of a bound near
  // the largest float.
  constexpr float kScales[] = {1.0f, 0.3f, 17.0f, 0x1p31f, 0x1p35f, 7.6e-37f, 255.0f / 254.0f};
  const int64_t n = std::ssize(kScales) * 4;
  Grid<float> scale(1, n);
  Grid<uint8_t> classes(1, n);
  for (int64_t c = 0; c < n; ++c) {
    scale(0, c) = kScales[c / 4];
    classes(0, c) = static_cast<uint8_t>(c % 4);
  }
  for (const UnsignedQuantizer& q : quantizers(scale)) {
    if (q.scale == nullptr)
      for (int64_t c = 0; c < n; ++c) classes(0, c) = c % 2 == 0 ? 0 : 2;
    else
      for (int64_t c = 0; c < n; ++c) classes(0, c) = static_cast<uint8_t>(c % 4);
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<bf16> z(1, n);
      ew.clip_values(classes.view(), 1, n, q, z.out());
      Grid<uint8_t> again(1, n);
      ew.clip_classes(z.view(), 1, n, q, again.out());
      CHECK_MESSAGE(again == classes, level, " top ", q.top);
      for (int64_t c = 0; c < n; ++c) {
        const float v = to_float(z(0, c)), t = v * scale(0, c);
        CHECK_MESSAGE(class_of(v, t, q.scale != nullptr, q.top) == classes(0, c), level, " scale ", scale(0, c));
      }
    });
  }
}

TEST_CASE("packed pairs of bits hold the four quarters of the codes, the first lowest") {
  for (int64_t quarter = 0; quarter < 70; ++quarter) {
    const int64_t n = 4 * quarter;
    Values values(Fill::kTame, static_cast<uint32_t>(quarter));
    Grid<uint8_t> codes(1, n), want(1, quarter);
    for (int64_t i = 0; i < n; ++i) codes(0, i) = static_cast<uint8_t>(values.integer(0, 3));
    for (int64_t i = 0; i < quarter; ++i)
      want(0, i) = static_cast<uint8_t>(codes(0, i) + 4 * codes(0, i + quarter) + 16 * codes(0, i + 2 * quarter) +
                                        64 * codes(0, i + 3 * quarter));
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<uint8_t> packed(1, quarter), unpacked(1, n);
      ew.pack_u2(codes.data(), n, packed.data());
      ew.unpack_u2(want.data(), n, unpacked.data());
      CHECK_MESSAGE(packed == want, level, " n ", n);
      CHECK_MESSAGE(unpacked == codes, level, " n ", n);
    });
  }
}
