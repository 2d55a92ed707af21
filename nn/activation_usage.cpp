#include "nn/activation_usage.hpp"

#include <algorithm>
#include <cmath>

#include "engine/parallel.hpp"
#include "nn/evaluate_modules.hpp"
#include "nn/first_layer_input.hpp"
#include "nn/served_affine.hpp"
#include "ops/pool_activate.hpp"

namespace nibble {

namespace {

/// Images that go through the modules together, which keep every value: ResNet-50 x0.5 at 224 px, trained in batches of
/// 8, took 291 MiB with 10 validation images and 848 with 80 when 64 of them went through at once.
constexpr int64_t kImagesAtOnce = 4;

void add(QuantizerUsage& sum, const QuantizerUsage& part) {
  for (size_t i = 0; i < sum.codes.size(); ++i) sum.codes[i] += part.codes[i];
  sum.clipped += part.clipped;
  sum.total += part.total;
}

class UsageCounter {
 public:
  UsageCounter(const Model& model, const StepWeights& weights) : model_(model), weights_(weights) {
    for (const ActivationQuantizer& q : model.quantizers) {
      kernels_.push_back(q.kernel());
      usage_.push_back({.codes = std::vector<int64_t>(static_cast<size_t>(
                            q.is_signed ? 2 * static_cast<int64_t>(q.top()) + 1 : int64_t{1} << q.bits)),
                        .clipped = 0,
                        .total = 0});
    }
  }

  void image(const Tensor& images) {
    const int q = model_.network.units.front().quantizer;
    if (q < 0) return;
    const PixelNorm& norm = model_.network.options.pixel_norm;
    for (int64_t i = 0; i < images.size(); ++i) {
      const int c = static_cast<int>(i % 3);
      count(q, c, norm.value(images.data<uint8_t>()[i], static_cast<size_t>(c)));
    }
  }

  void unit(size_t u, const Tensor& acc, const Tensor& output) {
    const Network& net = model_.network;
    const UnitSpec& spec = net.units[u];
    const int value = static_cast<int>(u) + 1;
    if (spec.average_pool || !spec.relu) return;
    const std::vector<int> readers = quantizers_of(net, value);
    if (readers.empty()) return;
    const bool pooled = read_by_average_pool(net, value);
    if (rounded_before_codes(net, value)) {
      for (int q : readers) pooled ? averages(q, output) : plain(q, output);
    } else {
      // The single reader's codes were made from the fp32 value, which only the accumulator still holds.
      const ServedAffine f = served_affine(spec, model_.units[u], weights_.layers[u].rescale);
      const int64_t n = acc.shape().back();
      const bool integer = acc.dtype() == DType::s32;  // f32 in fake mode and after a layer left in bf16
      for (int64_t i = 0; i < acc.size(); ++i) {
        const size_t c = static_cast<size_t>(i % n);
        const float sum = integer ? static_cast<float>(acc.data<int32_t>()[i]) : acc.data<float>()[i];
        const float product = sum * f.m[c];
        count(readers.front(), static_cast<int>(c), product + f.a[c]);
      }
    }
  }

  std::vector<QuantizerUsage> result() { return std::move(usage_); }

 private:
  void plain(int q, const Tensor& z) {
    const int64_t c = z.shape().back();
    for (int64_t r = 0; r < z.rows(); ++r)
      for (int64_t i = 0; i < c; ++i) count(q, static_cast<int>(i), to_float(z.row<bf16>(r)[i]));
  }

  void averages(int q, const Tensor& z) { plain(q, average_pool_activate(nullptr, Variable(z)).z.value()); }

  void count(int q, int channel, float v) {
    const ActivationQuantizer& a = model_.quantizers[static_cast<size_t>(q)];
    QuantizerUsage& u = usage_[static_cast<size_t>(q)];
    const float t = v * a.scale[static_cast<size_t>(channel)];
    ++u.total;
    if (a.is_signed) {
      u.clipped += std::fabs(t) > a.top();
      ++u.codes[static_cast<size_t>(a.signed_code(v, static_cast<size_t>(channel)) + static_cast<int>(a.top()))];
    } else {
      const kernels::UnsignedQuantizer& k = kernels_[static_cast<size_t>(q)];
      u.clipped += t >= k.end;
      ++u.codes[t > 0 ? static_cast<size_t>(std::min(t + k.offset, k.top)) : 0];  // NaN: code 0, as the kernels have it
    }
  }

  const Model& model_;
  const StepWeights& weights_;
  std::vector<kernels::UnsignedQuantizer> kernels_;  // by quantizer; those of signed ones are not read
  std::vector<QuantizerUsage> usage_;
};

}  // namespace

std::vector<QuantizerUsage> measure_usage(const Model& model, const Tensor& images) {
  check_images("usage", model.network, images);
  if (!model.calibrated()) return {};
  const StepWeights weights = prepare_weights(model, Passes::kForward);
  const int64_t n = images.dim(0), parts = ceil_div(n, kImagesAtOnce);
  std::vector<std::vector<QuantizerUsage>> counts(static_cast<size_t>(parts));
  parallel_for(parts, [&](int64_t p) {
    const Tensor some = copy_images(images, p * kImagesAtOnce, std::min(kImagesAtOnce, n - p * kImagesAtOnce));
    UsageCounter counter(model, weights);
    counter.image(some);
    evaluate_modules(model, weights, some,
                     [&](size_t u, const Tensor& acc, const Tensor& output) { counter.unit(u, acc, output); });
    counts[static_cast<size_t>(p)] = counter.result();
  });
  std::vector<QuantizerUsage> sum = UsageCounter(model, weights).result();
  for (const std::vector<QuantizerUsage>& part : counts)
    for (size_t q = 0; q < sum.size(); ++q) add(sum[q], part[q]);
  return sum;
}

}  // namespace nibble
