// The charts of a study.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/report/chart.hpp"
#include "apps/report/study_data.hpp"

namespace nibble::apps {

/// Accuracy (the published metric, with its standard error) against one cost, logarithmic: a series per precision, the
/// Pareto front as steps, dominated groups hollow, and the published ImageNet points as an inset where they have that
/// cost.
Chart cost_chart(const std::vector<StudyGroup>& groups, const CostKind& cost);

/// Accuracy against width.
Chart width_chart(const std::vector<StudyGroup>& groups);

/// The published points against linear, quadratic or memory cost; null for the other kinds.
std::shared_ptr<const Chart> published_chart(const CostKind& cost);

/// Validation accuracy, or training loss, by epoch: a line per precision and seed at one width.
Chart accuracy_curves(const std::vector<StudyGroup>& groups, double width);
Chart loss_curves(const std::vector<StudyGroup>& groups, double width);

/// Ascending, each once.
std::vector<double> widths_of(const std::vector<StudyGroup>& groups);

/// "w4a4-fl8 x1: top-1 72.3 % (standard error 1.1, 2 seeds), linear cost 0.257, 8.1 MB, 9.3 ms".
std::string describe(const StudyGroup& group);

}  // namespace nibble::apps
