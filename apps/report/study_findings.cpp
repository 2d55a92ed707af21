#include "apps/report/study_findings.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "apps/console.hpp"
#include "apps/report/statistics.hpp"
#include "apps/report/svg.hpp"

namespace nibble::apps {

namespace {

constexpr double kEqualCost = 0.8;             // of the other's cost, at least
constexpr double kLeastPublishedWidth = 0.75;  // from which on the paper has w4a4-fl8 above bf16

const StudyGroup* find(const std::vector<StudyGroup>& groups, const std::string& precision, double width) {
  for (const StudyGroup& g : groups)
    if (g.precision == precision && g.width == width) return &g;
  return nullptr;
}

/// The mean difference of one estimate over pairs of groups. A group may be in several pairs, so the error comes from
/// the weight each group has in the mean.
class Comparison {
 public:
  explicit Comparison(Estimate StudyGroup::*of) : of_(of) {}

  void add(const StudyGroup& a, const StudyGroup& b) {
    differences_.push_back((a.*of_).value - (b.*of_).value);
    weight_[&a] += 1;
    weight_[&b] -= 1;
  }
  bool empty() const { return differences_.empty(); }
  int64_t pairs() const { return static_cast<int64_t>(differences_.size()); }
  int64_t positive() const {
    return std::count_if(differences_.begin(), differences_.end(), [](double d) { return d > 0; });
  }
  double value() const { return mean(differences_); }
  double error() const {
    return std::sqrt(variance(&Estimate::error)) / static_cast<double>(std::max<int64_t>(1, pairs()));
  }
  Verdict verdict() const {
    if (empty()) return Verdict::kNotTested;
    const double decisive = decisive_errors(freedom()) * error();
    if (value() > decisive) return Verdict::kHolds;
    return value() < -decisive ? Verdict::kContradicted : Verdict::kUndecided;
  }
  std::string text() const {
    return fmt::format("{}{} points (standard error {}{})", value() >= 0 ? "+" : "", decimal(value(), 2),
                       decimal(error(), 2), variance(&Estimate::seed_error) > 0 ? "" : ", of the images alone");
  }

 private:
  /// Of the sum of differences.
  double variance(double Estimate::*part) const {
    double sum = 0;
    for (const auto& [group, weight] : weight_) sum += std::pow(weight * (group->*of_.*part), 2);
    return sum;
  }
  /// Welch and Satterthwaite: the part of the images is as good as known, that of the seeds has a few degrees of
  /// freedom.
  double freedom() const {
    const double all = variance(&Estimate::error), seeds = variance(&Estimate::seed_error);
    const double known = static_cast<double>((weight_.begin()->first->*of_).freedom);
    return seeds > 0 ? known * std::pow(all / seeds, 2) : std::numeric_limits<double>::infinity();
  }

  Estimate StudyGroup::*of_;
  std::vector<double> differences_;
  std::map<const StudyGroup*, double> weight_;
};

/// Each model of the precision `other` against the most accurate 4-bit one at `least` to 100 % of its cost.
Comparison against(const std::string& other, const std::vector<StudyGroup>& groups, double least) {
  Comparison c(&StudyGroup::top1);
  for (const StudyGroup& model : groups) {
    if (model.precision != other) continue;
    const double cost = model.first().ratio.linear;
    const StudyGroup* best = best_of(groups, [&](const StudyGroup& g) {
      return g.precision == "w4a4-fl8" && g.first().ratio.linear <= cost && g.first().ratio.linear >= least * cost;
    });
    if (best != nullptr) c.add(*best, model);
  }
  return c;
}

Finding dominance(const std::string& other, const std::vector<StudyGroup>& groups) {
  Finding f;
  f.claim = fmt::format("4 bits with 8-bit first and last layers (w4a4-fl8) beat {} at equal cost", other);
  const Comparison equal = against(other, groups, kEqualCost), any = against(other, groups, 0);
  const auto models = [&](int64_t n) {
    return n == 1 ? fmt::format("one {} model", other) : fmt::format("each of {} {} models", n, other);
  };
  if (!equal.empty()) {
    f.verdict = equal.verdict();
    f.evidence = fmt::format(
        "Compared with {}, the best w4a4-fl8 model of 80 to 100 % of its linear cost is more accurate in {}; the mean "
        "difference is {}.",
        models(equal.pairs()), counted(equal.positive(), "case"), equal.text());
    const int64_t all =
        std::count_if(groups.begin(), groups.end(), [&](const StudyGroup& g) { return g.precision == other; });
    if (const int64_t alone = all - equal.pairs(); alone > 0)
      f.evidence += fmt::format(" {} of equal cost.",
                                alone == 1 ? fmt::format("Another {} model has no w4a4-fl8 model", other)
                                           : fmt::format("{} other {} models have no w4a4-fl8 model", alone, other));
  } else if (!any.empty()) {
    f.verdict = any.verdict() == Verdict::kHolds ? Verdict::kHolds : Verdict::kNotTested;
    f.evidence = fmt::format(
        "The study has no w4a4-fl8 model of 80 to 100 % of the linear cost of one in {}. Compared with {}, the best "
        "that is cheaper still is more accurate in {}; the mean difference is {}.",
        other, models(any.pairs()), counted(any.positive(), "case"), any.text());
  } else {
    f.evidence = fmt::format("The study has no w4a4-fl8 model that costs at most as much as one in {}.", other);
  }
  return f;
}

/// The gap of bf16 against that of 8 and of 4 bits, width by width.
Finding generalization(const std::vector<StudyGroup>& groups) {
  Finding f;
  f.claim = "fewer bits leave a smaller gap between training and validation accuracy";
  Comparison eight(&StudyGroup::gap), four(&StudyGroup::gap), all(&StudyGroup::gap);
  const auto add = [&](Comparison& bits, const StudyGroup& bf16, const char* precision) {
    const StudyGroup* const g = find(groups, precision, bf16.width);
    if (g == nullptr) return;
    bits.add(bf16, *g);
    all.add(bf16, *g);
  };
  for (const StudyGroup& bf16 : groups) {
    if (bf16.precision != "bf16") continue;
    add(eight, bf16, "w8a8");
    for (const char* precision : {"w4a4-fl8", "w4a4"}) add(four, bf16, precision);
  }
  if (all.empty()) {
    f.evidence = "The study has no width with both bf16 and fewer bits.";
    return f;
  }
  f.verdict = all.verdict();  // one test of all pairs: the better of two would hold by chance twice as often
  f.evidence = "At equal width, the gap of bf16 (training images without augmentation, last epoch) less";
  if (!eight.empty()) f.evidence += " that of 8 bits is " + eight.text();
  if (!four.empty()) f.evidence += (eight.empty() ? "" : ", less") + std::string(" that of 4 bits is ") + four.text();
  if (!eight.empty() && !four.empty()) f.evidence += "; over both " + all.text();
  f.evidence += ".";
  return f;
}

/// What fewer bits cost when the network keeps its width.
Finding equal_width(const std::vector<StudyGroup>& groups) {
  Finding f;
  f.claim = "w4a4-fl8 is at least as accurate as bf16 at equal width, from 0.75 on";
  Comparison tested(&StudyGroup::top1);
  for (const char* precision : {"w8a8", "w4a4-fl8", "w4a4"}) {
    Comparison all(&StudyGroup::top1);
    for (const StudyGroup& bf16 : groups) {
      const StudyGroup* g = bf16.precision == "bf16" ? find(groups, precision, bf16.width) : nullptr;
      if (g == nullptr) continue;
      all.add(*g, bf16);
      if (g->precision == "w4a4-fl8" && g->width >= kLeastPublishedWidth) tested.add(*g, bf16);
    }
    if (all.empty()) continue;
    f.evidence += fmt::format("{}{} less bf16 is {} over {}", f.evidence.empty() ? "At equal width " : ", ", precision,
                              all.text(), counted(all.pairs(), "width"));
  }
  f.verdict = tested.verdict();
  f.evidence = f.evidence.empty() ? "The study has no width with both bf16 and fewer bits." : f.evidence + ".";
  if (!tested.empty()) f.evidence += fmt::format(" From 0.75 on, w4a4-fl8 less bf16 is {}.", tested.text());
  return f;
}

Finding ends(const std::vector<StudyGroup>& groups) {
  Finding f;
  f.claim = "8-bit first and last layers (w4a4-fl8) are better than 4 bits everywhere (w4a4)";
  Comparison c(&StudyGroup::top1);
  for (const StudyGroup& g : groups)
    if (const StudyGroup* all4 = g.precision == "w4a4-fl8" ? find(groups, "w4a4", g.width) : nullptr) c.add(g, *all4);
  f.verdict = c.verdict();
  f.evidence = c.empty() ? "The study has no width with both of them."
                         : fmt::format("w4a4-fl8 is more accurate at {} of {} with both; the mean difference is {}.",
                                       c.positive(), counted(c.pairs(), "width"), c.text());
  return f;
}

}  // namespace

std::string name_of(Verdict v) {
  switch (v) {
    case Verdict::kHolds:
      return "holds";
    case Verdict::kContradicted:
      return "contradicted";
    case Verdict::kUndecided:
      return "undecided";
    case Verdict::kNotTested:
      return "not tested";
  }
  return "";
}

std::vector<Finding> findings_of(const std::vector<StudyGroup>& groups) {
  return {dominance("bf16", groups), dominance("w8a8", groups), generalization(groups), ends(groups),
          equal_width(groups)};
}

}  // namespace nibble::apps
