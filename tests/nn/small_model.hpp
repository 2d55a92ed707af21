// Small models for the tests of this room: real networks, parameters that no layer can hide behind.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/rng.hpp"
#include "nn/activation_usage.hpp"
#include "nn/model.hpp"

namespace nibble::testing {

/// Puts the kernel level and the number of threads back.
struct RestoreExecution {
  Isa isa = active_isa();
  int threads = nibble::threads();
  RestoreExecution() = default;
  RestoreExecution(const RestoreExecution&) = delete;
  RestoreExecution& operator=(const RestoreExecution&) = delete;
  ~RestoreExecution() {
    set_active_isa(isa);
    set_threads(threads);
  }
};

/// resnet26 at 32 pixels and 5 classes: the smallest network that has every kind of unit.
inline NetworkOptions small_options(const std::string& precision, double width = 0.25) {
  NetworkOptions o;
  o.arch = "resnet26";
  o.width = width;
  o.precision = precision;
  o.image_size = 32;
  o.classes = 5;
  return o;
}

/// n images of smooth colour plus noise, uint8 [n, size, size, 3]; a function of (seed, n-th image).
inline Tensor random_images(int64_t n, int64_t size, uint64_t seed = 1) {
  const Tensor images(DType::u8, {n, size, size, 3});
  for (int64_t i = 0; i < n; ++i) {
    Rng rng(seed, rng_purpose::kTest, static_cast<uint64_t>(i), 1);
    float centre[3];
    for (float& c : centre) c = 40.0f + 170.0f * rng.uniform();
    uint8_t* p = images.data<uint8_t>() + i * size * size * 3;
    for (int64_t k = 0; k < size * size * 3; ++k) {
      const float wave = 60.0f * std::sin(static_cast<float>(k / 3 % size + i) * 0.4f);
      const float v = centre[k % 3] + wave + 60.0f * (rng.uniform() - 0.5f);
      p[k] = static_cast<uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
    }
  }
  return images;
}

inline bool same_usage(const std::vector<QuantizerUsage>& a, const std::vector<QuantizerUsage>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const QuantizerUsage& x, const QuantizerUsage& y) {
    return x.codes == y.codes && x.clipped == y.clipped && x.total == y.total;
  });
}

/// Parameters and running statistics with random, uneven values, as training leaves them behind; scaled so that
/// activations neither die nor explode. Not calibrated.
inline Model random_model(const NetworkOptions& options, uint64_t seed = 7) {
  Model model = make_model(build_resnet(options), {.seed = seed, .zero_last_gamma = false});
  for (size_t u = 0; u < model.units.size(); ++u) {
    UnitParameters& p = model.units[u];
    Rng rng(seed, rng_purpose::kTest, u, 2);
    if (p.bias.defined())
      for (int64_t o = 0; o < p.bias.size(); ++o) p.bias.data<float>()[o] = 0.3f * rng.normal();
    if (!p.gamma.defined()) continue;
    for (int64_t o = 0; o < p.gamma.size(); ++o) {
      p.gamma.data<float>()[o] = (rng.uniform() < 0.1f ? -1.0f : 1.0f) * (0.5f + rng.uniform());
      p.beta.data<float>()[o] = 0.4f * rng.normal();
      p.running_mean.data<float>()[o] = 0.2f * rng.normal();
      p.running_variance.data<float>()[o] = 0.2f + 1.5f * rng.uniform();
    }
  }
  return model;
}

/// The same with bounds between 0.05 and 4, so that small and large channels meet in every layer: the calibrated model.
inline Model calibrated_model(const NetworkOptions& options, uint64_t seed = 7) {
  Model model = random_model(options, seed);
  for (size_t q = 0; q < model.calibration.size(); ++q) {
    Rng rng(seed, rng_purpose::kTest, q, 3);
    Calibration& c = model.calibration[q];
    for (size_t i = 0; i < c.weight.size(); ++i) {
      c.weight[i] = 1.0f;
      c.mean_of_max[i] = 0.5f * std::exp2(5.0f * rng.uniform() - 3.0f) * (1.0f + 0.1f * rng.uniform());
    }
    c.bound = c.mean_of_max;
  }
  rebuild_quantizers(model);
  return model;
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && a.stride() == b.stride() && a.bytes() == b.bytes() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace nibble::testing
