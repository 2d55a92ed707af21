// The integer transforms of 3x3 convolutions in fewer products, against their matrices.
#include "tests/kernels/elementwise_support.hpp"

namespace {

using nibble::kernels::Elementwise;
using namespace nibble::testing;

constexpr int64_t kOffset = 3;  // of the first channel in its rows

constexpr int kS[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
constexpr int kR[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};

}  // namespace

TEST_CASE("tiles of 4x4 codes are transformed as their matrix says") {
  for (const int64_t n : kWidths) {
    for (const int fill : {0, 1, 2}) {  // random, all 15, 15 where a difference adds it
      Values values(Fill::kTame, static_cast<uint32_t>(n + fill));
      Grid<uint8_t> pixels(16, kOffset + n), want(16, n);
      for (int64_t p = 0; p < 16; ++p)
        for (int64_t c = 0; c < kOffset + n; ++c)
          pixels(p, c) = static_cast<uint8_t>(fill == 0   ? values.integer(0, 15)
                                              : fill == 1 ? 15
                                                          : (p + p / 4 + c) % 2 * 15);
      for (int64_t p = 0; p < 16; ++p)
        for (int64_t c = 0; c < n; ++c) {
          int sum = p == 5 ? 0 : 30;
          for (int64_t q = 0; q < 16; ++q) sum += kS[p / 4][q / 4] * kS[p % 4][q % 4] * pixels(q, kOffset + c);
          REQUIRE((sum >= 0 && sum <= 60));
          want(p, c) = static_cast<uint8_t>(sum);
        }
      const uint8_t* rows[16];
      for (int64_t p = 0; p < 16; ++p) rows[p] = pixels.row(p);
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<uint8_t> got(16, n);
        ew.winograd_input(rows, kOffset, n, got.data(), got.stride());
        CHECK_MESSAGE(got == want, level, " n ", n, " fill ", fill);
      });
    }
  }
}

TEST_CASE("tiles of 4x4 bytes are transformed to 16 bits as their matrix says") {
  for (const int64_t n : kWidths) {
    for (const bool extreme : {false, true}) {
      Values values(Fill::kTame, static_cast<uint32_t>(n));
      Grid<uint8_t> pixels(16, kOffset + n);
      Grid<int16_t> want(16, n);
      for (int64_t p = 0; p < 16; ++p)
        for (int64_t c = 0; c < kOffset + n; ++c)
          pixels(p, c) = static_cast<uint8_t>(extreme ? (p + p / 4 + c) % 2 * 255 : values.integer(0, 255));
      for (int64_t p = 0; p < 16; ++p)
        for (int64_t c = 0; c < n; ++c) {
          int sum = 0;
          for (int64_t q = 0; q < 16; ++q) sum += kS[p / 4][q / 4] * kS[p % 4][q % 4] * pixels(q, kOffset + c);
          REQUIRE((sum >= -510 && sum <= 1020));
          want(p, c) = static_cast<int16_t>(sum);
        }
      const uint8_t* rows[16];
      for (int64_t p = 0; p < 16; ++p) rows[p] = pixels.row(p);
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<int16_t> got(16, n);
        ew.winograd_input_wide(rows, kOffset, n, got.data(), got.stride());
        CHECK_MESSAGE(got == want, level, " n ", n, " extreme ", extreme);
      });
    }
  }
}

TEST_CASE("sums of 4x4 positions become the four outputs as their matrix says") {
  for (const int64_t n : kWidths) {
    Values values(Fill::kTame, static_cast<uint32_t>(n));
    Grid<int32_t> sums(16, n), start(4, n), want(4, n);
    for (int64_t c = 0; c < n; ++c) {
      for (int64_t p = 0; p < 16; ++p) sums(p, c) = static_cast<int32_t>(values.integer(-100000000, 100000000));
      for (int64_t q = 0; q < 4; ++q) {
        int64_t sum = 0;
        for (int64_t p = 0; p < 16; ++p) sum += int64_t{kR[q / 2][p / 4]} * kR[q % 2][p % 4] * sums(p, c);
        const int64_t output = values.integer(-1000, 1000);  // a start that leaves no remainder
        start(q, c) = static_cast<int32_t>(sum - 4 * output);
        want(q, c) = static_cast<int32_t>(output);
      }
    }
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<int32_t> got(4, n);
      int32_t* out[4];
      for (int64_t q = 0; q < 4; ++q) out[q] = got.data() + q * got.stride();
      ew.winograd_output(sums.data(), sums.stride(), n, start.data(), start.stride(), out);
      CHECK_MESSAGE(got == want, level, " n ", n);
    });
  }
}
