#include "nn/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/parallel.hpp"
#include "engine/profiler.hpp"
#include "nn/parameter_fields.hpp"

namespace nibble {

namespace {

/// One parameter tensor with what belongs to it.
struct ParameterSlot {
  const std::string& layer;
  const ParameterField& field;
  Tensor parameter, gradient, second_half, momentum;
  double square = 0;  // sum of squared gradients
};

/// A part of one of several tensors.
struct ParameterBlock {
  size_t of = 0;
  int64_t first = 0, count = 0;
};

/// Blocks of at most `most` elements of tensors of these sizes, in order: one loop over all of them instead of one per
/// tensor, most of which have fewer blocks than a machine has threads.
std::vector<ParameterBlock> cut_into_blocks(const std::vector<int64_t>& sizes, int64_t most) {
  std::vector<ParameterBlock> blocks;
  for (size_t t = 0; t < sizes.size(); ++t)
    for (int64_t first = 0; first < sizes[t]; first += most)
      blocks.push_back({t, first, std::min(most, sizes[t] - first)});
  return blocks;
}

double square_sum(const float* p, int64_t count) {
  // Sixteen running sums, which the compiler keeps in vectors: the additions of one single sum it may not reorder.
  constexpr int64_t kLanes = 16;
  double sums[kLanes] = {};
  const auto square = [](float v) { return static_cast<double>(v) * static_cast<double>(v); };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += square(p[i + lane]);
  double sum = 0;
  for (double s : sums) sum += s;
  for (; i < count; ++i) sum += square(p[i]);
  return sum;
}

/// The sums of squares of some tensors, each in the order of its blocks; before(tensor, block) runs before each.
template <typename Before>
std::vector<double> square_sums(const std::vector<Tensor>& tensors, const Before& before) {
  constexpr int64_t kBlock = 1 << 14;
  std::vector<int64_t> sizes;
  for (const Tensor& t : tensors) sizes.push_back(t.size());
  const std::vector<ParameterBlock> blocks = cut_into_blocks(sizes, kBlock);
  std::vector<double> partial(blocks.size()), sums(tensors.size());
  parallel_for(std::ssize(blocks), [&](int64_t i) {
    const ParameterBlock& block = blocks[static_cast<size_t>(i)];
    before(block);
    partial[static_cast<size_t>(i)] = square_sum(tensors[block.of].data<float>() + block.first, block.count);
  });
  for (size_t i = 0; i < blocks.size(); ++i) sums[blocks[i].of] += partial[i];
  return sums;
}

std::vector<ParameterSlot> slots_of(const Model& model, const Gradients& gradients, const Gradients& second_half,
                                    const Gradients& momentum) {
  std::vector<ParameterSlot> slots;
  for (size_t u = 0; u < model.units.size(); ++u)
    for (const ParameterField& f : kParameterFields) {
      const Tensor& parameter = model.units[u].*f.tensor;
      if (!parameter.defined()) continue;
      slots.push_back({.layer = model.network.units[u].name,
                       .field = f,
                       .parameter = parameter,
                       .gradient = gradients.units[u].*f.tensor,
                       .second_half = second_half.units.empty() ? Tensor() : second_half.units[u].*f.tensor,
                       .momentum = momentum.units[u].*f.tensor});
    }
  return slots;
}

/// Adds the second half to each gradient, and notes its sum of squares, in one pass.
void add_halves(std::vector<ParameterSlot>& slots) {
  std::vector<Tensor> sums;
  for (const ParameterSlot& s : slots) sums.push_back(s.gradient);
  const std::vector<double> squares = square_sums(sums, [&](const ParameterBlock& block) {
    const ParameterSlot& s = slots[block.of];
    if (s.second_half.defined())
      kernels::active().ew.add_f32(s.second_half.data<float>() + block.first, block.count,
                                   s.gradient.data<float>() + block.first);
  });
  for (size_t i = 0; i < slots.size(); ++i) slots[i].square = squares[i];
}

void refuse_broken(const std::vector<ParameterSlot>& slots, int64_t step) {
  // Backward runs from the last layer to the first and carries a NaN along, so the last one found is where it began.
  const auto broken =
      std::find_if(slots.rbegin(), slots.rend(), [](const ParameterSlot& s) { return !std::isfinite(s.square); });
  if (broken != slots.rend())
    throw DivergedError(
        "the gradient of {} ({}) is not finite at step {}; lower --lr, lengthen --warmup-epochs or set "
        "--clip-grad-norm",
        broken->layer, broken->field.what, step);
}

/// What every gradient is multiplied by so that their norm exceeds `most` no more; 0: no limit.
float clip_factor(double norm, float most) {
  if (!(most > 0) || norm <= static_cast<double>(most)) return 1.0f;
  return static_cast<float>(static_cast<double>(most) / norm);
}

/// Factor of LARS for the step of a kernel: lars_coefficient * |w| / (|g| + decay * |w|), g after clipping. 1 for other
/// parameters, for zero norms, and without LARS.
std::vector<float> trusts_in(const std::vector<ParameterSlot>& slots, float clip, const OptimizerOptions& options) {
  std::vector<float> trusts(slots.size(), 1.0f);
  if (options.kind != OptimizerKind::kLars) return trusts;
  std::vector<Tensor> parameters;
  for (const ParameterSlot& s : slots) parameters.push_back(s.parameter);
  const std::vector<double> squares = square_sums(parameters, [](const ParameterBlock&) {});
  for (size_t i = 0; i < slots.size(); ++i) {
    if (!slots[i].field.kernel) continue;
    const double w = std::sqrt(squares[i]), g = std::sqrt(slots[i].square) * static_cast<double>(clip);
    const double denominator = g + static_cast<double>(options.weight_decay) * w;
    if (w > 0 && denominator > 0)
      trusts[i] = static_cast<float>(static_cast<double>(options.lars_coefficient) * w / denominator);
  }
  return trusts;
}

/// The step itself. It scales the gradients, too.
void update(const std::vector<ParameterSlot>& slots, float clip, float rate, const OptimizerOptions& options) {
  const std::vector<float> trusts = trusts_in(slots, clip, options);
  constexpr int64_t kBlock = 1 << 16;
  std::vector<int64_t> sizes;
  for (const ParameterSlot& s : slots) sizes.push_back(s.parameter.size());
  const std::vector<ParameterBlock> blocks = cut_into_blocks(sizes, kBlock);
  parallel_for(std::ssize(blocks), [&](int64_t b) {
    const auto [of, first, count] = blocks[static_cast<size_t>(b)];
    const ParameterSlot& s = slots[of];
    const float trust = trusts[of], decay = (s.field.kernel ? options.weight_decay : 0.0f) * trust,
                scale = clip * trust;
    float* const g = s.gradient.data<float>() + first;
    if (scale != 1.0f)
      for (int64_t i = 0; i < count; ++i) g[i] *= scale;
    kernels::active().ew.sgd_step(s.parameter.data<float>() + first, s.momentum.data<float>() + first, g, count, rate,
                                  options.momentum, decay, options.nesterov);
  });
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
  std::vector<ParameterSlot> slots = slots_of(model, gradients, second_half, momentum);
  add_halves(slots);
  refuse_broken(slots, step);
  zone.count([&] {  // the norm reads the gradients, so does the step, which reads and writes parameters and momentum
    int64_t bytes = 0;
    for (const ParameterSlot& s : slots)
      bytes += (s.second_half.defined() ? 8 : 6) * static_cast<int64_t>(s.parameter.bytes());
    return ZoneWork{.bytes = bytes};
  });
  double total = 0;
  for (const ParameterSlot& s : slots) total += s.square;
  const double norm = std::sqrt(total);
  update(slots, clip_factor(norm, options.clip_norm), rate, options);
  return norm;
}

}  // namespace nibble
