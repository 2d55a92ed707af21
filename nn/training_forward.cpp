#include "nn/training_forward.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/parallel.hpp"
#include "nn/first_layer_input.hpp"
#include "ops/activation_codes.hpp"
#include "ops/norm_activate.hpp"
#include "ops/packed_conv.hpp"
#include "ops/pool_activate.hpp"

namespace nibble {

namespace {

/// The values a pass carries between units: bf16 and, per quantizer, codes.
struct Flow {
  std::vector<Variable> plain;  // per value
  std::vector<Variable> codes;  // per quantizer
};

/// How many units read value v, as input or as shortcut.
int64_t readers_of(const Network& net, int value) {
  return std::count_if(net.units.begin(), net.units.end(), [&](const UnitSpec& u) { return u.input == value; }) +
         std::count_if(net.units.begin(), net.units.end(), [&](const UnitSpec& u) { return u.shortcut == value; });
}

/// True if no unit needs value v itself in its backward step: it is read as codes, as a shortcut and by pools only.
bool forward_only(const Model& model, int value) {
  for (const UnitSpec& u : model.network.units)
    if (u.input == value && !u.average_pool && model.input_quantizer(u) == nullptr) return false;
  const std::vector<int> quantizers = quantizers_of(model.network, value);  // share() quantizes z again in backward
  return quantizers.size() <= 1 && std::none_of(quantizers.begin(), quantizers.end(), [&](int q) {
           return model.network.quantizers[static_cast<size_t>(q)].is_signed;
         });
}

int64_t code_channels(const Model& model, int quantizer) {
  return model.network.quantizers[static_cast<size_t>(quantizer)].channels;
}

class TrainingPass {
  /// The backward step that waits for the first reader of a value, and whether that must read codes.
  struct Reader {
    std::shared_ptr<GradientStage> backward;
    bool of_codes = false;
  };
  /// A value that is dropped once unit `last_reader` has been computed.
  struct Awaiting {
    Variable z;
    size_t last_reader;
  };

 public:
  TrainingPass(Tape& tape, const Model& model, const StepWeights& weights, const Gradients& gradients,
               ShardStatistics& statistics, KeptOutputs kept)
      : tape_(tape),
        model_(model),
        net_(model.network),
        weights_(weights),
        gradients_(gradients),
        stats_(statistics),
        kept_(kept) {
    flow_.plain.resize(net_.units.size() + 1);
    flow_.codes.resize(net_.quantizers.size());
    backward_.resize(net_.units.size() + 1);
    stats_.norms.resize(net_.units.size());
    stats_.channel_max.assign(net_.quantizers.size(), {});
    branches_.resize(net_.units.size());
  }

  Variable run(const Tensor& images) {
    start(images);
    for (size_t u = 0; u < net_.units.size(); ++u) {
      const UnitSpec& unit = net_.units[u];
      if (unit.kind == UnitKind::kLinear) {
        const Variable logits = linear(u);
        drop_outputs(u);
        return logits;
      }
      convolve(u);
      drop_input(u);
      // The projection's norm is applied together with the block's last unit, in the same pass over memory.
      if (unit.relu) activate(u);
      drop_outputs(u);
    }
    throw ShapeError("[training_forward] the network has no linear layer");
  }

 private:
  void start(const Tensor& images) {
    const UnitSpec& first = net_.units.front();
    const Variable input(first_layer_input(model_, images));
    flow_.plain[kImageValue] = input;
    if (first.quantizer < 0) return;
    if (model_.calibrated())
      flow_.codes[static_cast<size_t>(first.quantizer)] = input;
    else
      stats_.channel_max[static_cast<size_t>(first.quantizer)] = image_maxima(images, net_.options.pixel_norm);
  }

  Variable input_of(const UnitSpec& unit) const {
    if (model_.input_quantizer(unit) != nullptr) return flow_.codes[static_cast<size_t>(unit.quantizer)];
    return flow_.plain[static_cast<size_t>(unit.input)];
  }

  void convolve(size_t u) {
    ChannelSums sums;
    const LayerWeights& layer = weights_.layers[u];
    NormBranch& b = branches_[u];
    b.name = layer.name;
    b.y = packed_conv(&tape_, input_of(net_.units[u]), layer, gradients_.units[u].weights, sums,
                      first_backward(net_.units[u]));
    b.statistics = normalise_sums(sums);
    b.gamma = model_.units[u].gamma;
    b.beta = model_.units[u].beta;
    b.d_gamma = gradients_.units[u].gamma;
    b.d_beta = gradients_.units[u].beta;
    b.gradient_scale = y_gradient_scale(layer);
    stats_.norms[u] = b.statistics;
  }

  /// What takes the rows of the unit's input gradient, if it is the first reader of its input, and so the last one that
  /// adds to that gradient.
  std::shared_ptr<GradientStage> first_backward(const UnitSpec& unit) {
    const Reader reader = std::exchange(backward_[static_cast<size_t>(unit.input)], {});
    const bool reads_codes = model_.input_quantizer(unit) != nullptr;
    return reads_codes == reader.of_codes ? reader.backward : nullptr;
  }

  /// A bf16 activation that only this unit has read is dropped and computed again from the convolution output before
  /// it when backward gets there: one more pass over a seventh of what a step keeps (width 1: 2.8 of 20 million numbers
  /// per image at 224 px).
  void drop_input(size_t u) {
    const UnitSpec& unit = net_.units[u];
    if (unit.input == kImageValue || model_.input_quantizer(unit) != nullptr) return;
    const size_t producer = static_cast<size_t>(unit.input) - 1;
    const UnitSpec& from = net_.units[producer];
    if (from.shortcut != kNoValue || from.max_pool || readers_of(net_, unit.input) != 1) return;
    const Variable& z = flow_.plain[static_cast<size_t>(unit.input)];
    z.drop([branch = branches_[producer]] { return normalised_activation(branch); });
    tape_.record([z] { z.remake(); });
  }

  /// The output of unit u, whose norm has read it.
  void drop_convolved(size_t u) {
    const Variable x = input_of(net_.units[u]);
    branches_[u].y.drop([x, &layer = weights_.layers[u]] {
      x.remake();
      ChannelSums unused;  // the statistics were taken forward
      return packed_conv_forward(layer, x.value(), unused);
    });
  }

  /// Block outputs that no unit reads as bf16 after unit u: backward goes by their clip classes, an eighth of the
  /// bytes.
  void drop_outputs(size_t u) {
    std::erase_if(awaiting_, [u](const Awaiting& a) {
      if (a.last_reader > u) return false;
      a.z.drop();
      return true;
    });
  }

  /// Statistics slot of quantizer q while they are collected.
  float* maxima(int q) {
    if (model_.calibrated()) return nullptr;
    std::vector<float>& m = stats_.channel_max[static_cast<size_t>(q)];
    m.assign(static_cast<size_t>(code_channels(model_, q)), 0.0f);
    return m.data();
  }

  void activate(size_t u) {
    const UnitSpec& unit = net_.units[u];
    const int value = static_cast<int>(u) + 1;
    const std::vector<int> quantizers = quantizers_of(net_, value);
    const bool pooled = unit.max_pool || read_by_average_pool(net_, value);
    NormActivateArgs args;
    args.main = branches_[u];
    const size_t last_reader = model_.last_plain_reader(value);
    args.store_z = pooled || rounded_before_codes(net_, value) || last_reader > u;
    args.dequantize = model_.fake();
    if (unit.shortcut != kNoValue) {
      const NormBranch& side = branches_[static_cast<size_t>(std::max(0, unit.shortcut - 1))];
      const bool projection = unit.shortcut > 0 && net_.units[static_cast<size_t>(unit.shortcut - 1)].is_projection();
      if (projection)
        args.projection = &side;
      else
        args.shortcut = flow_.plain[static_cast<size_t>(unit.shortcut)];
    }
    // norm_activate writes unsigned codes; a signed quantizer alone (the quirk together with an override to bf16) goes
    // over z.
    const bool apart = !pooled && !quantizers.empty() && model_.calibrated() &&
                       model_.quantizers[static_cast<size_t>(quantizers.front())].is_signed;
    if (!pooled && !quantizers.empty()) {
      if (!apart) args.quantizer = model_.quantizer(quantizers.front());
      args.channel_max = maxima(quantizers.front());
    }
    // The pool before the others is the only reader of the stem's output.
    args.keep_classes = args.store_z && (unit.max_pool || forward_only(model_, value));
    Activated out = norm_activate(&tape_, args);
    if (kept_ == KeptOutputs::kNarrow && unit.shortcut != kNoValue) {
      drop_convolved(u);
      if (args.projection != nullptr) drop_convolved(static_cast<size_t>(unit.shortcut - 1));
    }
    if (args.keep_classes) awaiting_.push_back({out.z, unit.max_pool ? u : last_reader});
    if (unit.max_pool) out = max_pool(u, out, quantizers);
    flow_.plain[static_cast<size_t>(value)] = out.z;
    // Several quantizers add to the gradient in steps of their own, pools before all convolutions.
    if (quantizers.size() <= 1 && !pooled && !apart)
      backward_[static_cast<size_t>(value)] = {out.backward, out.codes.defined()};
    if (quantizers.empty() || (pooled && !unit.max_pool)) return;
    if (!apart) flow_.codes[static_cast<size_t>(quantizers.front())] = out.codes;
    share(quantizers, apart ? 0 : 1, out.z);
  }

  /// Quantizers of the same value from `first` on (a per-layer override, the signed quirk): a pass of their own.
  void share(const std::vector<int>& quantizers, size_t first, const Variable& z) {
    for (size_t i = first; i < quantizers.size(); ++i) {
      const int q = quantizers[i];
      if (!model_.calibrated()) {
        stats_.channel_max[static_cast<size_t>(q)] = stats_.channel_max[static_cast<size_t>(quantizers.front())];
        continue;
      }
      const ActivationQuantizer& quantizer = model_.quantizers[static_cast<size_t>(q)];
      Tensor codes = quantize_tensor(z.value(), quantizer);
      if (model_.fake()) codes = dequantize_tensor(codes, quantizer);
      const Variable shared(codes, Grad::kWanted);
      flow_.codes[static_cast<size_t>(q)] = shared;
      tape_.record(
          [z, shared, &quantizer] { z.accumulate(combine_gradients(z.value(), shared.grad(), Tensor(), &quantizer)); });
    }
  }

  Activated max_pool(size_t u, const Activated& in, const std::vector<int>& quantizers) {
    PoolActivateArgs args{.dequantize = model_.fake()};
    if (!quantizers.empty()) {
      args.quantizer = model_.quantizer(quantizers.front());
      args.channel_max = maxima(quantizers.front());
    }
    return max_pool_activate(&tape_, in.z, *net_.units[u].max_pool, args, in.backward);
  }

  Variable linear(size_t u) {
    const UnitSpec& unit = net_.units[u];
    const PoolActivateArgs args{.quantizer = model_.input_quantizer(unit),
                                .dequantize = model_.fake(),
                                .channel_max = unit.quantizer >= 0 ? maxima(unit.quantizer) : nullptr};
    const Activated pooled = average_pool_activate(&tape_, flow_.plain[static_cast<size_t>(unit.input)], args);
    return packed_linear(&tape_, args.quantizer != nullptr ? pooled.codes : pooled.z, weights_.layers[u],
                         model_.units[u].bias, gradients_.units[u].weights, gradients_.units[u].bias);
  }

  Tape& tape_;
  const Model& model_;
  const Network& net_;
  const StepWeights& weights_;
  const Gradients& gradients_;
  ShardStatistics& stats_;
  KeptOutputs kept_;
  Flow flow_;
  std::vector<NormBranch> branches_;
  std::vector<Reader> backward_;  // per value
  std::vector<Awaiting> awaiting_;
};

}  // namespace

Variable training_forward(Tape& tape, const Model& model, const StepWeights& weights, const Tensor& images,
                          const Gradients& gradients, ShardStatistics& statistics, KeptOutputs kept) {
  const FloatModeScope mode;
  return TrainingPass(tape, model, weights, gradients, statistics, kept).run(images);
}

}  // namespace nibble
