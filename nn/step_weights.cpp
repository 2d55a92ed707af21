#include "nn/step_weights.hpp"

#include "engine/parallel.hpp"
#include "engine/profiler.hpp"
#include "ops/tensor_memory.hpp"

namespace nibble {

StepWeights prepare_weights(const Model& model, Passes passes) {
  Zone zone("quantize and pack weights");
  StepWeights w;
  const size_t count = model.network.units.size();
  w.layers.resize(count);
  parallel_for_refusing(static_cast<int64_t>(count), [&](int64_t i) {
    const size_t u = static_cast<size_t>(i);
    const UnitSpec& unit = model.network.units[u];
    LayerWeightsArgs args;
    args.name = unit.name;
    args.shape = unit.shape;
    args.weights = model.units[u].weights;
    args.weight_bits = unit.precision.weight_bits;
    args.bf16_weights = model.network.options.bf16_weights;
    args.quantizer = model.fake() ? nullptr : model.input_quantizer(unit);
    args.dequantize = model.fake();
    args.passes = passes;
    args.first_layer = u == 0;
    w.layers[u] = prepare_layer(args);
  });
  zone.count([&] {
    int64_t bytes = 0;
    for (const UnitParameters& p : model.units) bytes += stored_bytes(p.weights);
    for (const LayerWeights& layer : w.layers) {
      bytes += stored_bytes(layer.forward.storage);
      for (const LayerWeights::GradientOperand& o : layer.input_gradient) bytes += stored_bytes(o.panels.storage);
    }
    return ZoneWork{.bytes = bytes};
  });
  return w;
}

}  // namespace nibble
