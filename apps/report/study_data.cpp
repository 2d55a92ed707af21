#include "apps/report/study_data.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "apps/console.hpp"
#include "apps/report/paired_accuracy.hpp"
#include "apps/report/statistics.hpp"
#include "apps/report/svg.hpp"
#include "engine/error.hpp"
#include "nn/study/point_layers.hpp"

namespace nibble::apps {

namespace {

constexpr int64_t kFewOf = 100;  // one of so many validation images may be missing

int rank_of(const std::string& precision) {
  constexpr const char* kOrder[] = {"bf16", "w8a8", "w4a4-fl8", "w4a4"};
  const auto found = std::find(std::begin(kOrder), std::end(kOrder), precision);
  return static_cast<int>(found - std::begin(kOrder));
}

using Value = double (*)(const PointResult&);

double best_top1(const PointResult& p) {
  return p.best.top1;
}
double last_top1(const PointResult& p) {
  return p.last.top1;
}
double train_top1(const PointResult& p) {
  return p.train_unaugmented.top1;
}
double gap(const PointResult& p) {
  return train_top1(p) - last_top1(p);
}

std::vector<double> values_of(const StudyGroup& group, Value value) {
  std::vector<double> all;
  for (const PointResult* p : group.points) all.push_back(value(*p));
  return all;
}

/// Standard deviation of one training over its seeds, pooled over the groups that have several; 0 where none has.
double spread_over_seeds(const std::vector<StudyGroup>& groups, Value value) {
  double squares = 0;
  for (const StudyGroup& g : groups)
    squares += std::pow(standard_deviation(values_of(g, value)), 2) * static_cast<double>(g.points.size() - 1);
  const int64_t freedom = seed_freedom(groups);
  return freedom > 0 ? std::sqrt(squares / static_cast<double>(freedom)) : 0;
}

double outcome_variance_of(const std::vector<StudyGroup>& groups) {
  double sum = 0, freedom = 0;
  for (const StudyGroup& g : groups) {
    const auto more = static_cast<double>(g.points.size() - 1);
    if (more == 0 || !judged_on_same_images(g.points)) continue;
    sum += more * variance_over_points(g.points);
    freedom += more;
  }
  return freedom > 0 ? sum / freedom : 0;
}

struct Spreads {
  double best, last, train, gap;
  int64_t freedom;
};

void fill(StudyGroup& g, const Spreads& spreads) {
  const double seeds = std::sqrt(static_cast<double>(g.points.size()));
  const auto accuracy = [&](Value value, int64_t images, double spread) -> Estimate {
    const double centre = mean(values_of(g, value)), sample = binomial_error(centre, images);
    return {.value = centre,
            .error = std::hypot(sample, spread / seeds),
            .seed_error = spread / seeds,
            .validation_error = sample,
            .of_validation = true,
            .freedom = spreads.freedom};
  };
  const int64_t images = g.first().last.images, train_images = g.first().train_unaugmented.images;
  g.top1 = accuracy(best_top1, images, spreads.best);
  g.last_top1 = accuracy(last_top1, images, spreads.last);
  g.train_top1 = accuracy(train_top1, train_images, spreads.train);
  g.train_top1.validation_error = 0;
  g.train_top1.of_validation = false;
  // A seed moves both accuracies of its training, so the spread is of their difference; the images are different ones.
  g.gap = {.value = mean(values_of(g, gap)),
           .error = std::hypot(binomial_error(g.train_top1.value, train_images), g.last_top1.validation_error,
                               spreads.gap / seeds),
           .seed_error = spreads.gap / seeds,
           .validation_error = g.last_top1.validation_error,
           .of_validation = true,
           .freedom = spreads.freedom};
  g.loss = mean(values_of(g, [](const PointResult& p) { return p.last.loss; }));
  g.train_loss = mean(values_of(g, [](const PointResult& p) { return p.train_unaugmented.loss; }));
  std::vector<double> times;
  for (const PointResult* p : g.points)
    if (p->latency.batch1_ms > 0) times.push_back(p->latency.batch1_ms);
  g.latency_ms = mean(times);
}

/// The point with the most validation images, the first of equals. `points` is not empty.
const PointResult& most_images(const std::vector<PointResult>& points) {
  return *std::max_element(points.begin(), points.end(),
                           [](const PointResult& a, const PointResult& b) { return a.last.images < b.last.images; });
}

void refuse_strangers(const std::vector<PointResult>& points) {
  if (points.empty())
    throw DataError("the study has no finished point to report yet; run nibble study run until one is done");
  std::set<std::string> names;
  std::map<std::tuple<std::string, double, uint64_t>, std::string> trainings;
  const int64_t all = most_images(points).last.images;
  for (const PointResult& p : points) {
    if (!names.insert(p.name).second)
      throw DataError("two results of the study are called '{}'; keep one of them", p.name);
    if (const auto [same, added] = trainings.try_emplace({p.precision, p.width, p.seed}, p.name); !added)
      throw DataError("'{}' and '{}' are both results of {} x{:g} with seed {}; keep one of them", same->second, p.name,
                      p.precision, p.width, p.seed);
    const bool lacking = all - p.last.images > all / kFewOf;
    const PointResult& first = lacking ? most_images(points) : points.front();
    if (lacking || p.arch != first.arch || p.image_size != first.image_size || p.classes != first.classes)
      throw DataError(
          "the results of '{}' ({}, {} px, {} classes, {} images) and '{}' ({}, {} px, {} classes, {} images) do not "
          "compare; keep them in studies of their own",
          first.name, first.arch, first.image_size, first.classes, first.last.images, p.name, p.arch, p.image_size,
          p.classes, p.last.images);
  }
}

}  // namespace

std::string StudyGroup::name() const {
  return fmt::format("{} x{:g}", precision, width);
}

std::vector<StudyGroup> group_points(const std::vector<PointResult>& points) {
  refuse_strangers(points);
  std::map<std::tuple<int, std::string, double>, StudyGroup> groups;
  for (const PointResult& p : points) {
    StudyGroup& g = groups[{rank_of(p.precision), p.precision, p.width}];
    g.precision = p.precision;
    g.width = p.width;
    g.points.push_back(&p);
  }
  std::vector<StudyGroup> result;
  for (auto& [key, g] : groups) {
    std::sort(g.points.begin(), g.points.end(), [](const auto* a, const auto* b) { return a->seed < b->seed; });
    result.push_back(std::move(g));
  }
  const auto spread = [&](Value value) { return spread_over_seeds(result, value); };
  const Spreads spreads = {spread(best_top1), spread(last_top1), spread(train_top1), spread(gap), seed_freedom(result)};
  const double outcomes = outcome_variance_of(result);
  for (StudyGroup& g : result) {
    fill(g, spreads);
    g.outcome_variance = outcomes;
  }
  return result;
}

double seed_spread(const std::vector<StudyGroup>& groups) {
  return spread_over_seeds(groups, best_top1);
}

int64_t seed_freedom(const std::vector<StudyGroup>& groups) {
  int64_t freedom = 0;
  for (const StudyGroup& g : groups) freedom += std::ssize(g.points) - 1;
  return freedom;
}

void take_seed_spread(std::vector<StudyGroup>& groups, const std::vector<StudyGroup>& from) {
  const auto take = [&](Estimate StudyGroup::*of) {
    const Estimate& known = from.front().*of;
    const double spread = known.seed_error * std::sqrt(static_cast<double>(from.front().points.size()));
    for (StudyGroup& g : groups) {
      Estimate& e = g.*of;
      e.seed_error = spread / std::sqrt(static_cast<double>(g.points.size()));
      e.error = std::hypot(e.error, e.seed_error);
      e.freedom = known.freedom;
    }
  };
  take(&StudyGroup::top1);
  take(&StudyGroup::last_top1);
  take(&StudyGroup::train_top1);
  take(&StudyGroup::gap);
  for (StudyGroup& g : groups) g.outcome_variance = from.front().outcome_variance;
}

int64_t validation_images(const std::vector<PointResult>& points) {
  return most_images(points).last.images;
}

std::string uneven_images(const std::vector<PointResult>& points) {
  if (points.empty()) return "";
  const int64_t all = most_images(points).last.images;
  std::map<int64_t, std::vector<std::string>> fewer;
  for (const PointResult& p : points)
    if (p.last.images < all) fewer[p.last.images].push_back(p.name);
  std::string text;
  for (const auto& [images, names] : fewer)
    text += fmt::format("{}{} saw {}", text.empty() ? "" : "; ", fmt::join(names, ", "), grouped(images));
  return text.empty()
             ? text
             : fmt::format("not all models saw the same validation images: {}; the others {}", text, grouped(all));
}

std::string own_layers_text(const std::vector<const PointResult*>& points) {
  constexpr size_t kNamed = 8;
  std::vector<std::string> layers;
  std::set<std::string> seen;
  for (const PointResult* p : points)
    for (const PrecisionOverride& o : overrides_of(*p))
      if (const std::string text = o.layer + " " + precision_text(o.precision); seen.insert(text).second)
        layers.push_back(text);
  return layers.size() > kNamed ? counted(static_cast<int64_t>(layers.size()), "layer")
                                : fmt::format("{}", fmt::join(layers, ", "));
}

TimesOf times_of(const std::vector<PointResult>& points) {
  std::set<std::string> machines, sittings;
  TimesOf times;
  for (const PointResult& p : points) {
    const Latency& l = p.latency;
    if (!(l.batch1_ms > 0)) continue;
    machines.insert(fmt::format("{} ({} kernels, {})", l.cpu, l.isa, counted(l.threads, "thread")));
    if (l.sitting.empty())
      times.some_alone = true;
    else
      sittings.insert(l.sitting);
  }
  times.machines = {machines.begin(), machines.end()};
  times.sittings = {sittings.begin(), sittings.end()};
  return times;
}

const std::vector<CostKind>& cost_kinds() {
  static const std::vector<CostKind> kKinds = {
      {"linear", "linear cost, bf16 at width 1 = 1", [](const StudyGroup& g) { return g.first().ratio.linear; }},
      {"quadratic", "quadratic cost, bf16 at width 1 = 1",
       [](const StudyGroup& g) { return g.first().ratio.quadratic; }},
      {"memory", "memory of the weights, bf16 at width 1 = 1",
       [](const StudyGroup& g) { return g.first().ratio.memory; }},
      {"latency", "milliseconds for one image", [](const StudyGroup& g) { return g.latency_ms; }},
      {"bytes", "megabytes of the served file",
       [](const StudyGroup& g) { return static_cast<double>(g.first().served_bytes) * 1e-6; }},
  };
  return kKinds;
}

std::vector<const StudyGroup*> front_of(const std::vector<StudyGroup>& groups, const CostKind& cost) {
  std::vector<const StudyGroup*> all;
  for (const StudyGroup& g : groups)
    if (cost.of(g) > 0) all.push_back(&g);
  std::stable_sort(all.begin(), all.end(), [&](const StudyGroup* a, const StudyGroup* b) {
    return std::pair(cost.of(*a), -a->top1.value) < std::pair(cost.of(*b), -b->top1.value);
  });
  std::vector<const StudyGroup*> front;
  for (const StudyGroup* g : all) {
    const bool better = front.empty() || g->top1.value > front.back()->top1.value;
    const bool equal =
        !front.empty() && g->top1.value == front.back()->top1.value && cost.of(*g) == cost.of(*front.back());
    if (better || equal) front.push_back(g);
  }
  return front;
}

const StudyGroup* best_of(const std::vector<StudyGroup>& groups, FunctionRef<bool(const StudyGroup&)> allowed,
                          FunctionRef<bool(const StudyGroup&, const StudyGroup&)> cheaper) {
  const StudyGroup* best = nullptr;
  for (const StudyGroup& g : groups)
    if (allowed(g) &&
        (best == nullptr || g.top1.value > best->top1.value || (g.top1.value == best->top1.value && cheaper(g, *best))))
      best = &g;
  return best;
}

const StudyGroup* best_of(const std::vector<StudyGroup>& groups, FunctionRef<bool(const StudyGroup&)> allowed) {
  return best_of(groups, allowed, [](const StudyGroup& a, const StudyGroup& b) {
    return a.first().ratio.linear < b.first().ratio.linear;
  });
}

const StudyGroup* best_under(const std::vector<StudyGroup>& groups, double budget) {
  return best_of(groups, [&](const StudyGroup& g) { return g.first().ratio.linear <= budget; });
}

}  // namespace nibble::apps
