#include "apps/study/pick.hpp"

#include <algorithm>
#include <cmath>

#include "apps/console.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

/// One of the quantities that a budget may limit.
struct Limit {
  std::optional<double> at_most;
  double (*of)(const StudyGroup&);  // 0: not measured
  const char* unmeasured = "";      // what to say when it was measured for no model

  /// A figure that was not measured satisfies no budget.
  bool allows(const StudyGroup& g) const { return of(g) > 0 && of(g) <= *at_most; }
};

std::vector<Limit> limits_of(const Budget& b) {
  std::vector<Limit> limits = {
      {b.linear, [](const StudyGroup& g) { return g.first().ratio.linear; }},
      {b.quadratic, [](const StudyGroup& g) { return g.first().ratio.quadratic; }},
      {b.memory, [](const StudyGroup& g) { return g.first().ratio.memory; }},
      {b.bytes, [](const StudyGroup& g) { return static_cast<double>(g.first().served_bytes); },
       "no model of the study has a served file (those of --quant-mode fake have none); limit a cost: --max-memory"},
      {b.ms, [](const StudyGroup& g) { return g.latency_ms; },
       "no model of the study was timed; run nibble study measure first, or, with --quant-mode fake, limit a cost: "
       "--max-linear"}};
  std::erase_if(limits, [](const Limit& l) { return !l.at_most; });
  return limits;
}

/// Why no group satisfies the budget, and what to do.
std::string refusal(const std::vector<StudyGroup>& groups, const Budget& budget) {
  for (const Limit& limit : limits_of(budget)) {
    const auto cost = [&](const StudyGroup& g) { return limit.of(g) > 0 ? limit.of(g) : HUGE_VAL; };
    const StudyGroup& least = *std::min_element(
        groups.begin(), groups.end(), [&](const StudyGroup& a, const StudyGroup& b) { return cost(a) < cost(b); });
    if (!(limit.of(least) > 0)) return limit.unmeasured;
    if (limit.allows(least)) continue;
    return fmt::format(
        "no model of the study satisfies {}; the cheapest, {}, has {}: raise the budget or add narrower points",
        budget.text(), least.name(), costs_text(least));
  }
  return fmt::format("each of these limits has a model, but none satisfies {}; raise one of them", budget.text());
}

}  // namespace

bool Budget::allows(const StudyGroup& g) const {
  const std::vector<Limit> limits = limits_of(*this);
  return std::all_of(limits.begin(), limits.end(), [&](const Limit& l) { return l.allows(g); });
}

double Budget::cost(const StudyGroup& g) const {
  return limits_of(*this).front().of(g);
}

std::string Budget::text() const {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : " and ") + part; };
  if (linear) add(fmt::format("linear cost at most {}", *linear));
  if (quadratic) add(fmt::format("quadratic cost at most {}", *quadratic));
  if (memory) add(fmt::format("memory cost at most {}", *memory));
  if (bytes)
    add(fmt::format("at most {} bytes",
                    *bytes == std::floor(*bytes) ? grouped(static_cast<int64_t>(*bytes)) : fmt::format("{}", *bytes)));
  if (ms) add(fmt::format("at most {} ms per image", *ms));
  return text;
}

std::string costs_text(const StudyGroup& g) {
  const PointResult& p = g.first();
  return fmt::format("linear cost {:.4f}, quadratic {:.4f}, memory {:.4f}, {}, {}", p.ratio.linear, p.ratio.quadratic,
                     p.ratio.memory,
                     p.served_bytes > 0 ? grouped(static_cast<int64_t>(p.served_bytes)) + " bytes" : "not served",
                     g.latency_ms > 0 ? fmt::format("{:.2f} ms per image", g.latency_ms) : "not timed");
}

Pick pick_best(const std::vector<StudyGroup>& groups, const Budget& budget) {
  Pick pick;
  const auto cheaper = [&](const StudyGroup& a, const StudyGroup& b) {  // what was not measured comes last
    const double x = budget.cost(a), y = budget.cost(b);
    return x > 0 && (!(y > 0) || x < y);
  };
  pick.best_of_all = best_of(
      groups, [](const StudyGroup&) { return true; }, cheaper);
  for (const StudyGroup& g : groups)
    if (budget.allows(g)) pick.allowed.push_back(&g);
  std::stable_sort(pick.allowed.begin(), pick.allowed.end(), [&](const StudyGroup* a, const StudyGroup* b) {
    return a->top1.value > b->top1.value || (a->top1.value == b->top1.value && cheaper(*a, *b));
  });
  if (pick.allowed.empty()) throw UsageError("{}", refusal(groups, budget));
  pick.best = pick.allowed.front();
  for (const StudyGroup& g : groups)
    if (g.top1.value > pick.best->top1.value && (pick.next_better == nullptr || cheaper(g, *pick.next_better)))
      pick.next_better = &g;
  return pick;
}

}  // namespace nibble::apps
