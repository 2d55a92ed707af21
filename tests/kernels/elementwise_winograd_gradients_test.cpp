// The transforms for Winograd gradients of 3x3 convolutions: bit by bit against plain lines of floats, and
// these lines against the products that they stand for.
#include <cmath>

#include "tests/kernels/elementwise_support.hpp"

namespace {

using nibble::kernels::Elementwise;
using nibble::kernels::GradientTransforms;
using namespace nibble::testing;

using Line = std::vector<float> (*)(const std::vector<float>&);

/// The one-dimensional transforms of ops/winograd.hpp for one size of tiles.
struct Lines {
  size_t edge;
  Line source, outputs, weights, d_y, d_w;
};

constexpr float kRoot = 1.41421356f, kHalfRoot = 0.707106781f;

/// G or H of four points 0, r, -r, 1/r, -1/r: from the sums of even and of odd elements at r and at 1/r.
std::vector<float> at_points(float first, float even_r, float odd_r, float even_s, float odd_s, float last) {
  const float p = even_r * (1.0f / 6), q = odd_r * (kRoot / 6), u = even_s * (-2.0f / 3), v = odd_s * (-kRoot / 3);
  return {first, p + q, p - q, u + v, u - v, last};
}

const Lines kTilesOf2 = {
    2,
    [](const std::vector<float>& d) -> std::vector<float> {
      return {d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]};
    },
    [](const std::vector<float>& s) -> std::vector<float> {
      return {s[0] + s[1] + s[2], s[1] - s[2] - s[3]};
    },
    [](const std::vector<float>& w) -> std::vector<float> {
      return {w[0], (w[0] + w[2] + w[1]) * 0.5f, (w[0] + w[2] - w[1]) * 0.5f, w[2]};
    },
    [](const std::vector<float>& y) -> std::vector<float> {
      return {y[0], (y[0] + y[1]) * 0.5f, (y[0] - y[1]) * 0.5f, y[1]};
    },
    [](const std::vector<float>& s) -> std::vector<float> {
      return {s[0] + s[1] + s[2], s[1] - s[2], s[1] + s[2] - s[3]};
    },
};

const Lines kTilesOf4 = {
    4,
    [](const std::vector<float>& d) -> std::vector<float> {
      const float even_r = d[4] - 0.5f * d[2], odd_r = kRoot * (d[3] - 0.5f * d[1]);
      const float even_s = d[4] - 2.0f * d[2], odd_s = kHalfRoot * (d[3] - 2.0f * d[1]);
      return {d[0] + d[4] - 2.5f * d[2], even_r + odd_r, even_r - odd_r, even_s + odd_s, even_s - odd_s,
              d[1] + d[5] - 2.5f * d[3]};
    },
    [](const std::vector<float>& s) -> std::vector<float> {
      const float p = s[1] + s[2], q = s[1] - s[2], u = s[3] + s[4], v = s[3] - s[4];
      return {s[0] + p + u, kRoot * q + kHalfRoot * v, 2.0f * p + 0.5f * u, 2 * kRoot * q + kHalfRoot / 2 * v + s[5]};
    },
    [](const std::vector<float>& w) -> std::vector<float> {
      return at_points(w[0], w[0] + 2.0f * w[2], w[1], w[0] + 0.5f * w[2], w[1], w[2]);
    },
    [](const std::vector<float>& y) -> std::vector<float> {
      return at_points(y[0], y[0] + 2.0f * y[2], y[1] + 2.0f * y[3], y[0] + 0.5f * y[2], y[1] + 0.5f * y[3], y[3]);
    },
    [](const std::vector<float>& s) -> std::vector<float> {
      const float p = s[1] + s[2], q = s[1] - s[2], u = s[3] + s[4], v = s[3] - s[4];
      return {s[0] + p + u, kRoot * q + kHalfRoot * v, 2.0f * p + 0.5f * u + s[5]};
    },
};

/// M t M^T of a square t of `from` x `from` values: M on its columns, then on the rows of what that gives.
std::vector<float> transformed(Line line, size_t from, const std::vector<float>& t) {
  std::vector<std::vector<float>> columns;
  for (size_t x = 0; x < from; ++x) {
    std::vector<float> in;
    for (size_t y = 0; y < from; ++y) in.push_back(t[y * from + x]);
    columns.push_back(line(in));
  }
  std::vector<float> out;
  for (size_t i = 0; i < columns[0].size(); ++i) {
    std::vector<float> in;
    for (size_t x = 0; x < from; ++x) in.push_back(columns[x][i]);
    for (const float v : line(in)) out.push_back(v);
  }
  return out;
}

constexpr int64_t kFirstChannel = 3;  // of the first channel in its rows

float as_float(float v) {
  return v;
}
float as_float(uint8_t v) {
  return v;
}
float as_float(nibble::bf16 v) {
  return nibble::to_float(v);
}

/// Compares kernel(transforms, `in`, its rows, n, grid of results) with the lines, for every width, fill and level.
template <typename S, typename Kernel>
void check_transform(const Lines& tiles, Line line, size_t from, int64_t offset, const Kernel& kernel) {
  nibble::set_float_mode();
  const int64_t inputs = static_cast<int64_t>(from * from);
  for (const Fill fill : {Fill::kTame, Fill::kWild})
    for (const int64_t n : kWidths) {
      Values values(fill, static_cast<uint32_t>(n + inputs));
      const Grid<S> in(inputs, offset + n, values);
      const int64_t outputs = std::ssize(transformed(line, from, std::vector<float>(from * from)));
      Grid<float> want(outputs, n);
      for (int64_t c = 0; c < n; ++c) {
        std::vector<float> v;
        for (int64_t p = 0; p < inputs; ++p) v.push_back(as_float(in(p, offset + c)));
        const std::vector<float> t = transformed(line, from, v);
        for (int64_t p = 0; p < outputs; ++p) want(p, c) = t[static_cast<size_t>(p)];
      }
      std::vector<const S*> rows;
      for (int64_t p = 0; p < inputs; ++p) rows.push_back(in.row(p));
      for_each_level([&](const Elementwise& ew, const std::string& level) {
        Grid<float> got(outputs, n);
        kernel(tiles.edge == 2 ? ew.f2x2 : ew.f4x4, in, rows.data(), n, got);
        CHECK_MESSAGE(got == want, level, " tiles of ", tiles.edge, " n ", n, " fill ", static_cast<int>(fill));
      });
    }
}

/// A correlation of a square of values with a smaller one, in double.
std::vector<double> correlation(const std::vector<float>& values, size_t side, const std::vector<float>& kernel,
                                size_t kernel_side) {
  std::vector<double> out;
  const size_t outputs = side - kernel_side + 1;
  for (size_t y = 0; y < outputs; ++y)
    for (size_t x = 0; x < outputs; ++x) {
      double sum = 0;
      for (size_t i = 0; i < kernel_side; ++i)
        for (size_t j = 0; j < kernel_side; ++j)
          sum += double{values[(y + i) * side + x + j]} * double{kernel[i * kernel_side + j]};
      out.push_back(sum);
    }
  return out;
}

/// outputs(transform of the values . transform of the kernel) is their correlation.
void check_filtering(Line source, size_t side, Line kernel_line, size_t kernel_side, Line outputs) {
  Values random(Fill::kTame, 7);
  std::vector<float> values, kernel;
  for (size_t i = 0; i < side * side; ++i) values.push_back(static_cast<float>(random.integer(-15, 15)));
  for (size_t i = 0; i < kernel_side * kernel_side; ++i) kernel.push_back(static_cast<float>(random.integer(-15, 15)));
  std::vector<float> products = transformed(source, side, values);
  const std::vector<float> of_kernel = transformed(kernel_line, kernel_side, kernel);
  REQUIRE(products.size() == of_kernel.size());
  for (size_t p = 0; p < products.size(); ++p) products[p] *= of_kernel[p];
  const std::vector<float> got = transformed(outputs, side, products);
  const std::vector<double> want = correlation(values, side, kernel, kernel_side);
  REQUIRE(got.size() == want.size());
  // Sums of at most 16 products of 225, after roundings of terms that are up to 600 times as large.
  for (size_t q = 0; q < got.size(); ++q) CHECK(std::abs(double{got[q]} - want[q]) < 0.05);
}

}  // namespace

TEST_CASE("lines of a transform, of the other operand and back are a correlation") {
  for (const Lines& tiles : {kTilesOf2, kTilesOf4}) {
    check_filtering(tiles.source, tiles.edge + 2, tiles.weights, 3, tiles.outputs);
    check_filtering(tiles.source, tiles.edge + 2, tiles.d_y, tiles.edge, tiles.d_w);
  }
}

TEST_CASE("tiles in fp32 are transformed as their lines say, bit by bit") {
  for (const Lines& tiles : {kTilesOf2, kTilesOf4}) {
    const size_t side = tiles.edge + 2;
    check_transform<uint8_t>(tiles, tiles.source, side, kFirstChannel,
                             [](const GradientTransforms& f, const auto&, const auto* rows, int64_t n,
                                Grid<float>& got) { f.input_u8(rows, kFirstChannel, n, got.data(), got.stride()); });
    check_transform<nibble::bf16>(
        tiles, tiles.source, side, kFirstChannel,
        [](const GradientTransforms& f, const auto&, const auto* rows, int64_t n, Grid<float>& got) {
          f.input_bf16(rows, kFirstChannel, n, got.data(), got.stride());
        });
    check_transform<nibble::bf16>(tiles, tiles.d_y, tiles.edge, kFirstChannel,
                                  [](const GradientTransforms& f, const auto&, const auto* rows, int64_t n,
                                     Grid<float>& got) { f.d_y(rows, kFirstChannel, n, got.data(), got.stride()); });
    check_transform<nibble::bf16>(tiles, tiles.weights, 3, 0,
                                  [](const GradientTransforms& f, const auto&, const auto* rows, int64_t n,
                                     Grid<float>& got) { f.weights(rows, n, got.data(), got.stride()); });
  }
}

TEST_CASE("sums in fp32 become outputs and taps as their lines say, bit by bit") {
  for (const Lines& tiles : {kTilesOf2, kTilesOf4}) {
    const size_t side = tiles.edge + 2;
    const int64_t outputs = static_cast<int64_t>(tiles.edge * tiles.edge);
    check_transform<float>(
        tiles, tiles.outputs, side, 0,
        [=](const GradientTransforms& f, const Grid<float>& in, const auto*, int64_t n, Grid<float>& got) {
          std::vector<float*> out;
          for (int64_t q = 0; q < outputs; ++q) out.push_back(got.data() + q * got.stride());
          f.output(in.data(), in.stride(), n, out.data());
        });
    check_transform<float>(tiles, tiles.d_w, side, 0,
                           [](const GradientTransforms& f, const Grid<float>& in, const auto*, int64_t n,
                              Grid<float>& got) { f.d_w(in.data(), in.stride(), n, got.data(), got.stride()); });
  }
}
