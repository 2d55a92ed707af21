// The layers of a trained model as a point's result holds them: cost, bounds and use of the codes; which of them do not
// have the precision of the point.
#pragma once
#include <vector>

#include "nn/study/point_result.hpp"

namespace nibble {

/// One entry per unit, in execution order, at the cost of its precision. Before calibration, and where the input is
/// bf16, it has no bounds and no usage; without an evaluation no usage (see QuantizerUsage).
/// Cost: sorts the bounds of each quantizer; no image is run.
std::vector<PointLayer> point_layers(const Model& model);

/// The layers of a point, once each, whose bits are not those that its precision gives them: what `[layers]` changed.
/// By its layers, not its configuration: that is what was trained. Empty where the architecture or the precision, which
/// come from a file, is not one of nibble's.  Cost: describes a network.
std::vector<PrecisionOverride> overrides_of(const PointResult& point);

}  // namespace nibble
