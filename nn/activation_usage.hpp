// How activations use their codes: histograms and clipped shares per quantizer, for inspect and the reports.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/model.hpp"

namespace nibble {

/// Counts over some images of a calibrated model, integer or fake; one entry per network.quantizers. Empty before
/// calibration.
/// Codes of signed quantizers count from their lowest, -Q, up. A value is clipped when its gradient is cut: it lies at
/// or beyond the end of the top bucket (v*s >= 2^b), or, rounded to nearest or signed, beyond the bound (v*s > 2^b - 1,
/// |v*s| > Q).
/// Threads: a few images each.  Cost: one slow evaluation of the images.
std::vector<QuantizerUsage> measure_usage(const Model& model, const Tensor& images);

}  // namespace nibble
