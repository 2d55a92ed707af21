#include "ops/quantization.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/parallel.hpp"
#include "engine/scratch.hpp"

namespace nibble {

namespace {

/// floor(log2(r)) of a positive float, exact; infinity counts as the largest number.
int floor_log2(float r) {
  int exponent = 0;
  std::frexp(std::min(r, std::numeric_limits<float>::max()), &exponent);  // r = f * 2^exponent, f in [0.5, 1)
  return exponent - 1;
}

void check_bounds(const std::vector<float>& bound) {
  if (bound.empty()) throw ModelError("[quantizer] there are no bounds; calibrate before quantizing activations");
  for (size_t c = 0; c < bound.size(); ++c) {
    if (!(bound[c] > 0.0f && bound[c] <= kLargestBound))
      throw ModelError("[quantizer] the bound of channel {} is {}, but it must be positive and finite; calibrate again",
                       c, bound[c]);
  }
}

/// Shift forms: steps are anchored at the layer's largest bound and differ by powers of two (METHOD.md section 7).
void set_shift_factors(ActivationQuantizer& q, FactorForm form) {
  const float largest = *std::max_element(q.bound.begin(), q.bound.end());
  const size_t n = q.bound.size();
  q.factor.resize(n);
  q.common = 16.0f * q.steps() / (largest + kBoundEpsilon);
  if (form == FactorForm::kShiftFold) q.fold.resize(n);
  for (size_t c = 0; c < n; ++c) {
    const float ratio = (largest + kBoundEpsilon) / (q.bound[c] + kBoundEpsilon);
    if (form == FactorForm::kShift) {
      const int k = std::clamp(4 - floor_log2(ratio), 0, 4);
      q.factor[c] = static_cast<uint8_t>(1 << k);
      q.scale[c] = q.common / static_cast<float>(1 << k);  // exact: a power of two
    } else {
      // Nearest power of two in the logarithm, so that the folded rest lies in [0.71, 1.41].
      const int k = std::clamp(4 - floor_log2(ratio * 1.41421356f), 0, 4);
      q.factor[c] = static_cast<uint8_t>(1 << k);
      q.fold[c] = q.common / (q.scale[c] * static_cast<float>(1 << k));
    }
  }
}

}  // namespace

int64_t ActivationQuantizer::largest_multiplier() const {
  if (is_signed) return 255;
  const int64_t largest = factor.empty() ? 1 : *std::max_element(factor.begin(), factor.end());
  return ((int64_t{1} << bits) - 1) * largest;
}

kernels::UnsignedQuantizer ActivationQuantizer::kernel() const {
  kernels::UnsignedQuantizer k{.scale = scale.data(), .top = top()};
  if (scheme == QuantScheme::kNearest) {  // clipped before it is rounded: half a slope at the bound alone
    k.offset = 0.5f;
    k.middle = std::numeric_limits<float>::min();
    k.end = std::nextafter(k.top, std::numeric_limits<float>::max());
  }
  return k;
}

int ActivationQuantizer::signed_code(float v, size_t channel) const {
  const float t = v * scale[channel];
  const float inside = t > -top() ? std::min(t, top()) : -top();
  return static_cast<int>(std::floor(inside + 0.5f));
}

ActivationQuantizer make_activation_quantizer(const std::vector<float>& bound, int bits, bool is_signed,
                                              FactorForm form, QuantScheme scheme) {
  const bool shifts = form == FactorForm::kShift || form == FactorForm::kShiftFold;
  if (shifts && (bits != 4 || is_signed))
    throw UsageError("[quantizer] shift forms are for unsigned 4-bit activations, got {} {} bits; use fold",
                     is_signed ? "signed" : "unsigned", bits);
  check_bounds(bound);
  const FloatModeScope mode;
  ActivationQuantizer q{
      .bits = bits, .is_signed = is_signed, .scheme = scheme, .bound = bound, .scale = {}, .factor = {}, .fold = {}};
  if (form == FactorForm::kNone)
    std::fill(q.bound.begin(), q.bound.end(), *std::max_element(bound.begin(), bound.end()));
  for (float b : q.bound) q.scale.push_back(q.steps() / (b + kBoundEpsilon));
  if (form == FactorForm::kNone) {
    q.common = q.scale.front();
  } else if (shifts) {
    set_shift_factors(q, form);
  } else {
    for (float s : q.scale) q.fold.push_back(1.0f / s);
  }
  return q;
}

void quantize_weight_rows(const Tensor& weights, const std::vector<float>& fold, const WeightQuantizer& quantizer,
                          const char* layer, int64_t first, int64_t last, int8_t* codes, float* scale) {
  const int64_t ic = weights.shape().back(), taps = weights.rows() / std::max<int64_t>(1, weights.dim(0));
  if (!fold.empty() && static_cast<int64_t>(fold.size()) != ic)
    throw ShapeError("[quantize_weights] {} has {} input channels, the quantizer {}", layer, ic, fold.size());
  const float top = static_cast<float>((1 << (quantizer.bits - 1)) - 1);
  const auto& ew = kernels::active().ew;
  const float* f = fold.empty() ? nullptr : fold.data();
  Scratch scratch;
  const size_t row_size = quantizer.through_bf16 ? static_cast<size_t>(taps * ic) : 0;
  bf16* const half = scratch.get<bf16>(row_size);
  float* const rounded = scratch.get<float>(row_size);
  for (int64_t o = first; o < last; ++o, ++scale) {
    if (quantizer.through_bf16) {
      for (int64_t t = 0; t < taps; ++t) ew.f32_to_bf16(weights.row<float>(o * taps + t), ic, half + t * ic);
      ew.bf16_to_f32(half, taps * ic, rounded);
    }
    const auto row = [&](int64_t t) {
      return quantizer.through_bf16 ? rounded + t * ic : weights.row<float>(o * taps + t);
    };
    float bound = 0;
    for (int64_t t = 0; t < taps; ++t) {
      const float b = ew.absmax(row(t), f, ic);
      bound = b > bound || b != b ? b : bound;
    }
    if (!(bound <= kLargestBound))
      throw DivergedError("weights of {}, output channel {}, are not finite; lower --lr or set --clip-grad-norm", layer,
                          o);
    *scale = top / (bound + kBoundEpsilon);
    for (int64_t t = 0; t < taps; ++t, codes += ic) ew.quantize_weights(row(t), f, ic, *scale, top, codes);
  }
}

WeightCodes quantize_weights(const Tensor& weights, const std::vector<float>& fold, const WeightQuantizer& quantizer,
                             const char* layer) {
  const int64_t oc = weights.dim(0), k = weights.size() / std::max<int64_t>(1, oc);
  WeightCodes out{.bits = quantizer.bits, .codes = Tensor(DType::s8, weights.shape()), .scale = {}};
  out.scale.resize(static_cast<size_t>(oc));
  parallel_for_refusing(oc, [&](int64_t o) {
    quantize_weight_rows(weights, fold, quantizer, layer, o, o + 1, out.codes.data<int8_t>() + o * k,
                         out.scale.data() + o);
  });
  return out;
}

void check_accumulator(const char* layer, int64_t k, int64_t largest_multiplier, int weight_bits) {
  const int64_t largest_weight = int64_t{1} << (weight_bits - 1);
  if (k > 0 && largest_multiplier * largest_weight > INT64_C(0x7fffffff) / k)
    throw ModelError("{}: {} products of up to {} x {} may overflow the 32-bit sum; use fewer bits or a smaller width",
                     layer, k, largest_multiplier, largest_weight);
}

std::vector<uint8_t> image_code_table(const ActivationQuantizer& q, const PixelNorm& norm) {
  if (q.channels() != 3 || !q.is_signed)
    throw ShapeError("[image_code_table] the image has 3 channels and signed codes, its quantizer {} channels and {}",
                     q.channels(), q.is_signed ? "signed codes" : "unsigned ones");
  std::vector<uint8_t> table(3 * 256);
  for (int c = 0; c < 3; ++c) {
    for (int byte = 0; byte < 256; ++byte) {
      const int code = q.signed_code(norm.value(byte, static_cast<size_t>(c)), static_cast<size_t>(c));
      table[static_cast<size_t>(c * 256 + byte)] = static_cast<uint8_t>(code + kSignedOffset);
    }
  }
  return table;
}

}  // namespace nibble
