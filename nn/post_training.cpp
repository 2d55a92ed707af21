#include "nn/post_training.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "engine/tape.hpp"
#include "engine/tensor.hpp"
#include "nn/evaluate_modules.hpp"
#include "nn/first_layer_input.hpp"
#include "nn/gradients.hpp"
#include "nn/step_weights.hpp"
#include "nn/training_forward.hpp"
#include "ops/norm_activate.hpp"
#include "ops/pool_activate.hpp"

namespace nibble {

namespace {

using ChannelMaxima = std::vector<std::vector<float>>;  // per quantizer

template <typename Values>
bool all_finite(const Values& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

/// f32, dense.
bool finite_tensor(const Tensor& t) {
  return all_finite(std::span(t.data<float>(), static_cast<size_t>(t.size())));
}

[[noreturn]] void refuse_not_finite(const UnitSpec& unit) {
  throw DivergedError(
      "the output of {} is not finite for these images, and none before it was found to be so; give weights of a "
      "training that did not diverge",
      unit.name);
}

void require_values_to_normalise(const Network& network, int64_t images) {
  for (const UnitSpec& unit : network.units)
    if (unit.kind == UnitKind::kConv && images * unit.shape.oh() * unit.shape.ow() < 2)
      throw UsageError(
          "a batch of one image leaves batch norm one value a channel after {} at {} px, so that every image gives the "
          "same result; take batches of 2 or more (--images, --batch-size), or larger images",
          unit.name, network.options.image_size);
}

void raise_to(std::vector<float>& largest, const std::vector<float>& by) {
  for (size_t c = 0; c < largest.size(); ++c) largest[c] = std::max(largest[c], by[c]);
}

/// By the values of a bf16 map.
void raise_to(std::vector<float>& largest, const Tensor& map) {
  for (int64_t r = 0; r < map.rows(); ++r) {
    const bf16* row = map.row<bf16>(r);
    for (size_t c = 0; c < largest.size(); ++c) largest[c] = std::max(largest[c], to_float(row[c]));
  }
}

/// What the quantizers of a model that is not calibrated yet would quantize, by running statistics.
ChannelMaxima evaluated_maxima(const Model& model, const StepWeights& weights, const Tensor& images) {
  const Network& net = model.network;
  ChannelMaxima maxima;
  for (const QuantizerSpec& q : net.quantizers) maxima.emplace_back(static_cast<size_t>(q.channels), 0.0f);
  if (const int q = net.units.front().quantizer; q >= 0)
    maxima[static_cast<size_t>(q)] = image_maxima(images, net.options.pixel_norm);
  const UnitObserver observer = [&](size_t u, const Tensor& sums, const Tensor& output) {
    const UnitSpec& unit = net.units[u];
    if (!finite_tensor(sums)) refuse_not_finite(unit);  // ReLU would turn a NaN into 0
    const int value = static_cast<int>(u) + 1;
    for (const int q : quantizers_of(net, value)) {
      std::vector<float>& largest = maxima[static_cast<size_t>(q)];
      if (read_by_average_pool(net, value))
        average_pool_activate(nullptr, Variable(output), {.channel_max = largest.data()});
      else
        raise_to(largest, output);
      if (!all_finite(largest)) refuse_not_finite(unit);
    }
  };
  if (!finite_tensor(evaluate_modules(model, weights, images, observer))) refuse_not_finite(net.units.back());
  return maxima;
}

/// One pass of all batches through a model, which does not change meanwhile, and what it says about it.
class PostTrainingPass {
 public:
  PostTrainingPass(const Model& model, NormSource norms)
      : model_(model), source_(norms), weights_(prepare_weights(model, Passes::kForward)) {
    norms_.resize(model.units.size());
    for (const QuantizerSpec& q : model.network.quantizers)
      maxima_.push_back({.sum = std::vector<double>(static_cast<size_t>(q.channels)),
                         .fired = std::vector<int64_t>(static_cast<size_t>(q.channels))});
  }

  void add(const Tensor& images) {
    const FloatModeScope mode;
    check_images("quantize_after_training", model_.network, images);
    if (images.dim(0) < 1) throw ShapeError("[quantize_after_training] a batch needs at least one image, got none");
    if (source_ == NormSource::kModel) {
      take_maxima(evaluate(images));
    } else {
      require_values_to_normalise(model_.network, images.dim(0));
      normalise(images);
    }
    images_ += images.dim(0);
  }

  void require_images() const {
    if (images_ == 0) throw UsageError("there are no images to quantize by; give at least one batch");
  }

  /// Bounds of a model without, and its quantizers.
  void write_bounds(Model& model) const {
    const FloatModeScope mode;
    for (size_t q = 0; q < maxima_.size(); ++q) {
      std::vector<float> mean(maxima_[q].sum.size());
      for (size_t c = 0; c < mean.size(); ++c)
        if (const int64_t fired = maxima_[q].fired[c]; fired > 0)
          mean[c] = static_cast<float>(maxima_[q].sum[c] / static_cast<double>(fired));
      Calibration& to = model.calibration[q];
      to = {.mean_of_max = std::vector<float>(mean.size()), .weight = std::vector<float>(mean.size()), .bound = {}};
      update_calibration(to, model.network.quantizers[q].granularity, {mean});
    }
    calibrate(model);
  }

  void write_norms(Model& model) const {
    const FloatModeScope mode;
    for (size_t u = 0; u < norms_.size(); ++u) {
      const auto write = [&](Tensor& statistic, const std::vector<double>& sums) {
        statistic = Tensor(DType::f32, statistic.shape());  // the given model keeps its own
        for (size_t c = 0; c < sums.size(); ++c)
          statistic.data<float>()[c] = static_cast<float>(sums[c] / static_cast<double>(images_));
      };
      if (!model.units[u].running_mean.defined()) continue;
      write(model.units[u].running_mean, norms_[u].mean);
      write(model.units[u].running_variance, norms_[u].variance);
    }
  }

 private:
  struct NormSums {
    std::vector<double> mean, variance;  // [c], of each image those of its batch
  };
  struct MaximaSums {
    std::vector<double> sum;     // [c], over batches
    std::vector<int64_t> fired;  // [c], the batches with a value above 0
  };

  ChannelMaxima evaluate(const Tensor& images) const {
    std::vector<ChannelMaxima> of_image(static_cast<size_t>(images.dim(0)));
    // One at a time on each thread: the modules keep every value, 40 MiB an image at width 1 and 224 px.
    parallel_for_refusing(images.dim(0), [&](int64_t i) {
      of_image[static_cast<size_t>(i)] = evaluated_maxima(model_, weights_, copy_images(images, i, 1));
    });
    ChannelMaxima maxima = std::move(of_image.front());
    for (size_t i = 1; i < of_image.size(); ++i)
      for (size_t q = 0; q < maxima.size(); ++q) raise_to(maxima[q], of_image[i][q]);
    return maxima;
  }

  void normalise(const Tensor& images) {
    Gradients none;  // there is no way back
    none.units.resize(model_.units.size());
    ShardStatistics statistics;
    Tape tape;
    const Variable logits = training_forward(tape, model_, weights_, images, none, statistics, KeptOutputs::kNarrow);
    const auto n = static_cast<double>(images.dim(0));
    for (size_t u = 0; u < norms_.size(); ++u) {
      const NormStatistics& batch = statistics.norms[u];
      if (!all_finite(batch.mean) || !all_finite(batch.variance)) refuse_not_finite(model_.network.units[u]);
      if (model_.units[u].gamma.defined()) {
        const NormAffine affine = norm_affine(batch, model_.units[u].gamma, model_.units[u].beta);
        if (!all_finite(affine.m) || !all_finite(affine.a)) refuse_not_finite(model_.network.units[u]);
      }
      NormSums& sums = norms_[u];
      sums.mean.resize(batch.mean.size());
      sums.variance.resize(batch.variance.size());
      for (size_t c = 0; c < batch.mean.size(); ++c) {
        sums.mean[c] += n * static_cast<double>(batch.mean[c]);
        sums.variance[c] += n * static_cast<double>(batch.variance[c]);
      }
    }
    if (!finite_tensor(logits.value())) refuse_not_finite(model_.network.units.back());
    if (model_.calibration_pending()) take_maxima(std::move(statistics.channel_max));
  }

  void take_maxima(ChannelMaxima maxima) {
    for (size_t q = 0; q < maxima_.size(); ++q) {
      if (model_.network.quantizers[q].granularity == Granularity::kPerTensor) spread_largest(maxima[q]);
      for (size_t c = 0; c < maxima[q].size(); ++c) {
        if (!(maxima[q][c] > 0)) continue;
        maxima_[q].sum[c] += static_cast<double>(maxima[q][c]);
        ++maxima_[q].fired[c];
      }
    }
  }

  const Model& model_;
  NormSource source_;
  StepWeights weights_;
  int64_t images_ = 0;
  std::vector<NormSums> norms_;     // per unit
  std::vector<MaximaSums> maxima_;  // per quantizer
};

}  // namespace

Model quantize_after_training(const Model& trained, NormSource norms, const EachBatch& each_batch) {
  Model model = trained;
  model.usage.clear();
  if (model.calibration_pending()) {
    PostTrainingPass pass(model, norms);
    each_batch([&](const Tensor& images) { pass.add(images); });
    pass.require_images();
    pass.write_bounds(model);
  }
  if (norms == NormSource::kImages) {
    PostTrainingPass pass(model, norms);
    each_batch([&](const Tensor& images) { pass.add(images); });
    pass.require_images();
    pass.write_norms(model);
  }
  return model;
}

}  // namespace nibble
