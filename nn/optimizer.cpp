#include "nn/optimizer.hpp"

#include <cmath>

#include "engine/parallel.hpp"
#include "engine/profiler.hpp"

namespace nibble {

namespace {

/// One parameter tensor with what belongs to it.
struct ParameterSlot {
  Tensor parameter, gradient, second_half, momentum;
  bool kernel = false;
  const char* what = "";
  double square = 0;  // sum of squared gradients
};

/// Of t, to which `plus` is added first, if it is defined.
double square_sum(const Tensor& t, const Tensor& plus = {}) {
  constexpr int64_t kBlock = 1 << 14;
  const int64_t n = t.size(), blocks = ceil_div(n, kBlock);
  std::vector<double> partial(static_cast<size_t>(blocks));
  float* const p = t.data<float>();
  parallel_for(blocks, [&](int64_t b) {
    if (plus.defined())
      kernels::active().ew.add_f32(plus.data<float>() + b * kBlock, std::min(kBlock, n - b * kBlock), p + b * kBlock);
    // Sixteen running sums, which the compiler keeps in vectors: it may not reorder one.
    constexpr int64_t kLanes = 16;
    double sums[kLanes] = {};
    const auto square = [](float v) { return static_cast<double>(v) * static_cast<double>(v); };
    int64_t i = b * kBlock;
    const int64_t end = std::min(n, i + kBlock);
    for (; i + kLanes <= end; i += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += square(p[i + lane]);
    double& sum = partial[static_cast<size_t>(b)];
    for (double s : sums) sum += s;
    for (; i < end; ++i) sum += square(p[i]);
  });
  double sum = 0;
  for (double v : partial) sum += v;
  return sum;
}

std::vector<ParameterSlot> slots_of(const UnitParameters& p, const UnitParameters& g, const UnitParameters& half,
                                    const UnitParameters& m) {
  std::vector<ParameterSlot> slots;
  const auto push = [&](Tensor UnitParameters::*tensor, bool kernel, const char* what) {
    if ((p.*tensor).defined()) slots.push_back({p.*tensor, g.*tensor, half.*tensor, m.*tensor, kernel, what});
  };
  push(&UnitParameters::weights, true, "weights");
  push(&UnitParameters::gamma, false, "batch norm scale");
  push(&UnitParameters::beta, false, "batch norm shift");
  push(&UnitParameters::bias, false, "bias");
  return slots;
}

/// What LARS multiplies the step of a kernel with: the norm of its weights over that of what they change by. 1 for
/// other parameters, and without LARS.
float trust_in(const ParameterSlot& s, float decay, float clip, const OptimizerOptions& options) {
  if (options.kind != OptimizerKind::kLars || !s.kernel) return 1.0f;
  const double w = std::sqrt(square_sum(s.parameter)), g = std::sqrt(s.square) * static_cast<double>(clip);
  const double denominator = g + static_cast<double>(decay) * w;
  if (!(w > 0 && denominator > 0)) return 1.0f;
  return static_cast<float>(static_cast<double>(options.lars_coefficient) * w / denominator);
}

}  // namespace

OptimizerKind optimizer_kind(const std::string& name) {
  if (name == "sgd") return OptimizerKind::kSgd;
  if (name == "lars") return OptimizerKind::kLars;
  throw UsageError("--optimizer is '{}'; use sgd or lars", name);
}

double optimizer_step(Model& model, Gradients& gradients, const Gradients& second_half, Gradients& momentum, float rate,
                      const OptimizerOptions& options, int64_t step) {
  Zone zone("optimizer");
  const FloatModeScope mode;
  std::vector<ParameterSlot> slots;
  double total = 0;
  // Backward runs from the last layer to the first and carries a NaN along, so the last one found is where it began.
  std::pair<const std::string*, const char*> broken{nullptr, ""};
  for (size_t u = 0; u < model.units.size(); ++u) {
    const UnitParameters half = second_half.units.empty() ? UnitParameters() : second_half.units[u];
    for (ParameterSlot& slot : slots_of(model.units[u], gradients.units[u], half, momentum.units[u])) {
      slot.square = square_sum(slot.gradient, slot.second_half);
      if (!std::isfinite(slot.square)) broken = {&model.network.units[u].name, slot.what};
      total += slot.square;
      slots.push_back(slot);
    }
  }
  if (broken.first != nullptr)
    throw DivergedError(
        "the gradient of {} ({}) is not finite at step {}; lower --lr, lengthen --warmup-epochs or set "
        "--clip-grad-norm",
        *broken.first, broken.second, step);
  zone.count([&] {  // the norm reads the gradients, the step too; it reads and writes parameters and momentum
    int64_t bytes = 0;
    for (const ParameterSlot& s : slots)
      bytes += (s.second_half.defined() ? 8 : 6) * static_cast<int64_t>(s.parameter.bytes());
    return ZoneWork{.bytes = bytes};
  });
  const double norm = std::sqrt(total);
  const float clip = options.clip_norm > 0 && norm > static_cast<double>(options.clip_norm)
                         ? static_cast<float>(static_cast<double>(options.clip_norm) / norm)
                         : 1.0f;
  constexpr int64_t kBlock = 1 << 16;
  for (const ParameterSlot& s : slots) {
    const float full_decay = s.kernel ? options.weight_decay : 0.0f, trust = trust_in(s, full_decay, clip, options);
    const float decay = full_decay * trust, scale = clip * trust;
    const int64_t n = s.parameter.size();
    parallel_for(ceil_div(n, kBlock), [&](int64_t b) {
      const int64_t first = b * kBlock, count = std::min(kBlock, n - first);
      float* g = s.gradient.data<float>() + first;
      if (scale != 1.0f)
        for (int64_t i = 0; i < count; ++i) g[i] *= scale;
      kernels::active().ew.sgd_step(s.parameter.data<float>() + first, s.momentum.data<float>() + first, g, count, rate,
                                    options.momentum, decay, options.nesterov);
    });
  }
  return norm;
}

}  // namespace nibble
