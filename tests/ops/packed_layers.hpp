// Layers for the tests of the packed convolution: awkward shapes times every precision, with their exact operands.
#pragma once
#include "tests/ops/packed_support.hpp"

namespace nibble::testing {

struct NamedShape {
  std::string name;
  ConvShape shape;
  bool first_layer = false;
};

/// A 3x3 convolution with `before` pads above and to the left, one below and to the right.
inline ConvShape three(int64_t n, int64_t h, int64_t w, int64_t ic, int64_t oc, int64_t stride, int64_t before) {
  return {.n = n,
          .h = h,
          .w = w,
          .ic = ic,
          .oc = oc,
          .kh = 3,
          .kw = 3,
          .stride = stride,
          .pad_before = before,
          .pad_after = 1};
}

/// Channel counts around every tile size, each geometry of the network, sizes that need several tasks or chunks of K.
inline std::vector<NamedShape> conv_shapes() {
  const auto one = [](int64_t n, int64_t h, int64_t w, int64_t ic, int64_t oc, int64_t stride) {
    return ConvShape{.n = n, .h = h, .w = w, .ic = ic, .oc = oc, .stride = stride};
  };
  return {
      {"1x1, one channel", one(1, 1, 1, 1, 1, 1)},
      {"1x1, 39 to 64", one(2, 3, 5, 39, 64, 1)},
      {"1x1, 130 to 79", one(1, 3, 3, 130, 79, 1)},
      {"1x1, 445 to 111, of multiplier 0.87", one(1, 3, 2, 445, 111, 1)},
      {"1x1, several tasks", one(3, 17, 19, 3, 17, 1)},
      {"1x1, rows wider than a task", one(1, 2, 600, 3, 3, 1)},
      {"1x1, K of two chunks", one(1, 2, 3, 600, 15, 1)},
      {"1x1, K of three chunks", one(1, 5, 10, 1030, 3, 1)},
      {"1x1, K of exactly one chunk", one(1, 1, 3, 512, 16, 1)},
      {"1x1, codes in rows that 2 KiB would be", one(1, 2, 3, 2048, 3, 1)},
      {"1x1, inputs in rows that 2 KiB would be", one(1, 1, 3, 1024, 5, 1)},
      {"1x1, outputs in rows that 2 KiB would be", one(1, 1, 3, 5, 1024, 1)},
      {"1x1, linear layer", one(5, 1, 1, 64, 130, 1)},
      {"1x1, several blocks of channels and outputs", one(1, 2, 3, 130, 300, 1)},
      {"1x1 stride 2, odd sides", one(2, 5, 7, 15, 16, 2)},
      {"1x1 stride 2, even sides", one(3, 4, 6, 64, 39, 2)},
      {"3x3", three(2, 5, 4, 17, 15, 1, 1)},
      {"3x3, 64 to 64", three(1, 3, 3, 64, 64, 1, 1)},
      {"3x3, 55 to 55, of multiplier 0.87", three(1, 4, 3, 55, 55, 1, 1)},
      {"3x3 stride 2, 111 to 317", three(1, 3, 4, 111, 317, 2, 1)},
      {"3x3, segments that share chunks", three(1, 4, 5, 130, 17, 1, 1)},
      {"3x3, segments longer than a chunk", three(1, 3, 4, 600, 3, 1, 1)},
      {"3x3, inputs in rows that 2 KiB would be", three(1, 2, 2, 1024, 3, 1, 1)},
      {"3x3, several tasks", three(2, 20, 21, 16, 3, 1, 1)},
      {"3x3, tasks that would part rows of tiles", three(2, 10, 100, 3, 5, 1, 1)},
      {"3x3, image of one pixel", three(3, 1, 1, 3, 16, 1, 1)},
      {"3x3, rows wider than a task", three(1, 3, 530, 1, 2, 1, 1)},
      {"3x3 stride 2, odd sides", three(1, 7, 5, 39, 17, 2, 1)},
      {"3x3 stride 2, even sides", three(2, 6, 8, 16, 79, 2, 1)},
      {"3x3 stride 2, SAME", three(1, 6, 6, 15, 39, 2, 0)},
      {"3x3 stride 2, SAME, odd sides", three(2, 7, 5, 79, 1, 2, 0)},
      {"3x3 stride 2, several tasks", three(3, 31, 33, 3, 3, 2, 1)},
      {"3x3, 32 images of one pixel", three(32, 1, 1, 39, 17, 1, 1)},
      {"3x3, 32 images", three(32, 2, 3, 65, 79, 1, 1)},
      {"3x3, 64 images, several tasks", three(64, 7, 7, 3, 5, 1, 1)},
      {"3x3, 64 images, whole tasks", three(64, 8, 4, 5, 3, 1, 1)},
      {"3x3 stride 2, 32 images, odd sides", three(32, 5, 3, 17, 39, 2, 1)},
      {"3x3 stride 2, 32 images, SAME", three(32, 4, 4, 3, 64, 2, 0)},
      {"3x3, 32 images, one pixel too many", three(32, 5, 13, 1, 2, 1, 1)},
      {"3x3, 33 images", three(33, 2, 2, 3, 3, 1, 1)},
      {"2x2 stride 3: classes no one reads", {.n = 1, .h = 7, .w = 8, .ic = 5, .oc = 4, .kh = 2, .kw = 2, .stride = 3}},
      {"1x1 stride 2, the only pixel between the windows",
       {.n = 2, .h = 1, .w = 1, .ic = 5, .oc = 3, .kh = 1, .kw = 1, .stride = 2, .pad_before = 1, .pad_after = 1}},
      {"1x3", {.n = 1, .h = 4, .w = 6, .ic = 15, .oc = 3, .kh = 1, .kw = 3, .pad_before = 1, .pad_after = 0}},
  };
}

inline std::vector<NamedShape> first_layer_shapes() {
  const auto stem = [](int64_t n, int64_t h, int64_t w, int64_t ic, int64_t oc, int64_t before) {
    return ConvShape{.n = n,
                     .h = h,
                     .w = w,
                     .ic = ic,
                     .oc = oc,
                     .kh = 7,
                     .kw = 7,
                     .stride = 2,
                     .pad_before = before,
                     .pad_after = 3};
  };
  return {
      {"stem, odd sides", stem(1, 11, 13, 3, 17, 3), true},
      {"stem, SAME", stem(2, 8, 10, 3, 64, 2), true},
      {"stem, several tasks", stem(3, 37, 61, 3, 3, 3), true},
      {"stem, one channel", stem(1, 9, 8, 1, 16, 3), true},
      {"stem, the longest folded row", stem(1, 7, 9, 9, 15, 3), true},
      {"stem, too many channels to fold", stem(1, 9, 7, 10, 5, 3), true},
      {"3x3 first layer",
       {.n = 2, .h = 5, .w = 6, .ic = 3, .oc = 39, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1},
       true},
  };
}

struct Precision {
  std::string name;
  int bits = 8;
  bool is_signed = false;
  FactorForm form = FactorForm::kFold;
  int weight_bits = 8;
  enum class Mode { kCodes, kBf16, kDequantized } mode = Mode::kCodes;
};

inline const std::vector<Precision>& code_precisions() {
  static const std::vector<Precision> all = {
      {"u8 fold, s8", 8, false, FactorForm::kFold, 8},
      {"u8 none, s4", 8, false, FactorForm::kNone, 4},
      {"u4 none, s4", 4, false, FactorForm::kNone, 4},
      {"u4 fold, s8", 4, false, FactorForm::kFold, 8},
      {"u4 fold, s4", 4, false, FactorForm::kFold, 4},
      {"u4 shift, s4", 4, false, FactorForm::kShift, 4},
      {"u4 shift+fold, s4", 4, false, FactorForm::kShiftFold, 4},
      {"u4 shift+fold, s8", 4, false, FactorForm::kShiftFold, 8},
      {"s8 fold, s8", 8, true, FactorForm::kFold, 8},
      {"s4 none, s4", 4, true, FactorForm::kNone, 4},
  };
  return all;
}
inline const std::vector<Precision>& signed_precisions() {
  static const std::vector<Precision> all = {
      {"s8 fold, s8", 8, true, FactorForm::kFold, 8},
      {"s8 none, s4", 8, true, FactorForm::kNone, 4},
      {"s4 fold, s8", 4, true, FactorForm::kFold, 8},
  };
  return all;
}
inline const std::vector<Precision>& float_precisions() {
  using Mode = Precision::Mode;
  static const std::vector<Precision> all = {
      {"bf16, bf16", 16, false, FactorForm::kNone, 16, Mode::kBf16},
      {"bf16, s8", 16, false, FactorForm::kNone, 8, Mode::kBf16},
      {"bf16, s4", 16, false, FactorForm::kNone, 4, Mode::kBf16},
      {"bf16, s4 dequantized", 16, false, FactorForm::kNone, 4, Mode::kDequantized},
  };
  return all;
}

/// One layer with its input. All vectors are dense, NHWC and OHWI; the layer itself is prepared per level.
struct Operands {
  ConvShape shape;
  Precision precision;
  bool row_folded = false, first_layer = false;
  ActivationQuantizer quantizer;
  WeightCodes weights;  // empty for 16 bits
  Tensor masters, x;
  Doubles multiplied_x, multiplied_w;  // what the product sees: code * factor (or x), code (or w)
  Doubles x_hat, w_hat;                // the values they stand for
  bool codes() const { return precision.mode == Precision::Mode::kCodes; }

  /// `products`: as in LayerWeightsArgs.
  LayerWeights layer(Passes passes, const kernels::Table* products = nullptr) const {
    const LayerWeightsArgs args{.name = "layer",
                                .shape = shape,
                                .weights = masters,
                                .weight_bits = precision.weight_bits,
                                .quantizer = codes() ? &quantizer : nullptr,
                                .dequantize = precision.mode == Precision::Mode::kDequantized,
                                .passes = passes,
                                .first_layer = first_layer,
                                .products = products};
    return precision.weight_bits == 16 ? prepare_layer(args) : prepare_layer(args, weights);
  }
};

inline void set_weights(Operands& op) {
  const ConvShape& s = op.shape;
  op.masters = random_f32({s.oc, s.kh, s.kw, s.ic}, 21);
  for (int64_t i = 0; i < s.oc * s.k(); ++i) {
    const float master = op.masters.data<float>()[i];
    if (op.precision.weight_bits == 16) op.multiplied_w.push_back(static_cast<double>(to_float(to_bf16(master))));
  }
  op.w_hat = op.multiplied_w;
  if (op.precision.weight_bits == 16) return;
  const int top = (1 << (op.precision.weight_bits - 1)) - 1;
  const std::vector<int> codes = random_codes(s.oc * s.k(), -top, top, 22);
  op.weights = {.bits = op.precision.weight_bits, .codes = Tensor(DType::s8, op.masters.shape()), .scale = {}};
  for (int64_t o = 0; o < s.oc; ++o) op.weights.scale.push_back(3.0f + static_cast<float>(o % 7) * 1.3f);
  for (int64_t i = 0; i < s.oc * s.k(); ++i) {
    const int code = codes[at(i)];
    op.weights.codes.data<int8_t>()[i] = static_cast<int8_t>(code);
    const float scale = op.weights.scale[at(i / s.k())];
    const float fold = op.quantizer.fold.empty() ? 1.0f : op.quantizer.fold[at(i % s.ic)];
    op.w_hat.push_back(code / (static_cast<double>(scale) * static_cast<double>(fold)));
    const bool dequantized = op.precision.mode == Precision::Mode::kDequantized;
    op.multiplied_w.push_back(dequantized ? static_cast<double>(to_float(to_bf16(static_cast<float>(code) / scale)))
                                          : code);
    if (dequantized) op.w_hat.back() = op.multiplied_w.back();
  }
}

inline void set_codes(Operands& op) {
  const ConvShape& s = op.shape;
  const Precision& p = op.precision;
  op.quantizer = make_activation_quantizer(random_bounds(s.ic, 23), p.bits, p.is_signed, p.form);
  const ActivationQuantizer& q = op.quantizer;
  const int top = static_cast<int>(q.top());
  const std::vector<int> codes = random_codes(s.n * s.h * s.w * s.ic, p.is_signed ? -top : 0, top, 24);
  std::vector<uint8_t> image;
  for (size_t i = 0; i < codes.size(); ++i) {
    const size_t c = i % at(s.ic);
    op.multiplied_x.push_back(codes[i] * (q.factor.empty() ? 1 : q.factor[c]));
    op.x_hat.push_back(codes[i] / static_cast<double>(q.scale[c]));
    image.push_back(static_cast<uint8_t>(codes[i] + kSignedOffset));
  }
  op.x = op.row_folded ? store_image<uint8_t>(image, s, kSignedOffset) : store_codes(codes, {s.n, s.h, s.w, s.ic}, q);
}

inline Operands make_operands(const NamedShape& named, const Precision& precision) {
  const ConvShape& s = named.shape;
  Operands op{.shape = s,
              .precision = precision,
              .quantizer = {},
              .weights = {},
              .masters = {},
              .x = {},
              .multiplied_x = {},
              .multiplied_w = {},
              .x_hat = {},
              .w_hat = {}};
  op.first_layer = named.first_layer;
  op.row_folded = named.first_layer && s.kw * s.ic <= 64;
  if (op.codes()) {
    set_codes(op);
  } else {
    op.x = random_bf16({s.n, s.h, s.w, s.ic}, 25);
    op.x_hat = op.multiplied_x = values_of(op.x);
    if (op.row_folded) {
      std::vector<bf16> image;
      for (const double v : op.x_hat) image.push_back(to_bf16(static_cast<float>(v)));
      op.x = store_image<bf16>(image, s, bf16{});
    }
  }
  set_weights(op);
  return op;
}

/// Calls body(operands) for every shape and precision; the message names both.
template <typename Body>
void for_each_layer(const std::vector<NamedShape>& shapes, const std::vector<Precision>& precisions, const Body& body) {
  for (const NamedShape& named : shapes)
    for (const Precision& precision : precisions) {
      const std::string label = std::string(named.name) + "; " + precision.name;
      INFO(label);
      body(make_operands(named, precision));
    }
}

}  // namespace nibble::testing
