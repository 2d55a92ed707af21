#include "nn/served_affine.hpp"

#include <cmath>

#include "ops/norm_activate.hpp"

namespace nibble {

ServedAffine served_affine(const UnitSpec& unit, const UnitParameters& p, const std::vector<float>& rescales) {
  ServedAffine out;
  for (int64_t o = 0; o < unit.shape.oc; ++o) {
    const float rescale = rescales.empty() ? 1.0f : rescales[static_cast<size_t>(o)];
    if (unit.norm_name.empty()) {
      out.m.push_back(rescale);
      out.a.push_back(p.bias.data<float>()[o]);
      continue;
    }
    const float slope = p.gamma.data<float>()[o] / std::sqrt(p.running_variance.data<float>()[o] + kNormEpsilon);
    out.m.push_back(slope * rescale);
    out.a.push_back(p.beta.data<float>()[o] - p.running_mean.data<float>()[o] * slope);
  }
  return out;
}

}  // namespace nibble
