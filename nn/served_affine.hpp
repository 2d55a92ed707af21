// Batch norm in evaluation, folded with the rescale of the integer product: one multiply-add per output channel.
#pragma once
#include <vector>

#include "nn/model.hpp"
#include "ops/layer_weights.hpp"

namespace nibble {

/// v = acc*M + A of one unit in evaluation (METHOD.md section 8): M = gamma/sqrt(var + eps) * rescale, A = beta -
/// mean*gamma/sqrt. For fc: M = rescale, A = bias. The one place where this is computed.
struct ServedAffine {
  std::vector<float> m, a;
};
/// `rescale` [oc] of the integer product (product_rescale); empty: 1.
ServedAffine served_affine(const UnitSpec& unit, const UnitParameters& p, const std::vector<float>& rescale);

}  // namespace nibble
