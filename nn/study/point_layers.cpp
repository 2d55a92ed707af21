#include "nn/study/point_layers.hpp"

#include <algorithm>
#include <set>

#include "engine/error.hpp"

namespace nibble {

std::vector<PointLayer> point_layers(const Model& model) {
  const Cost cost = cost_of(model.network);
  std::vector<PointLayer> layers;
  for (size_t u = 0; u < model.network.units.size(); ++u) {
    PointLayer layer;
    static_cast<LayerCost&>(layer) = cost.layers[u];
    const int quantizer = model.network.units[u].quantizer;
    if (quantizer >= 0 && model.calibrated()) {
      const auto q = static_cast<size_t>(quantizer);
      std::vector<float> bounds = model.quantizers[q].bound;
      std::sort(bounds.begin(), bounds.end());
      layer.bound_min = bounds.front();
      layer.bound_median = bounds[bounds.size() / 2];
      layer.bound_max = bounds.back();
      if (!model.usage.empty()) layer.usage = model.usage[q];
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::vector<PrecisionOverride> overrides_of(const PointResult& point) {
  NetworkOptions plain;
  plain.arch = point.arch;
  plain.precision = point.precision;
  std::vector<PrecisionOverride> found;
  try {
    const Network network = build_resnet(plain);
    std::set<std::string> seen;
    for (const PointLayer& l : point.layers) {
      const int unit = network.unit_index(l.name);
      const Precision own{.weight_bits = l.weight_bits, .activation_bits = l.activation_bits};
      if (unit < 0 || own == network.units[static_cast<size_t>(unit)].precision) continue;
      if (seen.insert(l.name).second) found.push_back({l.name, own});
    }
  } catch (const UsageError&) {
  }
  return found;
}

}  // namespace nibble
