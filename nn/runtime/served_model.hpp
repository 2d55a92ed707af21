// The served model: what inference needs and nothing else, independent of the machine.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "nn/model.hpp"
#include "nn/served_affine.hpp"
#include "nn/unit.hpp"

namespace nibble {

/// One unit with its final numbers: v = acc*m[o] + a[o] (METHOD.md section 8).
struct ServedLayer {
  WeightCodes codes;    // weight_bits 4 or 8; undefined tensor otherwise
  Tensor weights;       // f32: the masters rounded to bf16, where the layer's weights are bf16
  ServedAffine affine;  // [oc]
};

struct ServedModel : QuantizedNetwork {
  std::vector<ServedLayer> layers;  // as network.units
  std::vector<std::string> class_names;
  /// Where it comes from ("steps", "decoder"): strings, not used in arithmetic.
  std::map<std::string, std::string> notes;
};

/// False for networks in fake mode that have quantizers, as they multiply dequantized values: these are evaluated by
/// their modules, even before calibration, when only their weights are quantized and dequantized.
bool is_servable(const Network& network);

/// Final numbers from a trained model, through the same quantizer and affine functions as the modules.
/// Throws ModelError when the network is not servable, DivergedError for a weight that is not finite.
/// Cost: quantizes all weights.
ServedModel make_served(const Model& model);

/// The right operands for the kernels of this machine; points into `model`, which must outlive it.
std::vector<LayerWeights> pack_served(const ServedModel& model);

}  // namespace nibble
