#include "tests/ops/naive_conv.hpp"

#include "engine/dtype.hpp"

namespace nibble::testing {

Sums naive_forward(const ConvShape& s, const Doubles& x, const Doubles& w) {
  Sums y(s.out_pixels() * s.oc);
  for_each_product(s, [&](size_t o, size_t i, size_t k) { y.add(o, x[i] * w[k]); });
  return y;
}

Sums naive_input_gradient(const ConvShape& s, const Doubles& d_y, const Doubles& w) {
  Sums d_x(s.n * s.h * s.w * s.ic);
  for_each_product(s, [&](size_t o, size_t i, size_t k) { d_x.add(i, d_y[o] * w[k]); });
  return d_x;
}

Sums naive_weight_gradient(const ConvShape& s, const Doubles& d_y, const Doubles& x) {
  Sums d_w(s.oc * s.k());
  for_each_product(s, [&](size_t o, size_t i, size_t k) { d_w.add(k, d_y[o] * x[i]); });
  return d_w;
}

namespace {

using Matrix = std::vector<std::vector<double>>;

/// Magnitudes of S, R, G, H and Q of ops/winograd.hpp.
struct Matrices {
  Matrix s, r, g, h, q;
};

const double kRoot = std::sqrt(2.0);
const Matrices kTilesOf2 = {{{1, 0, 1, 0}, {0, 1, 1, 0}, {0, 1, 1, 0}, {0, 1, 0, 1}},
                            {{1, 1, 1, 0}, {0, 1, 1, 1}},
                            {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}, {0, 0, 1}},
                            {{1, 0}, {0.5, 0.5}, {0.5, 0.5}, {0, 1}},
                            {{1, 1, 1, 0}, {0, 1, 1, 0}, {0, 1, 1, 1}}};
const Matrices kTilesOf4 = {{{1, 0, 2.5, 0, 1, 0},
                             {0, kRoot / 2, 0.5, kRoot, 1, 0},
                             {0, kRoot / 2, 0.5, kRoot, 1, 0},
                             {0, kRoot, 2, kRoot / 2, 1, 0},
                             {0, kRoot, 2, kRoot / 2, 1, 0},
                             {0, 1, 0, 2.5, 0, 1}},
                            {{1, 1, 1, 1, 1, 0},
                             {0, kRoot, kRoot, kRoot / 2, kRoot / 2, 0},
                             {0, 2, 2, 0.5, 0.5, 0},
                             {0, 2 * kRoot, 2 * kRoot, kRoot / 4, kRoot / 4, 1}},
                            {{1, 0, 0},
                             {1. / 6, kRoot / 6, 1. / 3},
                             {1. / 6, kRoot / 6, 1. / 3},
                             {2. / 3, kRoot / 3, 1. / 3},
                             {2. / 3, kRoot / 3, 1. / 3},
                             {0, 0, 1}},
                            {{1, 0, 0, 0},
                             {1. / 6, kRoot / 6, 1. / 3, kRoot / 3},
                             {1. / 6, kRoot / 6, 1. / 3, kRoot / 3},
                             {2. / 3, kRoot / 3, 1. / 3, kRoot / 6},
                             {2. / 3, kRoot / 3, 1. / 3, kRoot / 6},
                             {0, 0, 0, 1}},
                            {{1, 1, 1, 1, 1, 0}, {0, kRoot, kRoot, kRoot / 2, kRoot / 2, 0}, {0, 2, 2, 0.5, 0.5, 1}}};
const Matrices& matrices_of(int64_t edge) {
  return edge == 2 ? kTilesOf2 : kTilesOf4;
}

/// M a M^T of the square a[row][column], whose elements are |value(row, column)|.
template <typename Value>
Doubles transformed(const Matrix& m, const Value& value) {
  const size_t to = m.size(), from = m[0].size();
  Doubles out(to * to);
  for (size_t a = 0; a < from; ++a)
    for (size_t b = 0; b < from; ++b) {
      const double v = std::abs(value(static_cast<int64_t>(a), static_cast<int64_t>(b)));
      for (size_t i = 0; i < to; ++i)
        for (size_t j = 0; j < to; ++j) out[i * to + j] += m[i][a] * m[j][b] * v;
    }
  return out;
}

/// Pixel (y, x) of a map [h, w, channels], zero outside.
double pixel(const Doubles& map, int64_t image, int64_t h, int64_t w, int64_t channels, int64_t y, int64_t x,
             int64_t c) {
  return y < 0 || y >= h || x < 0 || x >= w ? 0.0 : map[at(((image * h + y) * w + x) * channels + c)];
}

}  // namespace

Doubles winograd_input_gradient_magnitude(const ConvShape& s, const Doubles& d_y, const Doubles& w, int64_t edge) {
  const Matrices& m = matrices_of(edge);
  const int64_t side = edge + 2, positions = side * side;
  std::vector<Doubles> weights;  // [output][channel] of positions
  for (int64_t o = 0; o < s.oc; ++o)
    for (int64_t c = 0; c < s.ic; ++c)
      weights.push_back(
          transformed(m.g, [&](int64_t y, int64_t x) { return w[at(((o * 3 + 2 - y) * 3 + 2 - x) * s.ic + c)]; }));
  Doubles magnitude(at(s.n * s.h * s.w * s.ic));
  for (int64_t image = 0; image < s.n; ++image)
    for (int64_t top = 0; top < s.h; top += edge)
      for (int64_t left = 0; left < s.w; left += edge) {
        std::vector<Doubles> sums(at(s.ic), Doubles(at(positions)));
        for (int64_t o = 0; o < s.oc; ++o) {
          const Doubles tile = transformed(m.s, [&](int64_t y, int64_t x) {
            return pixel(d_y, image, s.oh(), s.ow(), s.oc, top + s.pad_before - 2 + y, left + s.pad_before - 2 + x, o);
          });
          for (int64_t c = 0; c < s.ic; ++c)
            for (size_t p = 0; p < at(positions); ++p) sums[at(c)][p] += tile[p] * weights[at(o * s.ic + c)][p];
        }
        for (int64_t c = 0; c < s.ic; ++c) {
          const Doubles out = transformed(m.r, [&](int64_t i, int64_t j) { return sums[at(c)][at(side * i + j)]; });
          for (int64_t q = 0; q < edge * edge; ++q) {
            const int64_t y = top + q / edge, x = left + q % edge;
            if (y < s.h && x < s.w) magnitude[at(((image * s.h + y) * s.w + x) * s.ic + c)] = out[at(q)];
          }
        }
      }
  return magnitude;
}

Doubles winograd_weight_gradient_magnitude(const ConvShape& s, const Doubles& d_y, const Doubles& x, int64_t edge) {
  const Matrices& m = matrices_of(edge);
  const int64_t side = edge + 2, positions = side * side;
  std::vector<Doubles> sums(at(s.oc * s.ic), Doubles(at(positions)));
  for (int64_t image = 0; image < s.n; ++image)
    for (int64_t top = 0; top < s.oh(); top += edge)
      for (int64_t left = 0; left < s.ow(); left += edge) {
        std::vector<Doubles> tiles;
        for (int64_t c = 0; c < s.ic; ++c)
          tiles.push_back(transformed(m.s, [&](int64_t i, int64_t j) {
            return pixel(x, image, s.h, s.w, s.ic, top - s.pad_before + i, left - s.pad_before + j, c);
          }));
        for (int64_t o = 0; o < s.oc; ++o) {
          const Doubles of_y = transformed(
              m.h, [&](int64_t i, int64_t j) { return pixel(d_y, image, s.oh(), s.ow(), s.oc, top + i, left + j, o); });
          for (int64_t c = 0; c < s.ic; ++c)
            for (size_t p = 0; p < at(positions); ++p) sums[at(o * s.ic + c)][p] += of_y[p] * tiles[at(c)][p];
        }
      }
  Doubles magnitude(at(s.oc * s.k()));
  for (int64_t o = 0; o < s.oc; ++o)
    for (int64_t c = 0; c < s.ic; ++c) {
      const Doubles taps =
          transformed(m.q, [&](int64_t i, int64_t j) { return sums[at(o * s.ic + c)][at(side * i + j)]; });
      for (int64_t t = 0; t < 9; ++t) magnitude[at((o * 9 + t) * s.ic + c)] = taps[at(t)];
    }
  return magnitude;
}

Doubles values_of(const Tensor& t) {
  Doubles v;
  std::vector<uint8_t> row(at(t.stride() + 64));
  for (int64_t r = 0; r < t.rows(); ++r) {
    if (bits_of(t.dtype()) == 4)
      for (int64_t c = 0; c < t.shape().back(); ++c)
        row[at(c)] = static_cast<uint8_t>(t.row<uint8_t>(r)[c / 2] >> (c % 2 * 4) & 15);
    for (int64_t c = 0; c < t.shape().back(); ++c) switch (t.dtype()) {
        case DType::f32:
          v.push_back(static_cast<double>(t.row<float>(r)[c]));
          break;
        case DType::bf16:
          v.push_back(static_cast<double>(to_float(t.row<bf16>(r)[c])));
          break;
        case DType::s32:
          v.push_back(t.row<int32_t>(r)[c]);
          break;
        case DType::s8:
          v.push_back(t.row<int8_t>(r)[c]);
          break;
        case DType::u8:
          v.push_back(t.row<uint8_t>(r)[c]);
          break;
        default:
          v.push_back(row[at(c)]);
      }
  }
  return v;
}

}  // namespace nibble::testing
