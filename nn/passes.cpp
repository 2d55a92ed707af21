#include "nn/passes.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <utility>

#include "engine/profiler.hpp"
#include "nn/first_layer_input.hpp"
#include "ops/activation_codes.hpp"
#include "ops/pool_activate.hpp"

namespace nibble {

namespace {

bool is_fake(const Model& model) {
  return model.network.options.mode == QuantMode::kFake;
}

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

/// Largest |normalised byte| per colour over the shard's images: the statistic of the image quantizer.
std::vector<float> image_maxima(const Tensor& images) {
  std::vector<float> largest(3, 0.0f);
  bool seen[3][256] = {};
  const uint8_t* p = images.data<uint8_t>();
  for (int64_t i = 0; i < images.size(); ++i) seen[i % 3][p[i]] = true;
  for (int c = 0; c < 3; ++c)
    for (int b = 0; b < 256; ++b)
      if (seen[c][b])
        largest[static_cast<size_t>(c)] = std::max(largest[static_cast<size_t>(c)], std::fabs(normalised(b, c)));
  return largest;
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
               ShardStatistics& statistics)
      : tape_(tape), model_(model), net_(model.network), weights_(weights), gradients_(gradients), stats_(statistics) {
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
      stats_.channel_max[static_cast<size_t>(first.quantizer)] = image_maxima(images);
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

  /// A bf16 activation that this unit alone has read is dropped and computed again from the convolution output before
  /// it when backward gets there: one pass more over a seventh of what a step keeps (width 1: 2.8 of 20 million numbers
  /// an image at 224 px).
  void drop_input(size_t u) {
    const UnitSpec& unit = net_.units[u];
    if (unit.input == kImageValue || model_.input_quantizer(unit) != nullptr) return;
    const size_t producer = static_cast<size_t>(unit.input) - 1;
    const UnitSpec& from = net_.units[producer];
    if (from.shortcut != kNoValue || from.max_pool || readers_of(net_, unit.input) != 1) return;
    const Variable& z = flow_.plain[static_cast<size_t>(unit.input)];
    z.set_value(Tensor());
    tape_.record([z, branch = branches_[producer]] { z.set_value(normalised_activation(branch)); });
  }

  /// Block outputs that nobody reads as bf16 after unit u: backward goes by their clip classes, an eighth of the bytes.
  void drop_outputs(size_t u) {
    std::erase_if(awaiting_, [u](const Awaiting& a) {
      if (a.last_reader > u) return false;
      a.z.set_value(Tensor());
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
    args.dequantize = is_fake(model_);
    if (unit.shortcut != kNoValue) {
      const NormBranch& side = branches_[static_cast<size_t>(std::max(0, unit.shortcut - 1))];
      const bool projection = unit.shortcut > 0 && !net_.units[static_cast<size_t>(unit.shortcut - 1)].relu;
      if (projection)
        args.projection = &side;
      else
        args.shortcut = flow_.plain[static_cast<size_t>(unit.shortcut)];
    }
    // norm_activate writes unsigned codes; a signed quantizer alone (the quirk beside an override to bf16) goes over z.
    const bool apart = !pooled && !quantizers.empty() && model_.calibrated() &&
                       model_.quantizers[static_cast<size_t>(quantizers.front())].is_signed;
    if (!pooled && !quantizers.empty()) {
      if (!apart) args.quantizer = model_.quantizer(quantizers.front());
      args.channel_max = maxima(quantizers.front());
    }
    // The pool in front of the others is the only reader of the stem's output.
    args.keep_classes = args.store_z && (unit.max_pool || forward_only(model_, value));
    Activated out = norm_activate(&tape_, args);
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
      if (is_fake(model_)) codes = dequantize_tensor(codes, quantizer);
      const Variable shared(codes, Grad::kWanted);
      flow_.codes[static_cast<size_t>(q)] = shared;
      tape_.record(
          [z, shared, &quantizer] { z.accumulate(combine_gradients(z.value(), shared.grad(), Tensor(), &quantizer)); });
    }
  }

  Activated max_pool(size_t u, const Activated& in, const std::vector<int>& quantizers) {
    PoolActivateArgs args{.dequantize = is_fake(model_)};
    if (!quantizers.empty()) {
      args.quantizer = model_.quantizer(quantizers.front());
      args.channel_max = maxima(quantizers.front());
    }
    return max_pool_activate(&tape_, in.z, *net_.units[u].max_pool, args, in.backward);
  }

  Variable linear(size_t u) {
    const UnitSpec& unit = net_.units[u];
    const PoolActivateArgs args{.quantizer = model_.input_quantizer(unit),
                                .dequantize = is_fake(model_),
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
  Flow flow_;
  std::vector<NormBranch> branches_;
  std::vector<Reader> backward_;  // per value
  std::vector<Awaiting> awaiting_;
};

}  // namespace

Tensor copy_images(const Tensor& images, int64_t first, int64_t count) {
  const Tensor out(DType::u8, {count, images.dim(1), images.dim(2), images.dim(3)});
  const size_t per_image = images.bytes() / static_cast<size_t>(images.dim(0));
  std::memcpy(out.raw(), images.raw() + static_cast<size_t>(first) * per_image, out.bytes());
  return out;
}

StepWeights prepare_weights(const Model& model, Passes passes) {
  Zone zone("quantize and pack weights");
  StepWeights w;
  const size_t count = model.network.units.size();
  w.layers.resize(count);
  std::vector<std::exception_ptr> refused(count);  // of several the first layer is named, whoever is done first
  parallel_for(static_cast<int64_t>(count), [&](int64_t i) {
    const size_t u = static_cast<size_t>(i);
    const UnitSpec& unit = model.network.units[u];
    LayerWeightsArgs args;
    args.name = unit.name;
    args.shape = unit.shape;
    args.weights = model.units[u].weights;
    args.weight_bits = unit.precision.weight_bits;
    args.bf16_weights = model.network.options.bf16_weights;
    args.quantizer = is_fake(model) ? nullptr : model.input_quantizer(unit);
    args.dequantize = is_fake(model);
    args.passes = passes;
    args.first_layer = u == 0;
    try {
      w.layers[u] = prepare_layer(args);
    } catch (const Error&) {
      refused[u] = std::current_exception();
    }
  });
  for (const std::exception_ptr& e : refused)
    if (e != nullptr) std::rethrow_exception(e);
  zone.count([&] {
    int64_t bytes = 0;
    for (const UnitParameters& p : model.units) bytes += stored_bytes(p.weights);
    for (const LayerWeights& layer : w.layers) {
      bytes += stored_bytes(layer.forward.storage);
      for (const Panels& p : layer.backward) bytes += stored_bytes(p.storage);
    }
    return ZoneWork{.bytes = bytes};
  });
  return w;
}

Gradients make_gradients(const Model& model) {
  Gradients g;
  for (const UnitParameters& p : model.units) {
    UnitParameters d;
    d.weights = Tensor::zeros(DType::f32, p.weights.shape());
    if (p.gamma.defined()) d.gamma = Tensor::zeros(DType::f32, p.gamma.shape());
    if (p.beta.defined()) d.beta = Tensor::zeros(DType::f32, p.beta.shape());
    if (p.bias.defined()) d.bias = Tensor::zeros(DType::f32, p.bias.shape());
    g.units.push_back(std::move(d));
  }
  return g;
}

void Gradients::add(const Gradients& other) const {
  Zone zone("gradients, sum of shards");
  zone.count([&] {
    int64_t values = 0;
    for (const UnitParameters& p : units)
      for (const Tensor* t : {&p.weights, &p.gamma, &p.beta, &p.bias})
        if (t->defined()) values += t->size();
    return ZoneWork{.bytes = 3 * int64_t{sizeof(float)} * values};
  });
  parallel_for(static_cast<int64_t>(units.size()), [&](int64_t i) {
    const UnitParameters &mine = units[static_cast<size_t>(i)], &theirs = other.units[static_cast<size_t>(i)];
    const auto sum = [](const Tensor& a, const Tensor& b) {
      if (a.defined()) kernels::active().ew.add_f32(b.data<float>(), a.size(), a.data<float>());
    };
    sum(mine.weights, theirs.weights);
    sum(mine.gamma, theirs.gamma);
    sum(mine.beta, theirs.beta);
    sum(mine.bias, theirs.bias);
  });
}

Variable training_forward(Tape& tape, const Model& model, const StepWeights& weights, const Tensor& images,
                          const Gradients& gradients, ShardStatistics& statistics) {
  const FloatModeScope mode;
  return TrainingPass(tape, model, weights, gradients, statistics).run(images);
}

ServedAffine served_affine(const UnitSpec& unit, const UnitParameters& p, const LayerWeights& layer) {
  ServedAffine out;
  for (int64_t o = 0; o < unit.shape.oc; ++o) {
    const float rescale = layer.rescale.empty() ? 1.0f : layer.rescale[static_cast<size_t>(o)];
    if (unit.norm_name.empty()) {
      out.m.push_back(rescale);
      out.a.push_back(p.bias.data<float>()[o]);
      continue;
    }
    const float slope = p.gamma.data<float>()[o] / std::sqrt(p.running_variance.data<float>()[o] + kNormEpsilon);
    out.m.push_back(slope * rescale);
    out.a.push_back(p.beta.data<float>()[o] - p.running_mean.data<float>()[o] * slope);
  }
  return out;
}

}  // namespace nibble
