// What both reports say about the layers of a network: where its cost is, and what its quantizers do.
#pragma once
#include <string>
#include <vector>

#include "apps/report/columns.hpp"
#include "apps/report/page.hpp"
#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// "stem", "layer1" ... "layer4", "fc": the part of the network a layer belongs to.
std::string stage_of(const std::string& layer);

/// The linear cost of each layer in percent of `reference` (bf16 at width 1), coloured by the layer's bits.
ColumnChart cost_columns(const std::vector<PointLayer>& layers, double reference, const std::string& name);

/// The highest column that cost_columns would draw.
double highest_cost(const std::vector<PointLayer>& layers, double reference);

/// "Blue: 16 bits, ..." as marks and words, for the bits that occur.
std::string bits_legend(const std::vector<PointLayer>& layers);

/// "8 bits: conv1, fc; 4 bits: all others." for readers who do not see the colours, or look for an override.
std::string bits_caption(const std::vector<PointLayer>& layers);

/// One row per layer: bits, cost, weights, and bounds, clipped share and codes where its input is quantized.
Table layer_table(const std::vector<PointLayer>& layers);

/// How to read that table.
std::string layer_table_caption();

}  // namespace nibble::apps
