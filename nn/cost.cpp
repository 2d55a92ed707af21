#include "nn/cost.hpp"

#include <algorithm>
#include <cmath>

namespace nibble {

namespace {

/// Bits that the linear model charges: hardware has products of 4, 8 and 16 bits.
int64_t charged_bits(int weight_bits, int activation_bits) {
  const int wider = std::max(weight_bits, activation_bits);
  return wider <= 4 ? 4 : wider <= 8 ? 8 : 16;
}

void add(CostSums& to, const CostSums& from) {
  to.macs += from.macs;
  to.weights += from.weights;
  to.linear += from.linear;
  to.quadratic += from.quadratic;
  to.memory_bits += from.memory_bits;
}

double ratio(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

Cost cost_of(const Network& network) {
  Cost cost;
  for (const UnitSpec& unit : network.units) {
    LayerCost layer;
    layer.name = unit.name;
    layer.weight_bits = unit.precision.weight_bits;
    layer.activation_bits = unit.precision.activation_bits;
    layer.macs = unit.macs();
    layer.weights = unit.weight_count();
    layer.linear = layer.macs * charged_bits(layer.weight_bits, layer.activation_bits);
    layer.quadratic = layer.macs * layer.weight_bits * layer.activation_bits;
    layer.memory_bits = layer.weights * layer.weight_bits;
    add(cost.total, layer);
    cost.layers.push_back(std::move(layer));
  }
  return cost;
}

CostSums reference_cost(const NetworkOptions& options) {
  NetworkOptions reference;
  reference.arch = options.arch;
  reference.width = 1.0;
  reference.precision = "bf16";
  reference.image_size = options.image_size;
  reference.classes = options.classes;
  return cost_of(build_resnet(reference)).total;
}

CostRatio cost_ratio(const CostSums& cost, const CostSums& reference) {
  return {.linear = ratio(cost.linear, reference.linear),
          .quadratic = ratio(cost.quadratic, reference.quadratic),
          .memory = ratio(cost.memory_bits, reference.memory_bits)};
}

double width_for_linear(NetworkOptions options, double max_ratio) {
  // Hundredths of a width. The filters are truncated products, so the cost never falls when the width grows.
  constexpr int64_t kNarrowest = 5, kWidest = 800;
  if (!std::isfinite(max_ratio))
    throw UsageError("--max-linear is {}, not a finite number; use a share of bf16 width 1, such as 0.25", max_ratio);
  const CostSums reference = reference_cost(options);
  const auto width_of = [](int64_t hundredths) { return static_cast<double>(hundredths) / 100.0; };
  const auto ratio_at = [&](int64_t hundredths) {
    options.width = width_of(hundredths);
    return cost_ratio(cost_of(build_resnet(options)).total, reference).linear;
  };
  if (ratio_at(kNarrowest) > max_ratio)
    throw UsageError(
        "--max-linear is {}, but {} in {} at {} pixels costs {:.6f} of bf16 width 1 even at width {}; allow more, "
        "use fewer bits or another --arch",
        max_ratio, options.arch, options.precision, options.image_size, ratio_at(kNarrowest), width_of(kNarrowest));
  int64_t fits = kNarrowest, above = kWidest + 1;
  while (above - fits > 1) {
    const int64_t middle = fits + (above - fits) / 2;
    (ratio_at(middle) <= max_ratio ? fits : above) = middle;
  }
  return width_of(fits);
}

}  // namespace nibble
