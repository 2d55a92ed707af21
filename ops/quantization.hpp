// Quantizers as values: scales of activations and weights, and how per-channel scales get through an integer sum.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "engine/tensor.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {

/// fp32 machine epsilon, added to every bound (METHOD.md section 2).
inline constexpr float kBoundEpsilon = 0x1p-23f;
/// Above it a scale may become denormal, which kernels flush to zero.
inline constexpr float kLargestBound = 3.0e38f;

/// How unsigned activations become codes; weights and signed activations are rounded half up in each. kPaper: 2^b steps
/// and floor (METHOD.md section 2). kNearest: 2^b - 1 steps, rounded half up, so that the bound itself has a code.
enum class QuantScheme { kPaper, kNearest };

/// A calibrated activation quantizer. Per channel c (METHOD.md sections 2 and 7):
///   unsigned: code = clamp(floor(x * scale[c]), 0, 2^b - 1),   scale = 2^b / (bound + eps)           (kPaper)
///             code = floor(clamp(x * scale[c], 0, 2^b - 1) + 0.5), scale = (2^b - 1) / (bound + eps) (kNearest)
///   signed:   code = floor(clamp(x * scale[c], -Q, Q) + 0.5),  scale = Q / (bound + eps), Q = 2^(b-1) - 1
///   the multiplier sees   code * factor[c]   (shift forms; 1 otherwise; plus 128 when signed)
///   and the weight row is   w[o, c] * fold[c]   before it is quantized with scale s_w[o], so that exactly
///   sum_c x_hat_c * w_hat[o,c] = sum_c (code*factor)_c * w_code[o,c] / (common * s_w[o]).
struct ActivationQuantizer {
  int bits = 8;
  bool is_signed = false;
  QuantScheme scheme = QuantScheme::kPaper;
  std::vector<float> bound;     // [channels]
  std::vector<float> scale;     // [channels]
  std::vector<uint8_t> factor;  // [channels], powers of two; empty: all one
  std::vector<float> fold;      // [channels]; empty: all one
  float common = 1.0f;

  int64_t channels() const { return static_cast<int64_t>(scale.size()); }
  float top() const { return static_cast<float>(is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1); }
  /// Steps of a bound: scale * (bound + eps).
  float steps() const { return is_signed || scheme == QuantScheme::kNearest ? top() : top() + 1.0f; }
  /// For a signed quantizer: floor(clamp(v*scale, -Q, Q) + 0.5), from -Q to Q; -Q for a NaN.
  int signed_code(float v, size_t channel) const;
  kernels::UnsignedQuantizer kernel() const;
  /// Largest code the multiplier sees (240 with a shift, 255 with the signed offset).
  int64_t largest_multiplier() const;
};

enum class FactorForm { kNone, kFold, kShift, kShiftFold };  // kNone: one scale for the whole tensor

/// Builds the quantizer from finished bounds (> 0, one per channel; kNone uses the largest for all channels).
/// Shift forms are for unsigned 4-bit codes; throws UsageError otherwise, and ModelError for an invalid bound.
ActivationQuantizer make_activation_quantizer(const std::vector<float>& bound, int bits, bool is_signed,
                                              FactorForm form, QuantScheme scheme = QuantScheme::kPaper);

/// The quantizer of a layer's weights, per output channel: bound = max |w * fold|, code = floor(clamp(w * fold * scale,
/// -Q, Q) + 0.5), scale = Q / (bound + eps), Q = 2^(bits-1) - 1.
struct WeightQuantizer {
  int bits = 8;
  bool through_bf16 = false;  // w is rounded to bf16 first, as published (METHOD.md section 1)
};

/// Weight codes of one layer, OHWI [oc, kh, kw, ic], and their scale per output channel: w_hat = code / scale.
struct WeightCodes {
  int bits = 8;
  Tensor codes;              // s8 [oc, kh, kw, ic]
  std::vector<float> scale;  // [oc]
};

/// Quantizes kernels [oc, kh, kw, ic]. `fold` [ic] may be empty. Throws DivergedError naming `layer` when a weight is
/// not finite, ShapeError for a fold of another number of channels.
WeightCodes quantize_weights(const Tensor& weights, const std::vector<float>& fold, const WeightQuantizer& quantizer,
                             const char* layer);

/// The same for output channels [first, last): their codes, dense, and their scales.
void quantize_weight_rows(const Tensor& weights, const std::vector<float>& fold, const WeightQuantizer& quantizer,
                          const char* layer, int64_t first, int64_t last, int8_t* codes, float* scale);

/// Throws ModelError naming the layer if the largest |sum| that it can produce does not fit int32.
void check_accumulator(const char* layer, int64_t k, int64_t largest_multiplier, int weight_bits);

/// How the bytes of an image become numbers, per colour (red, green, blue); the figures of ImageNet, unless a network
/// was trained with others.
struct PixelNorm {
  std::array<double, 3> mean = {0.485, 0.456, 0.406};
  std::array<double, 3> std = {0.229, 0.224, 0.225};
  bool operator==(const PixelNorm&) const = default;

  /// (byte / 255 - mean) / std in fp32, in the one order of operations used everywhere.
  float value(int byte, size_t c) const {
    return (static_cast<float>(byte) / 255.0f - static_cast<float>(mean[c])) / static_cast<float>(std[c]);
  }
};

/// Image codes: table[c*256 + byte] = signed code + 128 of the normalised byte, so that a decoded image becomes
/// multiplier codes by look-up. ShapeError unless q is signed and has 3 channels.
std::vector<uint8_t> image_code_table(const ActivationQuantizer& q, const PixelNorm& norm);
inline constexpr uint8_t kSignedOffset = 128;

}  // namespace nibble
