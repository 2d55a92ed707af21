// The layers of a trained model as a point's result holds them: cost, bounds and use of the codes.
#pragma once
#include <vector>

#include "nn/study/point_result.hpp"

namespace nibble {

/// One entry a unit, in execution order, at the cost of its precision. Before calibration, and where the input is bf16,
/// it has no bounds and no usage; without an evaluation no usage (see QuantizerUsage).
/// Cost: sorts the bounds of each quantizer; no image is run.
std::vector<PointLayer> point_layers(const Model& model);

}  // namespace nibble
