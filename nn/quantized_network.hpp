// A network with the quantizers of its activations: what a model in training and a served one share.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "nn/unit.hpp"

namespace nibble {

/// How often each code of a quantizer occurred in some images: validation images, before the last evaluation, or those
/// that the model was quantized by (see activation_usage.hpp).
struct QuantizerUsage {
  std::vector<int64_t> codes;  // [2^b], or [2Q + 1] from -Q up
  int64_t clipped = 0;         // values beyond what the codes cover
  int64_t total = 0;
};

/// A network with the quantizers of its activations: what a model in training and a served one share.
struct QuantizedNetwork {
  Network network;
  std::vector<ActivationQuantizer> quantizers;  // as network.quantizers; empty: activations are bf16 (yet, or for good)
  std::vector<QuantizerUsage> usage;            // as network.quantizers; empty until evaluated

  /// Activations are quantized from here on (always false for bf16 networks).
  bool calibrated() const { return !quantizers.empty(); }
  /// Activations are bf16 still although the precision quantizes them: there is no integer model yet.
  bool calibration_pending() const { return !network.quantizers.empty() && !calibrated(); }

  /// Products are of dequantized values in fp32, for comparison: there is nothing to serve.
  bool fake() const { return network.options.mode == QuantMode::kFake; }

  /// The quantizer with that index; none for -1 and before calibration.
  const ActivationQuantizer* quantizer(int index) const {
    return index >= 0 && calibrated() ? &quantizers[static_cast<size_t>(index)] : nullptr;
  }
  /// The quantizer whose codes the unit reads; none if it reads bf16.
  const ActivationQuantizer* input_quantizer(const UnitSpec& unit) const { return quantizer(unit.quantizer); }

  /// The last unit that reads the value as bf16 forward: as a shortcut, by a pool, or because its input is not
  /// quantized (yet). Index of its producer when none does.
  size_t last_plain_reader(int value) const;
};

}  // namespace nibble
