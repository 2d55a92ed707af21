#include "apps/training/run_evaluation.hpp"

#include <algorithm>
#include <exception>
#include <memory>

#include "apps/console.hpp"
#include "apps/signals.hpp"
#include "data/loader.hpp"
#include "data/subset.hpp"
#include "nn/activation_usage.hpp"

namespace nibble::apps {

namespace {

constexpr const char* kEvalTop1 = "eval/top1";
constexpr int64_t kUsageImages = 64;  // whose codes are counted

}  // namespace

std::vector<QuantizerUsage> count_codes(const Model& model, const DatasetPtr& images) {
  if (!model.calibrated()) return {};
  try {
    EvalLoader few({.dataset = std::make_shared<Subset>(images, SubsetArgs{.evenly = kUsageImages}),
                    .transform = eval_transform(model.network.options),
                    .batch_size = kUsageImages});
    if (const std::optional<Batch> batch = few.next()) return measure_usage(model, batch->images);
  } catch (const std::exception& e) {  // this is no reason not to save the step, nor is a lack of memory
    warn(fmt::format("the use of codes is not counted: {}", e.what()));
  }
  return {};
}

EvaluationReport evaluate_in_training(const Model& model, const DatasetPtr& validation, const TrainOptions& o,
                                      BadImageNames& bad_images) {
  return evaluate_dataset(runner_for(model), validation, eval_transform(o.network),
                          {.batch_size = 64,
                           .loader_threads = o.loader_threads,
                           .strict_data = o.strict_data,
                           .stop = stop_requested,
                           .bad_images = &bad_images});
}

MetricsRecord evaluation_record(int64_t step, double epoch, const EvaluationReport& report) {
  const EvaluationResult& r = report.result;
  return MetricsRecord()
      .add("step", step)
      .add("epoch", epoch)
      .add(kEvalTop1, r.top1_percent())
      .add("eval/top5", r.top5_percent())
      .add("eval/loss", r.loss)
      .add("eval/images", r.images)
      .add("eval/skipped", report.skipped)
      .add("eval/images_per_second", static_cast<double>(r.images) / std::max(1e-9, report.seconds));
}

std::optional<double> logged_top1(const std::filesystem::path& metrics, int64_t step) {
  return logged_value(metrics, step, kEvalTop1);
}

std::string evaluation_text(double epoch, const EvaluationReport& report, const Model& model, bool best) {
  const EvaluationResult& r = report.result;
  const char* arithmetic = !model.calibrated()          ? "bf16 activations"
                           : is_servable(model.network) ? "integer engine"
                                                        : "fake quantization";
  return fmt::format("epoch {:.4g}  eval  top1 {:.2f}  top5 {:.2f}  loss {:.3f}  [{}, {} images{}, {}]{}", epoch,
                     r.top1_percent(), r.top5_percent(), r.loss, arithmetic, r.images,
                     report.skipped > 0 ? fmt::format(" and {} skipped", report.skipped) : "", duration(report.seconds),
                     best ? "  best" : "");
}

}  // namespace nibble::apps
