#include "apps/study/pick.hpp"

#include <algorithm>

#include "apps/console.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

/// A figure that was not measured (0) satisfies no budget.
bool within(const std::optional<double>& limit, double value) {
  return !limit || (value > 0 && value <= *limit);
}

}  // namespace

bool Budget::allows(const StudyGroup& g) const {
  const PointResult& p = g.first();
  return within(linear, p.ratio.linear) && within(quadratic, p.ratio.quadratic) && within(memory, p.ratio.memory) &&
         within(bytes, static_cast<double>(p.served_bytes)) && within(ms, g.latency_ms);
}

double Budget::cost(const StudyGroup& g) const {
  const PointResult& p = g.first();
  if (linear) return p.ratio.linear;
  if (quadratic) return p.ratio.quadratic;
  if (memory) return p.ratio.memory;
  return bytes ? static_cast<double>(p.served_bytes) : g.latency_ms;
}

std::string Budget::text() const {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : " and ") + part; };
  if (linear) add(fmt::format("linear cost at most {}", *linear));
  if (quadratic) add(fmt::format("quadratic cost at most {}", *quadratic));
  if (memory) add(fmt::format("memory cost at most {}", *memory));
  if (bytes) add(fmt::format("at most {} bytes", grouped(static_cast<int64_t>(*bytes))));
  if (ms) add(fmt::format("at most {} ms an image", *ms));
  return text;
}

std::string costs_text(const StudyGroup& g) {
  const PointResult& p = g.first();
  return fmt::format("linear cost {:.4f}, quadratic {:.4f}, memory {:.4f}, {}, {}", p.ratio.linear, p.ratio.quadratic,
                     p.ratio.memory,
                     p.served_bytes > 0 ? grouped(static_cast<int64_t>(p.served_bytes)) + " bytes" : "not served",
                     g.latency_ms > 0 ? fmt::format("{:.2f} ms an image", g.latency_ms) : "not timed");
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
  if (pick.allowed.empty()) {
    const StudyGroup& least = *std::min_element(groups.begin(), groups.end(), cheaper);
    throw UsageError(
        "no model of the study satisfies {}; the cheapest, {}, has {}: raise the budget or add narrower points",
        budget.text(), least.name(), costs_text(least));
  }
  pick.best = pick.allowed.front();
  for (const StudyGroup& g : groups)
    if (g.top1.value > pick.best->top1.value && (pick.next_better == nullptr || cheaper(g, *pick.next_better)))
      pick.next_better = &g;
  return pick;
}

}  // namespace nibble::apps
