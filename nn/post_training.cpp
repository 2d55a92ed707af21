#include "nn/post_training.hpp"

#include <algorithm>
#include <cmath>

#include "engine/parallel.hpp"
#include "nn/evaluate_modules.hpp"
#include "nn/first_layer_input.hpp"
#include "ops/pool_activate.hpp"

namespace nibble {

namespace {

using ChannelMaxima = std::vector<std::vector<float>>;  // per quantizer

bool finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

[[noreturn]] void refuse_not_finite(const UnitSpec& unit) {
  throw DivergedError(
      "the output of {} is not finite for these images, the first layer in which it is so; give weights of a training "
      "that did not diverge",
      unit.name);
}

ChannelMaxima no_maxima(const Network& network) {
  ChannelMaxima maxima;
  for (const QuantizerSpec& q : network.quantizers) maxima.emplace_back(static_cast<size_t>(q.channels), 0.0f);
  return maxima;
}

/// The largest value of each channel of a bf16 map, as training's passes gather it.
void raise_to(std::vector<float>& largest, const Tensor& map) {
  for (int64_t r = 0; r < map.rows(); ++r) {
    const bf16* row = map.row<bf16>(r);
    for (size_t c = 0; c < largest.size(); ++c) largest[c] = std::max(largest[c], to_float(row[c]));
  }
}

/// What the quantizers of a model that is not calibrated yet would quantize, by running statistics.
ChannelMaxima evaluated_maxima(const Model& model, const StepWeights& weights, const Tensor& images) {
  ChannelMaxima maxima = no_maxima(model.network);
  if (const int q = model.network.units.front().quantizer; q >= 0)
    maxima[static_cast<size_t>(q)] = image_maxima(images);
  evaluate_modules(model, weights, images, [&](const UnitSpec& unit, const Tensor&, const Tensor& output) {
    const int value = model.network.unit_index(unit.name) + 1;
    for (const int q : quantizers_of(model.network, value)) {
      std::vector<float>& largest = maxima[static_cast<size_t>(q)];
      if (read_by_average_pool(model.network, value))
        average_pool_activate(nullptr, Variable(output), {.channel_max = largest.data()});
      else
        raise_to(largest, output);
      if (!finite(largest)) refuse_not_finite(unit);
    }
  });
  return maxima;
}

}  // namespace

PostTrainingPass::PostTrainingPass(Model& model, NormSource norms)
    : model_(model), source_(norms), weights_(prepare_weights(model, Passes::kForward)) {
  norms_.resize(model.units.size());
  maxima_.resize(model.network.quantizers.size());
}

void PostTrainingPass::add(const Tensor& images) {
  check_images("post-training pass", model_.network, images);
  if (images.dim(0) < 1) throw ShapeError("[post-training pass] a batch needs at least one image, got none");
  source_ == NormSource::kModel ? add_evaluated(images) : add_normalised(images);
  ++batches_;
}

void PostTrainingPass::add_evaluated(const Tensor& images) {
  if (!model_.calibration_pending()) return;
  constexpr int64_t kImagesAtOnce = 4;  // the modules keep every value: 40 MiB an image at width 1 and 224 px
  const int64_t n = images.dim(0), parts = ceil_div(n, kImagesAtOnce);
  std::vector<ChannelMaxima> of_part(static_cast<size_t>(parts));
  parallel_for(parts, [&](int64_t p) {
    const int64_t first = p * kImagesAtOnce;
    of_part[static_cast<size_t>(p)] =
        evaluated_maxima(model_, weights_, copy_images(images, first, std::min(kImagesAtOnce, n - first)));
  });
  ChannelMaxima maxima = std::move(of_part.front());
  for (size_t p = 1; p < of_part.size(); ++p)
    for (size_t q = 0; q < maxima.size(); ++q)
      for (size_t c = 0; c < maxima[q].size(); ++c) maxima[q][c] = std::max(maxima[q][c], of_part[p][q][c]);
  take(std::move(maxima));
}

void PostTrainingPass::add_normalised(const Tensor& images) {
  Gradients none;  // there is no way back
  none.units.resize(model_.units.size());
  ShardStatistics statistics;
  Tape tape;
  training_forward(tape, model_, weights_, images, none, statistics, KeptOutputs::kNarrow);
  for (size_t u = 0; u < norms_.size(); ++u) {
    const NormStatistics& batch = statistics.norms[u];
    if (!finite(batch.mean) || !finite(batch.variance)) refuse_not_finite(model_.network.units[u]);
    NormSums& sums = norms_[u];
    sums.mean.resize(batch.mean.size());
    sums.variance.resize(batch.variance.size());
    for (size_t c = 0; c < batch.mean.size(); ++c) {
      sums.mean[c] += static_cast<double>(batch.mean[c]);
      sums.variance[c] += static_cast<double>(batch.variance[c]);
    }
  }
  if (model_.calibration_pending()) take(std::move(statistics.channel_max));
}

void PostTrainingPass::take(ChannelMaxima channel_max) {
  for (size_t q = 0; q < maxima_.size(); ++q) maxima_[q].push_back(std::move(channel_max[q]));
}

void PostTrainingPass::finish() {
  if (batches_ == 0) throw UsageError("there are no images to take statistics of; add at least one batch");
  const FloatModeScope mode;
  if (source_ == NormSource::kImages) {
    const double share = 1.0 / static_cast<double>(batches_);
    for (size_t u = 0; u < norms_.size(); ++u)
      for (size_t c = 0; c < norms_[u].mean.size(); ++c) {
        model_.units[u].running_mean.data<float>()[c] = static_cast<float>(norms_[u].mean[c] * share);
        model_.units[u].running_variance.data<float>()[c] = static_cast<float>(norms_[u].variance[c] * share);
      }
  }
  if (!model_.calibration_pending()) return;
  // All batches in one update of the moving average, which weighs them alike.
  for (size_t q = 0; q < maxima_.size(); ++q)
    update_calibration(model_.calibration[q], model_.network.quantizers[q].granularity, std::move(maxima_[q]));
  calibrate(model_);
}

}  // namespace nibble
