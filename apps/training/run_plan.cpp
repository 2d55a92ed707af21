#include "apps/training/run_plan.hpp"

#include "apps/console.hpp"
#include "apps/options.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/version.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::apps {

RunPlan plan_run(const TrainOptions& o, const RunData& data) {
  const Network net = build_resnet(o.network);
  check_shard(net, o.shard);
  RunPlan plan{.train_images = data.train->size(),
               .validation_images = data.validation->size(),
               .classes = data.train->num_classes(),
               .steps = o.steps > 0 ? o.steps : o.epochs * data.steps_per_epoch,
               .steps_per_epoch = data.steps_per_epoch};
  for (const UnitSpec& u : net.units) {
    plan.parameters += u.weight_count() + (u.norm_name.empty() ? u.shape.oc : 2 * u.shape.oc);
    plan.macs += u.macs();
  }
  if (!net.quantizers.empty()) plan.quantized_from = o.calibrate_step(plan.steps);
  return plan;
}

std::string plan_text(const RunPlan& p, const TrainOptions& o, const RunData& data) {
  kernels::active();  // probes the levels, which may change the one in use
  std::string text = fmt::format("nibble {}  {}, {}\n", version(), isa_explanation(), counted(threads(), "thread"));
  text += fmt::format("data   {}  train {} / val {}, {} classes, decoder {}\n", o.data, grouped(p.train_images),
                      grouped(p.validation_images), p.classes, data.decoder);
  text +=
      fmt::format("model  {} x{} {}  {} parameters, {} multiply-adds per image at {} px\n", o.network.arch,
                  o.network.width, o.network.precision, grouped(p.parameters), grouped(p.macs), o.network.image_size);
  if (!o.network.overrides.empty()) text += fmt::format("layers {}\n", overrides_text(o.network.overrides));
  text += fmt::format("plan   {} steps of {} images in shards of {} ({} per epoch), lr {} {}", grouped(p.steps),
                      o.batch_size, o.shard, p.steps_per_epoch, o.lr, o.schedule);
  if (p.quantized_from >= 0) text += fmt::format(", activations quantized from step {}", p.quantized_from);
  return text;
}

std::vector<std::string> doubts_about(const RunPlan& p, const TrainOptions& o, bool resumed) {
  std::vector<std::string> doubts;
  if (p.quantized_from > p.steps)
    doubts.push_back(
        fmt::format("--calibrate-at gives step {}, after the last of {}: activations are never quantized, and the "
                    "model cannot be exported",
                    p.quantized_from, p.steps));
  else if (p.quantized_from == p.steps)
    doubts.push_back(
        fmt::format("--calibrate-at gives step {}, the last: activations are quantized after it, and no step trains "
                    "with them",
                    p.quantized_from));
  const double warm_up = o.warmup_epochs * static_cast<double>(p.steps_per_epoch);
  if (!resumed && o.warmup_epochs > 0 && warm_up >= static_cast<double>(p.steps))
    doubts.push_back(
        fmt::format("--warmup-epochs {} are {:.0f} steps, the run has {}: the rate rises to the end; give fewer",
                    o.warmup_epochs, warm_up, p.steps));
  else if (!resumed && p.quantized_from >= 0 && static_cast<double>(p.quantized_from) < warm_up)
    doubts.push_back(fmt::format(
        "--calibrate-at gives step {}, within the warm-up of {:.0f} steps: bounds are taken from a model that "
        "still changes fast; calibrate later, or give fewer --warmup-epochs",
        p.quantized_from, warm_up));
  // Below about a hundred steps even the quickstart's small network learns little; ten are about as far back as a
  // moving average of 0.1 looks.
  constexpr int64_t kFewSteps = 100, kFewMaxima = 10;
  if (!resumed && p.steps < kFewSteps)
    doubts.push_back(fmt::format("the run has {}, {} per epoch: hardly enough to learn from; give more {}",
                                 counted(p.steps, "step"), p.steps_per_epoch,
                                 o.steps > 0 ? "--steps" : "--epochs or a smaller --batch-size"));
  else if (!resumed && p.quantized_from >= 0 && p.quantized_from < kFewMaxima)
    doubts.push_back(
        fmt::format("activation bounds are fixed after {}, from few maxima; give more --{} or a later --calibrate-at",
                    counted(p.quantized_from, "step"), o.steps > 0 ? "steps" : "epochs"));
  return doubts;
}

}  // namespace nibble::apps
