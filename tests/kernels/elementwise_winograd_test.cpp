// The transforms of 3x3 convolutions in fewer products, against their matrices.
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

/// A row of a transform in fp32: the terms in this order, from the first one on, then halved or not.
struct FloatRow {
  std::vector<std::pair<int, float>> terms;  // index, sign
  bool halved = false;

  float of(const std::array<float, 4>& v) const {
    float sum = 0;
    bool first = true;
    for (const auto& [i, sign] : terms) {
      const float term = v[static_cast<size_t>(i)];  // a term by itself keeps its bits, those of a denormal number, too
      sum = first ? term : sign < 0 ? sum - term : sum + term;
      first = false;
    }
    return halved ? sum * 0.5f : sum;
  }
};
using Matrix = std::vector<FloatRow>;

const Matrix& s_matrix() {
  static const Matrix m = {{{{0, 1}, {2, -1}}}, {{{1, 1}, {2, 1}}}, {{{2, 1}, {1, -1}}}, {{{1, 1}, {3, -1}}}};
  return m;
}
const Matrix& r_matrix() {
  static const Matrix m = {{{{0, 1}, {1, 1}, {2, 1}}}, {{{1, 1}, {2, -1}, {3, -1}}}};
  return m;
}
const Matrix& g_matrix() {
  static const Matrix m = {{{{0, 1}}}, {{{0, 1}, {2, 1}, {1, 1}}, true}, {{{0, 1}, {2, 1}, {1, -1}}, true}, {{{2, 1}}}};
  return m;
}
const Matrix& h_matrix() {
  static const Matrix m = {{{{0, 1}}}, {{{0, 1}, {1, 1}}, true}, {{{0, 1}, {1, -1}}, true}, {{{1, 1}}}};
  return m;
}
const Matrix& q_matrix() {
  static const Matrix m = {{{{0, 1}, {1, 1}, {2, 1}}}, {{{1, 1}, {2, -1}}}, {{{1, 1}, {2, 1}, {3, -1}}}};
  return m;
}

/// M v M^T of `from` x `from` values, columns first or rows first.
std::vector<float> transformed(const Matrix& m, int from, const std::vector<float>& v, bool rows_first) {
  const auto at = [](int i) { return static_cast<size_t>(i); };
  const int to = static_cast<int>(m.size());
  std::vector<float> out(m.size() * m.size());
  std::vector<std::array<float, 4>> between(rows_first ? at(from) : m.size());
  for (int a = 0; a < from; ++a)
    for (int b = 0; b < to; ++b) {
      std::array<float, 4> line{};
      for (int i = 0; i < from; ++i) line[at(i)] = rows_first ? v[at(a * from + i)] : v[at(i * from + a)];
      (rows_first ? between[at(a)][at(b)] : between[at(b)][at(a)]) = m[at(b)].of(line);
    }
  for (int y = 0; y < to; ++y)
    for (int x = 0; x < to; ++x) {
      std::array<float, 4> line{};
      for (int i = 0; i < from; ++i) line[at(i)] = rows_first ? between[at(i)][at(x)] : between[at(y)][at(i)];
      out[at(y * to + x)] = m[at(rows_first ? y : x)].of(line);
    }
  return out;
}

float as_float(float v) {
  return v;
}
float as_float(uint8_t v) {
  return v;
}
float as_float(nibble::bf16 v) {
  return nibble::to_float(v);
}

/// Compares kernel(ew, rows of `in`, n, grid of results) with the matrix, for every width, fill and level.
template <typename S, typename Kernel>
void check_transform(const Matrix& m, int from, bool rows_first, int64_t offset, const Kernel& kernel) {
  nibble::set_float_mode();
  for (const Fill fill : {Fill::kTame, Fill::kWild})
    for (const int64_t n : kWidths) {
      Values values(fill, static_cast<uint32_t>(n + from));
      const Grid<S> in(int64_t{from} * from, offset + n, values);
      const int64_t outputs = std::ssize(m) * std::ssize(m);
      Grid<float> want(outputs, n);
      for (int64_t c = 0; c < n; ++c) {
        std::vector<float> v;
        for (int64_t p = 0; p < int64_t{from} * from; ++p) v.push_back(as_float(in(p, offset + c)));
        const std::vector<float> t = transformed(m, from, v, rows_first);
        for (int64_t p = 0; p < outputs; ++p) want(p, c) = t[static_cast<size_t>(p)];
      }
      std::vector<const S*> rows;
      for (int64_t p = 0; p < int64_t{from} * from; ++p) rows.push_back(in.row(p));
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<float> got(outputs, n);
        kernel(ew, in, rows.data(), n, got);
        CHECK_MESSAGE(got == want, level, " n ", n, " fill ", static_cast<int>(fill));
      });
    }
}

}  // namespace

TEST_CASE("tiles in fp32 are transformed as their matrices say, bit by bit") {
  check_transform<uint8_t>(s_matrix(), 4, true, kOffset,
                           [](const Elementwise& ew, const auto&, const auto* rows, int64_t n, Grid<float>& got) {
                             ew.winograd_input_u8(rows, kOffset, n, got.data(), got.stride());
                           });
  check_transform<nibble::bf16>(s_matrix(), 4, true, kOffset,
                                [](const Elementwise& ew, const auto&, const auto* rows, int64_t n, Grid<float>& got) {
                                  ew.winograd_input_bf16(rows, kOffset, n, got.data(), got.stride());
                                });
  check_transform<nibble::bf16>(h_matrix(), 2, false, kOffset,
                                [](const Elementwise& ew, const auto&, const auto* rows, int64_t n, Grid<float>& got) {
                                  ew.winograd_d_y_bf16(rows, kOffset, n, got.data(), got.stride());
                                });
  check_transform<nibble::bf16>(g_matrix(), 3, false, 0,
                                [](const Elementwise& ew, const auto&, const auto* rows, int64_t n, Grid<float>& got) {
                                  ew.winograd_weights_bf16(rows, n, got.data(), got.stride());
                                });
}

TEST_CASE("sums in fp32 become outputs and taps as their matrices say, bit by bit") {
  check_transform<float>(r_matrix(), 4, false, 0,
                         [](const Elementwise& ew, const Grid<float>& in, const auto*, int64_t n, Grid<float>& got) {
                           float* out[4];
                           for (int64_t q = 0; q < 4; ++q) out[q] = got.data() + q * got.stride();
                           ew.winograd_output_f32(in.data(), in.stride(), n, out);
                         });
  check_transform<float>(q_matrix(), 4, false, 0,
                         [](const Elementwise& ew, const Grid<float>& in, const auto*, int64_t n, Grid<float>& got) {
                           ew.winograd_d_w_f32(in.data(), in.stride(), n, got.data(), got.stride());
                         });
}
