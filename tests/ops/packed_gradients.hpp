// What the tests of the packed convolution's gradients share: a gradient of its output, the bounds of both results, and
// a stage that takes rows.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>

#include "ops/winograd.hpp"
#include "tests/ops/packed_layers.hpp"

namespace nibble::testing {

/// The carried gradient (already divided by the weight scale) and the gradient of y it stands for.
struct OutputGradient {
  Tensor carried;
  Doubles of_y;
};

inline OutputGradient output_gradient(const Operands& op) {
  const ConvShape& s = op.shape;
  OutputGradient g{random_bf16({s.n, s.oh(), s.ow(), s.oc}, 41), {}};
  g.of_y = values_of(g.carried);
  const bool scaled = op.precision.weight_bits < 16 && op.precision.mode != Precision::Mode::kDequantized;
  if (scaled)
    for (size_t i = 0; i < g.of_y.size(); ++i) g.of_y[i] *= static_cast<double>(op.weights.scale[i % at(s.oc)]);
  return g;
}

/// The input gradient of the first, the 32nd and the last image, each made alone, has the bits it has in the batch.
inline void check_images_alone(const LayerWeights& layer, const ConvShape& s, const Tensor& d_y) {
  const Tensor d_x = packed_conv_backward_input(layer, d_y, {s.n, s.h, s.w, s.ic});
  for (const int64_t image : {int64_t{0}, int64_t{31}, s.n - 1}) {
    Tensor alone(DType::bf16, {1, s.oh(), s.ow(), s.oc}, d_y.stride());
    std::memcpy(alone.raw(), d_y.row<bf16>(image * s.oh() * s.ow()), alone.bytes());
    const Tensor one = packed_conv_backward_input(layer, alone, {1, s.h, s.w, s.ic});
    for (int64_t pixel = 0; pixel < s.h * s.w; ++pixel)
      CHECK(std::memcmp(one.row<bf16>(pixel), d_x.row<bf16>(image * s.h * s.w + pixel), 2 * at(s.ic)) == 0);
  }
}

/// What a layer's gradients should be. Their magnitudes bound the rounding errors: those of the products' sum, or, in a
/// Winograd layer, of its fewer products.
inline Sums input_gradient_of(const LayerWeights& layer, const ConvShape& s, const OutputGradient& g,
                              const Doubles& w_hat) {
  Sums expected = naive_input_gradient(s, g.of_y, w_hat);
  if (layer.gradient_gemm != nullptr)
    expected.magnitude = winograd_input_gradient_magnitude(s, g.of_y, w_hat, layer.gradient_edge);
  return expected;
}
inline Sums weight_gradient_of(const LayerWeights& layer, const ConvShape& s, const OutputGradient& g,
                               const Doubles& x_hat) {
  Sums expected = naive_weight_gradient(s, g.of_y, x_hat);
  if (layer.gradient_gemm != nullptr)
    expected.magnitude = winograd_weight_gradient_magnitude(s, g.of_y, x_hat, layer.gradient_edge);
  return expected;
}

/// How far the weight gradients of two levels may be apart, except for their number of terms: for positive products as
/// much as their sums, for Winograd ones the magnitudes behind them. `sums` are a d_weights of d_y as it is.
inline Doubles level_magnitude(const Operands& op, const Tensor& d_y, const Doubles& sums) {
  const ConvShape& s = op.shape;
  Doubles magnitude = sums;
  for (const int kr : {1, 2}) {
    const int64_t edge = winograd::gradient_edge(s, kr);
    if (edge == 0) continue;
    const Doubles fewer = winograd_weight_gradient_magnitude(s, values_of(d_y), op.x_hat, edge);
    for (size_t i = 0; i < magnitude.size(); ++i)
      magnitude[i] = std::max(magnitude[i], fewer[i] * static_cast<double>(op.weights.scale[i / at(s.k())]));
  }
  return magnitude;
}

/// Roundings in addition to those of a sum: of transforms there and back, 2 + 4 + 4 in tiles of 2x2, 8 + 8 + 10 or 8 +
/// 10 + 8 in tiles of 4x4, with those of their constants; of the scale (2).
inline double other_roundings(int64_t edge) {
  return edge == 4 ? 28 : 12;
}

/// d_x against d_y * w_hat: a sum of products in fp32, two fp32 roundings for the scale, one to bf16.
inline void check_input_gradient(const ConvShape& s, const Tensor& d_x, const Sums& expected, int64_t edge = 0) {
  const double terms = static_cast<double>(s.taps() * s.oc) + other_roundings(edge);
  CHECK(d_x.dtype() == DType::bf16);
  CHECK(first_beyond(values_of(d_x), expected.value, [&](size_t i) {
          return kUnitBf16 * std::abs(expected.value[i]) + terms * 2 * kUnitF32 * expected.magnitude[i];
        }) == "");
}

/// d_w against d_y * x_hat: fp32 throughout.
inline void check_weight_gradient(const ConvShape& s, const Tensor& d_w, const Sums& expected, int64_t edge = 0) {
  const double terms = static_cast<double>(s.out_pixels()) + other_roundings(edge);
  CHECK(first_beyond(values_of(d_w), expected.value, [&](size_t i) {
          return kUnitF32 * (1 + std::abs(expected.value[i])) + terms * 2 * kUnitF32 * expected.magnitude[i];
        }) == "");
}

/// Keeps what it is handed.
class Collected final : public GradientStage {
 public:
  explicit Collected(const Shape& shape)
      : rows(DType::bf16, shape, Tensor::round_stride(DType::bf16, shape.back())),
        taken_by(static_cast<size_t>(rows.rows()), -1),
        times_(static_cast<size_t>(rows.rows())) {}
  void begin(int64_t tasks) override { next_.assign(static_cast<size_t>(tasks), 0); }
  void take(int64_t task, kernels::Rows<const bf16> d_x, int64_t first, int64_t count) override {
    int64_t& next = next_.at(static_cast<size_t>(task));
    in_order = in_order && first >= next;
    next = first + count;
    for (int64_t r = 0; r < count; ++r) {
      std::copy_n(d_x.data + r * d_x.stride, rows.shape().back(), rows.row<bf16>(first + r));
      ++times_.at(static_cast<size_t>(first + r));
      taken_by.at(static_cast<size_t>(first + r)) = task;
    }
  }
  bool each_once() const {
    return std::all_of(times_.begin(), times_.end(), [](int times) { return times == 1; });
  }

  Tensor rows;
  std::vector<int64_t> taken_by;  // the task of every row
  std::atomic<bool> in_order{true};

 private:
  std::vector<int> times_;
  std::vector<int64_t> next_;
};

}  // namespace nibble::testing
