#include "apps/layer_sensitivity.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/options.hpp"
#include "engine/block_cache.hpp"
#include "engine/error.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/served_file.hpp"
#include "nn/runtime/served_model.hpp"

namespace nibble::apps {

namespace {

/// The same weights under other options of the network.
Model with_options(const Model& trained, const NetworkOptions& options) {
  Model model = make_model(build_resnet(options), {});
  model.units = trained.units;
  return model;
}

/// Logits of all batches, each image's less their mean.
std::vector<double> centred_logits(const Model& model, const std::vector<Tensor>& batches) {
  Executor executor(make_served(model));
  release_kept_blocks();
  std::vector<double> all;
  for (const Tensor& batch : batches) {
    const Tensor logits = executor.run(batch);
    for (int64_t i = 0; i < logits.dim(0); ++i) {
      const float* row = logits.row<float>(i);
      if (!std::all_of(row, row + logits.dim(1), [](float v) { return std::isfinite(v); }))
        throw DivergedError("logits of {} are not finite; use an earlier checkpoint",
                            network_text(model.network.options));
      double mean = 0;
      for (int64_t k = 0; k < logits.dim(1); ++k) mean += static_cast<double>(row[k]);
      mean /= static_cast<double>(logits.dim(1));
      for (int64_t k = 0; k < logits.dim(1); ++k) all.push_back(static_cast<double>(row[k]) - mean);
    }
  }
  return all;
}

double decibels(const std::vector<double>& exact, const std::vector<double>& other) {
  double power = 0, error = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    power += exact[i] * exact[i];
    error += (other[i] - exact[i]) * (other[i] - exact[i]);
  }
  return error > 0 ? 10 * std::log10(power / error) : std::numeric_limits<double>::infinity();
}

}  // namespace

Sensitivity measure_sensitivity(const SensitivityArgs& args) {
  const Network& net = args.trained.network;
  NetworkOptions plain = net.options;
  plain.precision = "bf16";
  plain.overrides.clear();
  const EachBatch each_batch = [&](const UseBatch& use) {
    for (const Tensor& batch : args.batches) use(batch);
  };
  const auto logits_of = [&](const NetworkOptions& options) {
    const Model model = quantize_after_training(with_options(args.trained, options), args.norms, each_batch);
    return centred_logits(model, args.batches);
  };
  const std::vector<double> exact = logits_of(plain);
  const auto quantized = [&](const NetworkOptions& options) { return decibels(exact, logits_of(options)); };
  const auto finer_of = [&](const Precision& p) {
    return Precision{std::max(p.weight_bits, args.finer.weight_bits),
                     std::max(p.activation_bits, args.finer.activation_bits)};
  };
  std::vector<const UnitSpec*> coarser;
  for (const UnitSpec& unit : net.units)
    if (finer_of(unit.precision) != unit.precision) coarser.push_back(&unit);
  if (coarser.empty())
    throw UsageError("every layer of {} is as fine as {}; name a finer precision for one layer at a time",
                     network_text(net.options), precision_text(args.finer));
  const int64_t total = std::ssize(coarser) + 1;
  int64_t done = 0;
  const auto tell = [&] {
    if (args.progress) args.progress(done, total);
  };
  tell();
  Sensitivity result{.decibels = quantized(net.options), .layers = {}};
  for (const UnitSpec* unit : coarser) {
    ++done;
    tell();
    NetworkOptions options = net.options;
    std::erase_if(options.overrides, [&](const PrecisionOverride& o) { return o.layer == unit->name; });
    options.overrides.push_back({unit->name, finer_of(unit->precision)});
    UnitSpec finer = *unit;
    finer.precision = finer_of(unit->precision);
    result.layers.push_back({.layer = unit->name,
                             .decibels = quantized(options),
                             .weight_bytes = static_cast<int64_t>(served_weight_bytes(finer)) -
                                             static_cast<int64_t>(served_weight_bytes(*unit))});
  }
  return result;
}

}  // namespace nibble::apps
