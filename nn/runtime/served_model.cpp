#include "nn/runtime/served_model.hpp"

namespace nibble {

namespace {

LayerWeights pack_layer(const ServedModel& model, size_t u) {
  const UnitSpec& unit = model.network.units[u];
  const ServedLayer& layer = model.layers[u];
  LayerWeightsArgs args;
  args.name = unit.name;
  args.shape = unit.shape;
  args.weights = layer.weights;
  args.weight_bits = unit.precision.weight_bits;
  args.quantizer = model.input_quantizer(unit);
  args.passes = Passes::kServing;
  args.first_layer = u == 0;
  return unit.precision.weight_bits == 16 ? prepare_layer(args) : prepare_layer(args, layer.codes);
}

Tensor rounded_to_bf16(const Tensor& weights) {
  const Tensor out(DType::f32, weights.shape());
  for (int64_t i = 0; i < weights.size(); ++i) out.data<float>()[i] = to_float(to_bf16(weights.data<float>()[i]));
  return out;
}

}  // namespace

bool is_servable(const Network& network) {
  return network.options.mode == QuantMode::kInteger || network.quantizers.empty();
}

ServedModel make_served(const Model& model) {
  if (!is_servable(model.network))
    throw ModelError(
        "a model trained with --quant-mode fake multiplies dequantized values and has no integer form; "
        "train with --quant-mode integer to serve it");
  ServedModel served;
  static_cast<QuantizedNetwork&>(served) = model;
  served.layers.resize(model.units.size());
  static const std::vector<float> kNoFold;
  parallel_for_refusing(static_cast<int64_t>(model.units.size()), [&](int64_t i) {
    const size_t u = static_cast<size_t>(i);
    const UnitSpec& unit = model.network.units[u];
    ServedLayer& layer = served.layers[u];
    const ActivationQuantizer* q = served.input_quantizer(unit);
    if (unit.precision.weight_bits == 16)
      layer.weights = rounded_to_bf16(model.units[u].weights);
    else
      layer.codes =
          quantize_weights(model.units[u].weights, q != nullptr ? q->fold : kNoFold,
                           {unit.precision.weight_bits, model.network.options.bf16_weights}, unit.name.c_str());
    if (q != nullptr)
      check_accumulator(unit.name.c_str(), unit.shape.k(), q->largest_multiplier(), unit.precision.weight_bits);
    layer.affine = served_affine(unit, model.units[u], product_rescale(layer.codes.scale, q));
  });
  return served;
}

std::vector<LayerWeights> pack_served(const ServedModel& model) {
  std::vector<LayerWeights> packed(model.layers.size());
  parallel_for_refusing(static_cast<int64_t>(packed.size()),
                        [&](int64_t u) { packed[static_cast<size_t>(u)] = pack_layer(model, static_cast<size_t>(u)); });
  return packed;
}

}  // namespace nibble
