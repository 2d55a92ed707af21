#include "apps/dataset_evaluation.hpp"

#include <chrono>

#include "apps/console.hpp"
#include "data/loader.hpp"

namespace nibble::apps {

namespace {

/// `places`: which image of the data set each of `right` is of.
std::string outcomes_of(const std::vector<bool>& right, const std::vector<int64_t>& places, int64_t images) {
  std::string outcomes(static_cast<size_t>(images), '-');
  for (size_t i = 0; i < right.size(); ++i) outcomes[static_cast<size_t>(places[i])] = right[i] ? '1' : '0';
  return outcomes;
}

}  // namespace

EvaluationReport evaluate_dataset(const RunModel& run, const DatasetPtr& dataset, const EvalTransform& transform,
                                  const EvaluationOptions& options) {
  EvalLoader loader({.dataset = dataset,
                     .transform = transform,
                     .batch_size = options.batch_size,
                     .workers = static_cast<int>(options.loader_threads),
                     .bad_images = options.strict_data ? BadImages::error : BadImages::skip,
                     .limit = options.limit});
  Evaluation evaluation;
  const auto began = std::chrono::steady_clock::now();
  int64_t done = 0;
  std::vector<int64_t> places;
  bool stopped = false;
  while (const std::optional<Batch> batch = loader.next()) {
    const Tensor logits = run(batch->images);
    evaluation.add(logits, batch->labels);
    places.insert(places.end(), batch->indices.begin(), batch->indices.end());
    if (options.on_batch) options.on_batch(*batch, logits);
    done += batch->size();
    stopped = options.stop != nullptr && options.stop();
    if (stopped) break;
    if (interactive()) progress(fmt::format("evaluating: {} of {} images", done, loader.images_total()));
  }
  BadImageNames own;
  BadImageNames& names = options.bad_images != nullptr ? *options.bad_images : own;
  names.name_unreadable("skipped", loader.skipped());
  names.name_damaged(loader.damaged());
  names.name_turned(loader.turned());
  EvaluationReport report{.result = evaluation.result(),
                          .by_class = evaluation.by_class(),
                          .outcomes = outcomes_of(evaluation.right(), places, dataset->size()),
                          .skipped = static_cast<int64_t>(loader.skipped().size()),
                          .damaged = static_cast<int64_t>(loader.damaged().size()),
                          .stopped = stopped};
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return report;
}

}  // namespace nibble::apps
