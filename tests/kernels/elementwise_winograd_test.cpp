// The integer transforms of 3x3 Winograd convolutions, against their matrices.
#include <algorithm>
#include <cmath>

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

namespace {

constexpr int kLargeS[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                               {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
constexpr int kLargeR[4][6] = {{6, -4, -4, 1, 1, 0}, {0, -4, 4, 2, -2, 0}, {0, -4, -4, 4, 4, 0}, {0, -4, 4, 8, -8, 24}};

}  // namespace

TEST_CASE("tiles of 6x6 bytes are transformed as their matrix says, and reach the ends of what it gives") {
  int lowest = 0, highest = 0;
  for (const int64_t n : kWidths) {
    // Random, or 255 where the row and column of one position add it, or where they subtract it.
    for (int64_t fill = -1; fill < 72; ++fill) {
      Values values(Fill::kTame, static_cast<uint32_t>(n));
      Grid<uint8_t> pixels(36, kOffset + n);
      Grid<int16_t> want(36, n);
      const int64_t position = fill / 2;
      for (int64_t p = 0; p < 36; ++p) {
        const int factor = fill < 0 ? 0 : kLargeS[position / 6][p / 6] * kLargeS[position % 6][p % 6];
        const int chosen = (fill % 2 == 0 ? factor : -factor) > 0 ? 255 : 0;
        for (int64_t c = 0; c < kOffset + n; ++c)
          pixels(p, c) = static_cast<uint8_t>(fill < 0 ? values.integer(0, 255) : chosen);
      }
      for (int64_t p = 0; p < 36; ++p)
        for (int64_t c = 0; c < n; ++c) {
          int sum = 0;
          for (int64_t q = 0; q < 36; ++q)
            sum += kLargeS[p / 6][q / 6] * kLargeS[p % 6][q % 6] * pixels(q, kOffset + c);
          lowest = std::min(lowest, sum);
          highest = std::max(highest, sum);
          want(p, c) = static_cast<int16_t>(sum);
        }
      const uint8_t* rows[36];
      for (int64_t p = 0; p < 36; ++p) rows[p] = pixels.row(p);
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<int16_t> got(36, n);
        ew.winograd_input_4x4(rows, kOffset, n, got.data(), got.stride());
        CHECK_MESSAGE(got == want, level, " n ", n, " fill ", fill);
      });
    }
  }
  CHECK(lowest == -12750);
  CHECK(highest == 17340);
}

TEST_CASE("sums of 6x6 positions modulo 2^32 become the sixteen outputs as their matrix says") {
  // Sums of transformed products, as they come: of random kernels and pixels, of the largest outputs, wrapped.
  constexpr int kLargeG[6][3] = {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 1}};
  for (const int64_t n : kWidths) {
    Values values(Fill::kTame, static_cast<uint32_t>(n));
    Grid<int32_t> sums(36, n), want(16, n);
    for (int64_t c = 0; c < n; ++c) {
      int64_t pixels[36], kernel[9];
      // A pixel of a sum over channels of either sign; the first channels make the largest outputs there may be.
      const int64_t most = c < 2 ? (int64_t{1} << 25) - 1 : values.integer(0, 300000);
      for (auto& v : pixels) v = c == 0 ? most : c == 1 ? -most : values.integer(-most, most);
      for (auto& v : kernel) v = c < 2 ? 0 : values.integer(-12, 12);
      if (c < 2) kernel[4] = 1;
      for (int64_t p = 0; p < 36; ++p) {
        int64_t of_pixels = 0, of_kernel = 0;
        for (int64_t q = 0; q < 36; ++q) of_pixels += kLargeS[p / 6][q / 6] * kLargeS[p % 6][q % 6] * pixels[q];
        for (int64_t q = 0; q < 9; ++q) of_kernel += kLargeG[p / 6][q / 3] * kLargeG[p % 6][q % 3] * kernel[q];
        sums(p, c) = static_cast<int32_t>(static_cast<uint32_t>(of_pixels * of_kernel));
      }
      for (int64_t u = 0; u < 4; ++u)
        for (int64_t v = 0; v < 4; ++v) {
          int64_t output = 0;
          for (int64_t q = 0; q < 9; ++q) output += kernel[q] * pixels[(u + q / 3) * 6 + v + q % 3];
          REQUIRE(std::abs(output) < int64_t{1} << 25);
          want(4 * u + v, c) = static_cast<int32_t>(output);
        }
    }
    for_each_level([&](const Elementwise& ew, const std::string& level) {
      Grid<int32_t> got(16, n);
      int32_t* out[16];
      for (int64_t q = 0; q < 16; ++q) out[q] = got.data() + q * got.stride();
      ew.winograd_output_4x4(sums.data(), sums.stride(), n, out);
      CHECK_MESSAGE(got == want, level, " n ", n);
    });
  }
}

TEST_CASE("the matrices of larger tiles make 576 times a convolution") {
  // kLargeR is what winograd_output_4x4 promises to apply: R [(G g G^T) . (S d S^T)] R^T of single pixels and taps.
  constexpr int kLargeG[6][3] = {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 1}};
  for (int y = 0; y < 6; ++y)
    for (int tap = 0; tap < 3; ++tap)
      for (int u = 0; u < 4; ++u) {
        int sum = 0;
        for (int i = 0; i < 6; ++i) sum += kLargeR[u][i] * kLargeG[i][tap] * kLargeS[i][y];
        CHECK(sum == (y == u + tap ? 24 : 0));
      }
}
