// The best model of a study under a budget, and what the budget costs.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "apps/report/study_data.hpp"

namespace nibble::apps {

/// Limits that must all hold; giving none is an error of the caller.
struct Budget {
  std::optional<double> linear = {}, quadratic = {}, memory = {};  // ratios to bf16 at width 1
  std::optional<double> bytes = {};                                // of the served file
  std::optional<double> ms = {};                                   // of one image a call, on the machine that measured

  bool empty() const { return !linear && !quadratic && !memory && !bytes && !ms; }
  bool allows(const StudyGroup& g) const;
  /// The first of the limited costs: what "cheap" means under this budget. 0: not measured.
  double cost(const StudyGroup& g) const;
  std::string text() const;  // "linear cost at most 0.15 and at most 5,000,000 bytes"
};

/// "Cheapest" is by Budget::cost.
struct Pick {
  std::vector<const StudyGroup*> allowed = {};  // by the budget: the most accurate first, among equals the cheapest
  const StudyGroup* best = nullptr;             // the first of them
  const StudyGroup* best_of_all = nullptr;      // the same without a budget
  const StudyGroup* next_better = nullptr;      // the cheapest that beats it; null: none does
};

/// "linear cost 0.2573, quadratic 0.0680, memory 0.2702, 13,793,024 bytes, 4.10 ms per image"
std::string costs_text(const StudyGroup& g);

/// Groups are compared by the published metric, mean over the seeds. `budget` is not empty. UsageError when it
/// allows none, naming the cheapest group by the first limit that no group satisfies.
Pick pick_best(const std::vector<StudyGroup>& groups, const Budget& budget);

}  // namespace nibble::apps
