#include "nn/model.hpp"

#include <algorithm>
#include <cmath>

#include "engine/math.hpp"
#include "engine/parallel.hpp"
#include "engine/rng.hpp"
#include "nn/parameter_fields.hpp"

namespace nibble {

namespace {

constexpr float kEma = 0.1f;  // ema_coeff of the paper's configurations

Tensor filled(int64_t n, float value) {
  Tensor t(DType::f32, {n});
  std::fill_n(t.data<float>(), n, value);
  return t;
}

/// Truncated at two standard deviations; 0.87962566 is the standard deviation of the unit normal so truncated.
void lecun_normal(const Tensor& w, uint64_t seed, uint32_t unit) {
  const int64_t oc = w.dim(0), fan_in = w.size() / std::max<int64_t>(1, oc);
  const float deviation = sqrt_exact(1.0f / static_cast<float>(fan_in)) / 0.87962566f;
  parallel_for(oc, [&](int64_t o) {
    Rng rng(seed, rng_purpose::kInit, static_cast<uint64_t>(o), unit);
    float* row = w.data<float>() + o * fan_in;
    for (int64_t i = 0; i < fan_in; ++i) {
      float z = rng.normal();
      while (z < -2.0f || z > 2.0f) z = rng.normal();
      row[i] = z * deviation;
    }
  });
}

}  // namespace

Model Model::clone() const {
  Model copy = *this;
  const auto clone = [](Tensor& t) {
    if (t.defined()) t = t.clone();
  };
  for (UnitParameters& p : copy.units) {
    for (const ParameterField& f : kParameterFields) clone(p.*f.tensor);
    clone(p.running_mean);
    clone(p.running_variance);
  }
  return copy;
}

Model make_model(const Network& network, const InitOptions& options) {
  const FloatModeScope mode;
  Model model;
  model.network = network;
  for (size_t u = 0; u < network.units.size(); ++u) {
    const UnitSpec& spec = network.units[u];
    const ConvShape& s = spec.shape;
    UnitParameters p;
    p.weights = Tensor(DType::f32, {s.oc, s.kh, s.kw, s.ic});
    lecun_normal(p.weights, options.seed, static_cast<uint32_t>(u));
    if (spec.norm_name.empty()) {
      p.bias = filled(s.oc, 0.0f);
    } else {
      const bool zero = options.zero_last_gamma && spec.shortcut != kNoValue;
      p.gamma = filled(s.oc, zero ? 0.0f : 1.0f);
      p.beta = filled(s.oc, 0.0f);
      p.running_mean = filled(s.oc, 0.0f);
      p.running_variance = filled(s.oc, 1.0f);
    }
    model.units.push_back(std::move(p));
  }
  for (const QuantizerSpec& q : network.quantizers) {
    Calibration c;
    c.mean_of_max.assign(static_cast<size_t>(q.channels), 0.0f);
    c.weight.assign(static_cast<size_t>(q.channels), 0.0f);
    model.calibration.push_back(std::move(c));
  }
  return model;
}

void spread_largest(std::vector<float>& maxima) {
  float largest = 0;
  for (const float v : maxima) largest = v > largest && std::isfinite(v) ? v : largest;
  std::fill(maxima.begin(), maxima.end(), largest);
}

void update_calibration(Calibration& c, Granularity granularity, std::vector<std::vector<float>> shard_max) {
  const FloatModeScope mode;
  if (granularity == Granularity::kPerTensor)
    for (std::vector<float>& m : shard_max) spread_largest(m);
  for (size_t i = 0; i < c.mean_of_max.size(); ++i) {
    double sum = 0;
    int fired = 0;
    for (const std::vector<float>& m : shard_max) {
      if (!(m[i] > 0) || !std::isfinite(m[i]))
        continue;  // zeros are excluded from the statistics (METHOD.md section 3)
      sum += static_cast<double>(m[i]);
      ++fired;
    }
    if (fired == 0) continue;
    c.mean_of_max[i] += kEma * (static_cast<float>(sum / fired) - c.mean_of_max[i]);
    c.weight[i] += kEma * (1.0f - c.weight[i]);
  }
}

FactorForm factor_form(const QuantizerSpec& spec) {
  if (spec.granularity == Granularity::kPerTensor) return FactorForm::kNone;
  switch (spec.by) {
    case PerChannelBy::kFold:
      return FactorForm::kFold;
    case PerChannelBy::kShift:
      return FactorForm::kShift;
    case PerChannelBy::kShiftFold:
      return FactorForm::kShiftFold;
  }
  return FactorForm::kFold;
}

void calibrate(Model& model) {
  const FloatModeScope mode;
  std::vector<std::vector<float>> bounds;  // all or none: a model with only some could be saved, but not read again
  for (size_t q = 0; q < model.calibration.size(); ++q) {
    const Calibration& c = model.calibration[q];
    float smallest = 0;
    for (size_t i = 0; i < c.weight.size(); ++i) {
      if (c.weight[i] <= 0) continue;
      const float bound = c.mean_of_max[i] / c.weight[i];
      if (bound > 0 && (smallest == 0 || bound < smallest)) smallest = bound;
    }
    if (smallest == 0)
      throw DivergedError(
          "{} has no activation statistics to calibrate from: no batch has had a value above zero there; in training "
          "lower --lr or calibrate later (--calibrate-at), without training give other weights or images",
          model.network.quantizers[q].name);
    std::vector<float>& of_channels = bounds.emplace_back(c.weight.size());
    for (size_t i = 0; i < of_channels.size(); ++i) {
      const float bound = c.weight[i] > 0 ? c.mean_of_max[i] / c.weight[i] : 0.0f;
      of_channels[i] = bound > 0 ? bound : smallest;
    }
  }
  for (size_t q = 0; q < bounds.size(); ++q) model.calibration[q].bound = std::move(bounds[q]);
  rebuild_quantizers(model);
}

void rebuild_quantizers(Model& model) {
  const FloatModeScope mode;
  model.quantizers.clear();
  std::vector<ActivationQuantizer> built;
  for (size_t q = 0; q < model.calibration.size(); ++q) {
    if (model.calibration[q].bound.empty()) return;
    const QuantizerSpec& spec = model.network.quantizers[q];
    // fake mode multiplies dequantized values: no scale has to pass through an integer sum, so scales are kept per
    // channel and weight rows are quantized as they are, the published arithmetic. Per tensor and with shift that is
    // what integer mode computes; with a fold, integer mode quantizes different rows, and so is a different model.
    built.push_back(make_activation_quantizer(model.calibration[q].bound, spec.bits, spec.is_signed, factor_form(spec),
                                              spec.scheme));
    if (model.fake()) {
      built.back().fold.clear();
      built.back().factor.clear();
    }
  }
  model.quantizers = std::move(built);
}

}  // namespace nibble
