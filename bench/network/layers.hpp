// The distinct convolutions of a network, from build_resnet, and operands of the right types for each.
#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/rng.hpp"
#include "engine/tape.hpp"
#include "nn/unit.hpp"
#include "ops/packed_conv.hpp"

namespace nibble::bench {

/// Convolutions that are equal except for their place in the network.
struct LayerRow {
  UnitSpec unit;      // the first of them
  int64_t count = 0;  // how many there are
  bool first_layer = false;
  int input_bits = 16;  // 16: bf16
  bool signed_input = false;

  /// Operand types of the forward product, as the kernel families are called: "u4s4", "u8s8", "s8s8", "bf16". The
  /// image is signed; it is multiplied as u8.
  std::string family() const {
    if (input_bits == 16) return "bf16";
    const int bits = signed_input ? 8 : input_bits;
    return "u" + std::to_string(bits) + "s" + std::to_string(unit.precision.weight_bits);
  }
};

/// Rows in the order of their first layer. fc is not among them: it is not a convolution (0.05 % of ResNet-50's
/// products).
inline std::vector<LayerRow> layer_rows(const NetworkOptions& options) {
  const Network network = build_resnet(options);
  std::vector<LayerRow> rows;
  for (size_t u = 0; u < network.units.size(); ++u) {
    const UnitSpec& unit = network.units[u];
    if (unit.kind != UnitKind::kConv) continue;
    LayerRow row{.unit = unit, .count = 1, .first_layer = u == 0};
    if (unit.quantizer >= 0) {
      const QuantizerSpec& q = network.quantizers[static_cast<size_t>(unit.quantizer)];
      row.input_bits = q.bits;
      row.signed_input = q.is_signed;
    }
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const LayerRow& r) {
      return r.unit.shape == unit.shape && r.family() == row.family() && r.first_layer == row.first_layer;
    });
    if (same != rows.end())
      ++same->count;
    else
      rows.push_back(row);
  }
  return rows;
}

/// Hands over the rows of a gradient that lies in memory: the work that a step's batch norm does here is left out.
class RowsInMemory final : public GradientRows {
 public:
  explicit RowsInMemory(Tensor rows) : rows_(std::move(rows)) {}
  void make(int64_t first, int64_t count, bf16* to, int64_t stride) const override {
    for (int64_t r = 0; r < count; ++r) std::copy_n(rows_.row<bf16>(first + r), rows_.shape().back(), to + r * stride);
  }

 private:
  Tensor rows_;
};

/// One row's layer with its panels, an input and a gradient: random codes, bf16 values in [-0.5, 0.5).
class Operands {
 public:
  Operands(const LayerRow& row, int64_t batch)
      : shape_(row.unit.shape), first_layer_(row.first_layer), rng_(1, rng_purpose::kTest) {
    shape_.n = batch;
    if (row.input_bits < 16)
      quantizer_ = make_activation_quantizer(std::vector<float>(static_cast<size_t>(shape_.ic), 2.0f), row.input_bits,
                                             row.signed_input, FactorForm::kFold);
    const Tensor masters(DType::f32, {shape_.oc, shape_.kh, shape_.kw, shape_.ic});
    for (int64_t i = 0; i < masters.size(); ++i) masters.data<float>()[i] = rng_.uniform() - 0.5f;
    layer_ = prepare_layer({.name = row.unit.name,
                            .shape = row.unit.shape,
                            .weights = masters,
                            .weight_bits = row.unit.precision.weight_bits,
                            .quantizer = row.input_bits < 16 ? &quantizer_ : nullptr,
                            .passes = Passes::kForwardAndBackward,
                            .first_layer = row.first_layer});
    const Shape input = layer_.input_shape(batch);
    x_ = row.input_bits < 16 ? codes(input) : values(input, layer_.row_folded);
    d_y_ = values({batch, shape_.oh(), shape_.ow(), shape_.oc}, false);
    d_weights_ = Tensor::zeros(DType::f32, masters.shape());
  }
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;

  const ConvShape& shape() const { return shape_; }
  const LayerWeights& layer() const { return layer_; }
  void forward() {
    ChannelSums sums;
    packed_conv_forward(layer_, x_, sums);
  }
  void backward_data() { packed_conv_backward_input(layer_, d_y_, {shape_.n, shape_.h, shape_.w, shape_.ic}); }
  /// Both gradients: at once where the layer takes rows, elsewhere one after the other, where a step makes them in
  /// parallel. The first layer needs no input gradient.
  void backward() {
    if (takes_gradient_rows(layer_)) {
      packed_conv_backward(layer_, x_, RowsInMemory(d_y_), d_weights_);
      return;
    }
    backward_weights();
    if (!first_layer_) backward_data();
  }
  void backward_weights() { packed_conv_backward_weights(layer_, x_, d_y_, d_weights_); }

 private:
  /// Channels of ResNet at width 1 fill their rows, so every byte is a code.
  Tensor codes(const Shape& shape) {
    const Tensor t(code_dtype(), shape, layer_.row_folded ? shape.back() : code_stride(shape.back()));
    for (size_t i = 0; i < t.bytes(); ++i)
      reinterpret_cast<uint8_t*>(t.raw())[i] = static_cast<uint8_t>(rng_.next_u32());
    return t;
  }
  DType code_dtype() const { return quantizer_.bits == 4 && !quantizer_.is_signed ? DType::u4 : DType::u8; }
  Tensor values(const Shape& shape, bool dense) {
    const Tensor t(DType::bf16, shape, dense ? shape.back() : Tensor::round_stride(DType::bf16, shape.back()));
    bf16* to = t.data<bf16>();
    for (int64_t i = 0; i < t.rows() * t.stride(); ++i) to[i] = to_bf16(rng_.uniform() - 0.5f);
    return t;
  }

  ConvShape shape_;
  bool first_layer_;
  Rng rng_;
  ActivationQuantizer quantizer_;
  LayerWeights layer_;  // points to quantizer_
  Tensor x_, d_y_, d_weights_;
};

}  // namespace nibble::bench
