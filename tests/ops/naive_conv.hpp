// Convolutions and their gradients as sums in double, one product after another, and a tensor's elements as doubles.
// Compiled separately and optimised: under sanitizers they are most of what the tests of ops do.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/tensor.hpp"
#include "ops/conv_shape.hpp"

namespace nibble::testing {

inline size_t at(int64_t i) {
  return static_cast<size_t>(i);
}

/// Calls body(output element, input element, weight element) for every product of the convolution (dense NHWC, OHWI).
template <typename Body>
void for_each_product(const ConvShape& s, const Body& body) {
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t p = 0; p < s.oh(); ++p)
      for (int64_t q = 0; q < s.ow(); ++q)
        for (int64_t r = 0; r < s.kh; ++r)
          for (int64_t t = 0; t < s.kw; ++t) {
            const int64_t y = p * s.stride + r - s.pad_before, x = q * s.stride + t - s.pad_before;
            if (y < 0 || y >= s.h || x < 0 || x >= s.w) continue;
            const int64_t out = ((i * s.oh() + p) * s.ow() + q) * s.oc, in = ((i * s.h + y) * s.w + x) * s.ic;
            for (int64_t o = 0; o < s.oc; ++o)
              for (int64_t c = 0; c < s.ic; ++c)
                body(at(out + o), at(in + c), at(((o * s.kh + r) * s.kw + t) * s.ic + c));
          }
}

/// A sum of products and the sum of their magnitudes, from which its rounding error is bounded.
struct Sums {
  std::vector<double> value, magnitude;
  explicit Sums(int64_t n) : value(at(n)), magnitude(at(n)) {}
  void add(size_t to, double product) {
    value[to] += product;
    magnitude[to] += std::abs(product);
  }
};

using Doubles = std::vector<double>;

/// Dense NHWC maps and OHWI kernels.
Sums naive_forward(const ConvShape& s, const Doubles& x, const Doubles& w);
Sums naive_input_gradient(const ConvShape& s, const Doubles& d_y, const Doubles& w);
Sums naive_weight_gradient(const ConvShape& s, const Doubles& d_y, const Doubles& x);

/// What stands behind the roundings of the Winograd gradients of a 3x3 convolution of stride 1 (ops/winograd.hpp): the
/// same transforms of magnitudes, by matrices of magnitudes. edge: of the tiles, 2 or 4.
Doubles winograd_input_gradient_magnitude(const ConvShape& s, const Doubles& d_y, const Doubles& w, int64_t edge);
Doubles winograd_weight_gradient_magnitude(const ConvShape& s, const Doubles& d_y, const Doubles& x, int64_t edge);

/// Elements of a tensor in order, without the padding of rows.
Doubles values_of(const Tensor& t);

}  // namespace nibble::testing
