#include "nn/evaluate_modules.hpp"

#include <algorithm>
#include <vector>

#include "engine/parallel.hpp"
#include "nn/first_layer_input.hpp"
#include "nn/served_affine.hpp"
#include "ops/accumulators.hpp"
#include "ops/activation_codes.hpp"
#include "ops/pool_activate.hpp"
#include "ops/row_blocks.hpp"

namespace nibble {

namespace {

class ModulePass {
 public:
  ModulePass(const Model& model, const StepWeights& weights, const UnitObserver& observer)
      : model_(model), net_(model.network), weights_(weights), observer_(observer) {
    plain_.resize(net_.units.size() + 1);
    codes_.resize(net_.quantizers.size());
  }

  Tensor run(const Tensor& images) {
    plain_[kImageValue] = first_layer_input(model_, images);
    if (net_.units.front().quantizer >= 0)
      codes_[static_cast<size_t>(net_.units.front().quantizer)] = plain_[kImageValue];
    for (size_t u = 0; u < net_.units.size(); ++u) {
      const UnitSpec& unit = net_.units[u];
      if (unit.average_pool) pool(unit);
      const Tensor acc = conv_accumulators(weights_.layers[u], input_of(unit));
      const ServedAffine f = served_affine(unit, model_.units[u], weights_.layers[u].rescale);
      if (unit.kind == UnitKind::kLinear) {
        const Tensor logits(DType::f32, {images.dim(0), unit.shape.oc});
        affine_f32(acc, f, logits);
        if (observer_) observer_(u, acc, Tensor());
        return logits;
      }
      const Tensor output = finish(u, acc, f);
      if (observer_) observer_(u, acc, output);
    }
    throw ShapeError("[evaluate] the network has no linear layer");
  }

 private:
  Tensor input_of(const UnitSpec& unit) const {
    return model_.input_quantizer(unit) != nullptr ? codes_[static_cast<size_t>(unit.quantizer)]
                                                   : plain_[static_cast<size_t>(unit.input)];
  }

  void pool(const UnitSpec& unit) {
    const PoolActivateArgs args{.quantizer = model_.input_quantizer(unit), .dequantize = model_.fake()};
    const Activated out = average_pool_activate(nullptr, Variable(plain_[static_cast<size_t>(unit.input)]), args);
    plain_[static_cast<size_t>(unit.input)] = out.z.value();
    if (args.quantizer != nullptr) codes_[static_cast<size_t>(unit.quantizer)] = out.codes.value();
  }

  /// The unit's output: bf16, or the codes of its single consumer.
  Tensor finish(size_t u, const Tensor& acc, const ServedAffine& f) {
    const UnitSpec& unit = net_.units[u];
    const int value = static_cast<int>(u) + 1;
    const std::vector<int> readers = quantizers_of(net_, value);
    Tensor& plain = plain_[static_cast<size_t>(value)];
    if (!unit.relu) return plain = affine_bf16(acc, f);
    if (!rounded_before_codes(net_, value) && !readers.empty() && model_.calibrated()) {
      const int q = readers.front();
      const ActivationQuantizer& quantizer = *model_.quantizer(q);
      Tensor codes = affine_codes(acc, f, quantizer);
      if (model_.fake()) codes = dequantize_tensor(codes, quantizer);
      return codes_[static_cast<size_t>(q)] = codes;
    }
    const Tensor shortcut = unit.shortcut == kNoValue ? Tensor() : plain_[static_cast<size_t>(unit.shortcut)];
    plain = affine_relu(acc, f, shortcut);
    if (unit.max_pool) plain = max_pool_activate(nullptr, Variable(plain), *unit.max_pool).z.value();
    // fc quantizes what it has averaged (see pool()).
    if (!model_.calibrated() || read_by_average_pool(net_, value)) return plain;
    for (const int q : readers) {
      const ActivationQuantizer& quantizer = *model_.quantizer(q);
      Tensor codes = quantize_tensor(plain, quantizer);
      if (model_.fake()) codes = dequantize_tensor(codes, quantizer);
      codes_[static_cast<size_t>(q)] = codes;
    }
    return plain;
  }

  static Tensor affine_bf16(const Tensor& acc, const ServedAffine& f) {
    const Tensor out = bf16_like(acc);
    const int64_t n = acc.shape().back();
    const kernels::Rows<bf16> to{out.data<bf16>(), out.stride()};
    const auto& ew = kernels::active().ew;
    with_accumulators(acc, [&](const auto* c) {
      kernel_for(c, ew.affine_bf16_s32, ew.affine_bf16_f32)(c, n, acc.rows(), n, f.m.data(), f.a.data(), to, nullptr);
    });
    return out;
  }

  static Tensor affine_relu(const Tensor& acc, const ServedAffine& f, const Tensor& shortcut) {
    const Tensor out = bf16_like(acc);
    const int64_t n = acc.shape().back();
    kernels::AddReluArgs args;
    args.shortcut = bf16_rows(shortcut, 0);
    args.out = {out.data<bf16>(), out.stride()};
    const auto& ew = kernels::active().ew;
    with_accumulators(acc, [&](const auto* c) {
      kernel_for(c, ew.affine_add_relu_bf16_s32, ew.affine_add_relu_bf16_f32)(c, n, acc.rows(), n, f.m.data(),
                                                                              f.a.data(), args);
    });
    return out;
  }

  static Tensor affine_codes(const Tensor& acc, const ServedAffine& f, const ActivationQuantizer& q) {
    const int64_t n = acc.shape().back();
    const Tensor codes = Tensor::zeros(DType::u8, acc.shape(), code_stride(n));
    const kernels::Rows<uint8_t> to{codes.data<uint8_t>(), codes.stride()};
    const auto& ew = kernels::active().ew;
    with_accumulators(acc, [&](const auto* c) {
      kernel_for(c, ew.affine_quantize_s32, ew.affine_quantize_f32)(c, n, acc.rows(), n, f.m.data(), f.a.data(),
                                                                    q.kernel(), to);
    });
    return codes;
  }

  static void affine_f32(const Tensor& acc, const ServedAffine& f, const Tensor& logits) {
    const int64_t n = acc.shape().back();
    const kernels::Rows<float> to{logits.data<float>(), n};
    const auto& ew = kernels::active().ew;
    with_accumulators(acc, [&](const auto* c) {
      kernel_for(c, ew.affine_f32_s32, ew.affine_f32_f32)(c, n, acc.rows(), n, f.m.data(), f.a.data(), to);
    });
  }

  const Model& model_;
  const Network& net_;
  const StepWeights& weights_;
  const UnitObserver& observer_;
  std::vector<Tensor> plain_;  // per value
  std::vector<Tensor> codes_;  // per quantizer
};

}  // namespace

Tensor evaluate_modules(const Model& model, const StepWeights& weights, const Tensor& images,
                        const UnitObserver& observer) {
  const FloatModeScope mode;
  return ModulePass(model, weights, observer).run(images);
}

}  // namespace nibble
