#include "apps/report/study_findings.hpp"

#include <algorithm>

#include "apps/console.hpp"
#include "apps/report/mean_difference.hpp"

namespace nibble::apps {

namespace {

constexpr double kEqualCost = 0.8;             // of the other's cost, at least
constexpr double kLeastPublishedWidth = 0.75;  // from which on the paper has w4a4-fl8 above bf16

const StudyGroup* find(const std::vector<StudyGroup>& groups, const std::string& precision, double width) {
  for (const StudyGroup& g : groups)
    if (g.precision == precision && g.width == width) return &g;
  return nullptr;
}

MeanDifference difference_in(const std::vector<StudyGroup>& groups, Estimate StudyGroup::*of) {
  std::vector<const StudyGroup*> all;
  for (const StudyGroup& g : groups) all.push_back(&g);
  return MeanDifference(of, pairing_of(all));
}

/// Each model of the precision `other` against the most accurate 4-bit one at `least` to 100 % of its cost. `chosen`:
/// whether there was a choice for any of them, so that the difference is that of the luckiest.
MeanDifference against(const std::string& other, const std::vector<StudyGroup>& groups, double least, bool& chosen) {
  MeanDifference c = difference_in(groups, &StudyGroup::top1);
  for (const StudyGroup& model : groups) {
    if (model.precision != other) continue;
    const double cost = model.first().ratio.linear;
    const auto allowed = [&](const StudyGroup& g) {
      return g.precision == "w4a4-fl8" && g.first().ratio.linear <= cost && g.first().ratio.linear >= least * cost;
    };
    chosen = chosen || std::count_if(groups.begin(), groups.end(), allowed) > 1;
    const StudyGroup* best = best_of(groups, allowed);
    if (best != nullptr) c.add(*best, model);
  }
  return c;
}

Finding dominance(const std::string& other, const std::vector<StudyGroup>& groups) {
  Finding f;
  f.claim = fmt::format("4 bits with 8-bit first and last layers (w4a4-fl8) beat {} at equal cost", other);
  bool chosen_equal = false, chosen = false;
  const MeanDifference equal = against(other, groups, kEqualCost, chosen_equal);
  const MeanDifference any = against(other, groups, 0, chosen);
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
    f.verdict = any.verdict() == Verdict::kHolds && !chosen ? Verdict::kHolds : Verdict::kNotTested;
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
  MeanDifference all = difference_in(groups, &StudyGroup::gap), eight = all, four = all;
  const auto add = [&](MeanDifference& bits, const StudyGroup& bf16, const char* precision) {
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
  MeanDifference tested = difference_in(groups, &StudyGroup::top1);
  for (const char* precision : {"w8a8", "w4a4-fl8", "w4a4"}) {
    MeanDifference all = difference_in(groups, &StudyGroup::top1);
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
  MeanDifference c = difference_in(groups, &StudyGroup::top1);
  for (const StudyGroup& g : groups)
    if (const StudyGroup* all4 = g.precision == "w4a4-fl8" ? find(groups, "w4a4", g.width) : nullptr) c.add(g, *all4);
  f.verdict = c.verdict();
  f.evidence = c.empty() ? "The study has no width with both of them."
                         : fmt::format("w4a4-fl8 is more accurate at {} of {} with both; the mean difference is {}.",
                                       c.positive(), counted(c.pairs(), "width"), c.text());
  return f;
}

}  // namespace

std::vector<Finding> findings_of(const std::vector<StudyGroup>& groups) {
  return {dominance("bf16", groups), dominance("w8a8", groups), generalization(groups), ends(groups),
          equal_width(groups)};
}

}  // namespace nibble::apps
