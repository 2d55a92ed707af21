#include "nn/trainer.hpp"

#include <algorithm>
#include <cmath>

#include "engine/block_cache.hpp"
#include "engine/parallel.hpp"
#include "nn/first_layer_input.hpp"
#include "ops/softmax_cross_entropy.hpp"

namespace nibble {

namespace {

constexpr float kRunningMomentum = 0.1f;  // new = 0.9 old + 0.1 batch (METHOD.md section 1)

/// The mean of the shards' batch statistics, which are empty where there is no batch norm.
NormStatistics mean_over(const std::vector<ShardStatistics>& shards, size_t unit) {
  const float inverse = 1.0f / static_cast<float>(shards.size());
  const auto mean_of = [&](std::vector<float> NormStatistics::*field) {
    std::vector<float> sum((shards.front().norms[unit].*field).size());
    for (const ShardStatistics& shard : shards)
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += (shard.norms[unit].*field)[c];
    for (float& s : sum) s *= inverse;
    return sum;
  };
  return {.mean = mean_of(&NormStatistics::mean), .variance = mean_of(&NormStatistics::variance), .inv_std = {}};
}

/// ReLU turns a NaN into 0, so a broken layer need not show in the loss: its batch statistics always tell. Layer by
/// layer over all shards: one shard may break in a later layer than another, or in fc.
void check_finite(const Model& model, const std::vector<NormStatistics>& norms, double loss, int64_t step) {
  const auto finite = [](const std::vector<float>& v) {
    return std::all_of(v.begin(), v.end(), [](float x) { return std::isfinite(x); });
  };
  for (size_t u = 0; u < norms.size(); ++u)
    if (!finite(norms[u].mean) || !finite(norms[u].variance))
      throw DivergedError(
          "the output of {} is not finite at step {}, the first layer in which it is so; lower --lr, lengthen "
          "--warmup-epochs or set --clip-grad-norm",
          model.network.units[u].name, step);
  if (!std::isfinite(loss))
    throw DivergedError(
        "the loss is not finite at step {} although every convolution's output is (fc); lower --lr, lengthen "
        "--warmup-epochs or set --clip-grad-norm",
        step);
}

}  // namespace

void check_shard(const Network& network, int64_t shard) {
  if (shard < 1) throw UsageError("--shard is {}; use at least 1", shard);
  for (const UnitSpec& unit : network.units)
    if (unit.kind == UnitKind::kConv && shard * unit.shape.oh() * unit.shape.ow() < 2)
      throw UsageError(
          "--shard 1 at {} px leaves batch norm one value per channel after {}, and its result is always 0; use 2 or "
          "more images per shard, or larger ones",
          network.options.image_size, unit.name);
}

Trainer::Trainer(Model model, const TrainerOptions& options) : Trainer(std::move(model), options, Gradients(), 0) {
  momentum_ = make_gradients(model_);
}

Trainer::Trainer(Model model, const TrainerOptions& options, Gradients momentum, int64_t steps_done)
    : model_(std::move(model)), options_(options), momentum_(std::move(momentum)), steps_done_(steps_done) {
  if (model_.calibration_pending() && options_.calibrate_step < 1)
    throw UsageError(
        "--calibrate-at gives step {}, before any activation statistics exist; use a step of at least 1 or "
        "a larger fraction",
        options_.calibrate_step);
  check_shard(model_.network, options_.shard);
  if (options_.schedule.total_steps < 1)
    throw UsageError("the learning rate's schedule has {} steps; set Schedule::total_steps to those of the run",
                     options_.schedule.total_steps);
}

StepResult Trainer::step(const Tensor& images, std::span<const int32_t> labels) {
  check_images("train step", model_.network, images);
  const int64_t n = images.dim(0);
  if (n < 1 || n % options_.shard != 0 || static_cast<int64_t>(labels.size()) != n)
    throw ShapeError("[train step] the batch of {} images and {} labels is not a multiple of the shard size {}", n,
                     labels.size(), options_.shard);
  const int64_t shards = n / options_.shard;
  const FloatModeScope mode;
  const StepWeights weights = prepare_weights(model_, Passes::kForwardAndBackward);
  std::vector<ShardOutcome> outcomes(static_cast<size_t>(shards));
  const Shards all{weights, images, labels, outcomes};
  std::array<Gradients, 2> halves;  // of the tree, whose sum the optimizer makes
  if (shards == 1)
    halves[0] = run_shard(all, 0);
  else
    halves = run_halves(all, 0, shards, false);

  StepResult result{.images = n, .rate = options_.schedule.rate(steps_done_)};
  std::vector<ShardStatistics> statistics;
  for (ShardOutcome& o : outcomes) {
    result.loss += o.loss / static_cast<double>(shards);
    result.top1 += o.top1;
    result.top5 += o.top5;
    statistics.push_back(std::move(o.statistics));
  }
  std::vector<NormStatistics> norms;
  for (size_t u = 0; u < model_.units.size(); ++u) norms.push_back(mean_over(statistics, u));
  check_finite(model_, norms, result.loss, steps_done_);
  result.gradient_norm =
      optimizer_step(model_, halves[0], halves[1], momentum_, result.rate, options_.optimizer, steps_done_);
  return_buffer(std::move(halves[0]));
  if (shards > 1) return_buffer(std::move(halves[1]));
  update_statistics(norms, statistics);
  ++steps_done_;
  // Bounds are written once, at the end of step N-1: step N is the first quantized one.
  if (model_.calibration_pending() && steps_done_ >= options_.calibrate_step) calibrate();
  return result;
}

void Trainer::calibrate() {
  nibble::calibrate(model_);
  release_kept_blocks();  // for values in bf16; codes take less (but in fake mode)
}

/// The shards' gradients are summed in a fixed binary tree over the shard index: these are the sums of the two halves
/// of [first, last). Halves run together (`inside`: within such a half) where there are no more shards than threads, or
/// four, and one after the other above, or always with low_memory. So at most threads + log2(shards) sums are alive: 9
/// for the published 128 shards on two threads, where halves together would keep 14 of 102 MB each.
std::array<Gradients, 2> Trainer::run_halves(const Shards& all, int64_t first, int64_t last, bool inside) {
  const int64_t middle = first + (last - first + 1) / 2;
  const bool together = !options_.low_memory && (inside || last - first <= std::max(4, threads()));
  std::array<Gradients, 2> halves;
  const auto run_half = [&](int64_t half) {
    halves[static_cast<size_t>(half)] =
        half == 0 ? run_tree(all, first, middle, together) : run_tree(all, middle, last, together);
  };
  if (!together) {
    run_half(0);
    run_half(1);
  } else if (inside) {
    parallel_for(2, run_half);
  } else {
    // Whichever is done first helps with the other: cores that others use too differ by a factor of two for seconds.
    parallel_for_outermost(2, run_half);
  }
  return halves;
}

Gradients Trainer::run_tree(const Shards& all, int64_t first, int64_t last, bool inside) {
  if (last - first == 1) return run_shard(all, first);
  std::array<Gradients, 2> halves = run_halves(all, first, last, inside);
  halves[0].add(halves[1]);
  return_buffer(std::move(halves[1]));
  return std::move(halves[0]);
}

Gradients Trainer::run_shard(const Shards& all, int64_t shard) {
  ShardOutcome& outcome = all.outcomes[static_cast<size_t>(shard)];
  const int64_t first = shard * options_.shard;
  Gradients gradients = take_buffer();
  Tape tape;
  const Variable logits =
      training_forward(tape, model_, all.weights, copy_images(all.images, first, options_.shard), gradients,
                       outcome.statistics, options_.low_memory ? KeptOutputs::kNarrow : KeptOutputs::kAll);
  const TapedLoss result = softmax_cross_entropy(
      &tape, logits, all.labels.subspan(static_cast<size_t>(first), static_cast<size_t>(options_.shard)),
      {.label_smoothing = options_.label_smoothing});
  outcome.loss = static_cast<double>(*result.loss.value().data<float>());
  outcome.top1 = result.counts.top1;
  outcome.top5 = result.counts.top5;
  // The batch's loss is the mean of the shards' means.
  const Tensor seed(DType::f32, result.loss.shape());
  *seed.data<float>() = 1.0f / static_cast<float>(all.outcomes.size());
  tape.backward(result.loss, seed);
  return gradients;
}

void Trainer::update_statistics(const std::vector<NormStatistics>& norms, const std::vector<ShardStatistics>& shards) {
  const auto move_towards = [](const Tensor& running, const std::vector<float>& batch) {
    for (size_t c = 0; c < batch.size(); ++c) {
      float& r = running.data<float>()[c];
      r += kRunningMomentum * (batch[c] - r);
    }
  };
  for (size_t u = 0; u < model_.units.size(); ++u) {
    if (!model_.units[u].running_mean.defined()) continue;
    move_towards(model_.units[u].running_mean, norms[u].mean);
    move_towards(model_.units[u].running_variance, norms[u].variance);
  }
  if (model_.calibrated()) return;
  for (size_t q = 0; q < model_.calibration.size(); ++q) {
    std::vector<std::vector<float>> maxima;
    for (const ShardStatistics& s : shards) maxima.push_back(s.channel_max[q]);
    update_calibration(model_.calibration[q], model_.network.quantizers[q].granularity, std::move(maxima));
  }
}

Gradients Trainer::take_buffer() {
  {
    const std::lock_guard lock(buffers_mutex_);
    if (!buffers_.empty()) {
      Gradients g = std::move(buffers_.back());
      buffers_.pop_back();
      return g;
    }
  }
  return make_gradients(model_);
}

void Trainer::return_buffer(Gradients gradients) {
  const std::lock_guard lock(buffers_mutex_);
  buffers_.push_back(std::move(gradients));
}

}  // namespace nibble
