#include "apps/report/study_data.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "apps/console.hpp"
#include "apps/report/statistics.hpp"
#include "apps/report/svg.hpp"
#include "engine/error.hpp"
#include "nn/study/point_layers.hpp"

namespace nibble::apps {

namespace {

constexpr double kDecisive = 2;  // standard errors
constexpr int64_t kFewOf = 100;  // one of so many validation images may be missing

int rank_of(const std::string& precision) {
  constexpr const char* kOrder[] = {"bf16", "w8a8", "w4a4-fl8", "w4a4"};
  const auto found = std::find(std::begin(kOrder), std::end(kOrder), precision);
  return static_cast<int>(found - std::begin(kOrder));
}

/// Mean over the points, with the error of images and, from two seeds on, of seeds.
Estimate estimate(const std::vector<double>& percents, int64_t images) {
  const double centre = mean(percents), spread = standard_deviation(percents);
  const double seeds = static_cast<double>(percents.size());
  return {centre, std::hypot(binomial_error(centre, images), spread / std::sqrt(seeds))};
}

template <typename Value>
std::vector<double> values_of(const StudyGroup& group, Value value) {
  std::vector<double> all;
  for (const PointResult* p : group.points) all.push_back(value(*p));
  return all;
}

void fill(StudyGroup& g) {
  std::sort(g.points.begin(), g.points.end(), [](const auto* a, const auto* b) { return a->seed < b->seed; });
  const int64_t images = g.first().last.images, train_images = g.first().train_unaugmented.images;
  g.top1 = estimate(values_of(g, [](const PointResult& p) { return p.best.top1; }), images);
  g.last_top1 = estimate(values_of(g, [](const PointResult& p) { return p.last.top1; }), images);
  g.train_top1 = estimate(values_of(g, [](const PointResult& p) { return p.train_unaugmented.top1; }), train_images);
  g.gap = {g.train_top1.value - g.last_top1.value, std::hypot(g.train_top1.error, g.last_top1.error)};
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
  const int64_t all = most_images(points).last.images;
  for (const PointResult& p : points) {
    if (!names.insert(p.name).second)
      throw DataError("two results of the study are called '{}'; keep one of them", p.name);
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
  size_t pairs() const { return differences_.size(); }
  size_t positive() const {
    return static_cast<size_t>(std::count_if(differences_.begin(), differences_.end(), [](double d) { return d > 0; }));
  }
  double value() const { return mean(differences_); }
  double error() const {
    double sum = 0;
    for (const auto& [group, weight] : weight_) sum += std::pow(weight * (group->*of_).error, 2);
    return std::sqrt(sum) / static_cast<double>(std::max<size_t>(1, pairs()));
  }
  Verdict verdict() const {
    if (empty()) return Verdict::kNotTested;
    if (value() > kDecisive * error()) return Verdict::kHolds;
    return value() < -kDecisive * error() ? Verdict::kContradicted : Verdict::kUndecided;
  }
  std::string text() const {
    return fmt::format("{}{} points (standard error {})", value() >= 0 ? "+" : "", decimal(value(), 2),
                       decimal(error(), 2));
  }

 private:
  Estimate StudyGroup::*of_;
  std::vector<double> differences_;
  std::map<const StudyGroup*, double> weight_;
};

/// Each bf16 model against the most accurate 4-bit one that costs no more.
Finding dominance(const std::vector<StudyGroup>& groups) {
  Finding f;
  f.claim = "4 bits with 8-bit first and last layers (w4a4-fl8) beat bf16 at equal cost";
  Comparison c(&StudyGroup::top1);
  for (const StudyGroup& bf16 : groups) {
    if (bf16.precision != "bf16") continue;
    const StudyGroup* best = best_of(groups, [&](const StudyGroup& g) {
      return g.precision == "w4a4-fl8" && g.first().ratio.linear <= bf16.first().ratio.linear;
    });
    if (best != nullptr) c.add(*best, bf16);
  }
  f.verdict = c.verdict();
  f.evidence = c.empty() ? "The study has no w4a4-fl8 model that costs at most as much as one in bf16."
                         : fmt::format(
                               "Compared with {}, the best w4a4-fl8 model of at most its linear cost is more accurate "
                               "in {}; the mean difference is {}.",
                               c.pairs() == 1 ? "one bf16 model" : fmt::format("each of {} bf16 models", c.pairs()),
                               counted(static_cast<int64_t>(c.positive()), "case"), c.text());
  return f;
}

/// The gap of bf16 against that of 8 and of 4 bits, width by width.
Finding generalization(const std::vector<StudyGroup>& groups) {
  Finding f;
  f.claim = "fewer bits leave a smaller gap between training and validation accuracy";
  Comparison eight(&StudyGroup::gap), four(&StudyGroup::gap);
  for (const StudyGroup& bf16 : groups) {
    if (bf16.precision != "bf16") continue;
    if (const StudyGroup* g = find(groups, "w8a8", bf16.width)) eight.add(bf16, *g);
    for (const char* precision : {"w4a4-fl8", "w4a4"})
      if (const StudyGroup* g = find(groups, precision, bf16.width)) four.add(bf16, *g);
  }
  f.verdict = four.empty() ? eight.verdict() : four.verdict();
  if (four.empty() && eight.empty()) {
    f.evidence = "The study has no width with both bf16 and fewer bits.";
    return f;
  }
  f.evidence = "At equal width, the gap of bf16 less";
  if (!eight.empty()) f.evidence += " that of 8 bits is " + eight.text();
  if (!four.empty()) f.evidence += (eight.empty() ? "" : ", less") + std::string(" that of 4 bits is ") + four.text();
  f.evidence += ".";
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
                                       c.positive(), counted(static_cast<int64_t>(c.pairs()), "width"), c.text());
  return f;
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
    fill(g);
    result.push_back(std::move(g));
  }
  return result;
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
  for (const PointResult& p : points) {
    const Latency& l = p.latency;
    if (!(l.batch1_ms > 0)) continue;
    machines.insert(fmt::format("{} ({} kernels, {} thread{})", l.cpu, l.isa, l.threads, l.threads == 1 ? "" : "s"));
    sittings.insert(l.sitting);
  }
  const bool one = machines.size() == 1 && sittings.size() == 1;
  return {.machines = {machines.begin(), machines.end()}, .sitting = one ? *sittings.begin() : ""};
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
  return {dominance(groups), generalization(groups), ends(groups)};
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
