// What is measured of a model on the validation images while it trains, and how the log and the terminal say it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "apps/dataset_evaluation.hpp"
#include "data/dataset.hpp"
#include "nn/metrics_log.hpp"
#include "nn/model.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

/// How the codes are used, on 64 images all over the set: kept in the checkpoint for inspect.
/// Empty for a model that is not calibrated, and (with a warning) when those images cannot be read.
std::vector<QuantizerUsage> count_codes(const Model& model, const DatasetPtr& images);

/// Evaluates all of the set; ends early (EvaluationReport::stopped) when a signal asked to stop.
/// Errors: those of evaluate_dataset.
EvaluationReport evaluate_in_training(const Model& model, const DatasetPtr& validation, const TrainOptions& options,
                                      BadImageNames& bad_images);

/// Its line of metrics.jsonl. `step`: steps done; `epoch`: the same in epochs.
MetricsRecord evaluation_record(int64_t step, double epoch, const EvaluationReport& report);
/// Top-1 in percent of that line, if the log has one for this step.
std::optional<double> logged_top1(const std::filesystem::path& metrics, int64_t step);

/// The same for people; `best`: it is the best so far.
std::string evaluation_text(double epoch, const EvaluationReport& report, const Model& model, bool best);

}  // namespace nibble::apps
