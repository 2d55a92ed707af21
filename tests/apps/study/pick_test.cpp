// The best model of a study under a budget.
#include "apps/study/pick.hpp"

#include <doctest/doctest.h>

#include "engine/error.hpp"

namespace nibble::apps {
namespace {

struct Figures {
  double top1 = 0, linear = 0, quadratic = 0, memory = 0, ms = 0;
  uint64_t bytes = 0;
};

PointResult point(const std::string& precision, double width, const Figures& f, uint64_t seed = 0) {
  PointResult p;
  p.name = fmt::format("{}-x{}-s{}", precision, width, seed);
  p.precision = precision;
  p.width = width;
  p.seed = seed;
  p.ratio = {.linear = f.linear, .quadratic = f.quadratic, .memory = f.memory};
  p.served_bytes = f.bytes;
  p.latency.batch1_ms = f.ms;
  p.last = {.top1 = f.top1, .top5 = 99, .loss = 1, .images = 1000};
  p.train_unaugmented = p.last;
  p.best = {.step = 1, .epoch = 1, .top1 = f.top1, .top5 = 99, .loss = 1};
  return p;
}

/// The cheapest by linear cost is not the fastest, and one was not timed.
std::vector<PointResult> points() {
  return {point("bf16", 1, {.top1 = 74, .linear = 1, .quadratic = 1, .memory = 1, .ms = 9, .bytes = 50'000'000}),
          point("w4a4", 1, {.top1 = 70, .linear = .25, .quadratic = .07, .memory = .25, .ms = 2, .bytes = 12'000'000}),
          point("w4a4", 1.5, {.top1 = 72, .linear = .5, .quadratic = .15, .memory = .5, .ms = 0, .bytes = 25'000'000}),
          point("w4a4", .5, {.top1 = 60, .linear = .1, .quadratic = .03, .memory = .1, .ms = 3, .bytes = 4'000'000})};
}

TEST_CASE("study pick: the most accurate model under the budget, the best of all, and the cheapest that beats it") {
  const std::vector<PointResult> all = points();
  const std::vector<StudyGroup> groups = group_points(all);
  const Pick pick = pick_best(groups, {.linear = 0.3});
  CHECK(pick.best->name() == "w4a4 x1");
  CHECK(pick.best_of_all->name() == "bf16 x1");
  REQUIRE(pick.next_better != nullptr);
  CHECK(pick.next_better->name() == "w4a4 x1.5");
  CHECK(pick_best(groups, {.linear = 0.25}).best->name() == "w4a4 x1");  // a budget may be used up
  CHECK(pick_best(groups, {.linear = 0.24}).best->name() == "w4a4 x0.5");
  const Pick top = pick_best(groups, {.linear = 1});
  CHECK(top.best == top.best_of_all);
  CHECK(top.next_better == nullptr);
}

TEST_CASE("study pick: every cost can be the budget, and several must all hold; what was not measured never fits") {
  const std::vector<PointResult> all = points();
  const std::vector<StudyGroup> groups = group_points(all);
  CHECK(pick_best(groups, {.quadratic = 0.05}).best->name() == "w4a4 x0.5");
  CHECK(pick_best(groups, {.memory = 0.6}).best->name() == "w4a4 x1.5");
  CHECK(pick_best(groups, {.bytes = 13e6}).best->name() == "w4a4 x1");
  CHECK(pick_best(groups, {.ms = 8}).best->name() == "w4a4 x1");
  CHECK(pick_best(groups, {.linear = 0.6, .bytes = 5e6}).best->name() == "w4a4 x0.5");
  CHECK(pick_best(groups, {.ms = 8}).next_better->name() == "bf16 x1");  // w4a4 x1.5 has no time
}

TEST_CASE("study pick: seeds count by their mean, and of equally accurate models the cheaper one wins") {
  std::vector<PointResult> all = points();
  all.push_back(point("w4a4", 1.5, {.top1 = 66, .linear = .5, .quadratic = .15, .memory = .5}, 1));
  all.push_back(point("w8a8", 1, {.top1 = 70, .linear = .5, .quadratic = .25, .memory = .5}));
  const std::vector<StudyGroup> groups = group_points(all);
  CHECK(pick_best(groups, {.linear = 0.6}).best->name() == "w4a4 x1");  // 70 against (72 + 66) / 2, and 70 for w8a8
}

TEST_CASE("study pick: of equally accurate models the cheapest by the first limited cost wins, the untimed one last") {
  const std::vector<PointResult> all = {
      point("w8a8", 1, {.top1 = 70, .linear = .5, .quadratic = .2, .memory = .5, .ms = 2, .bytes = 20'000'000}),
      point("w4a4", 1, {.top1 = 70, .linear = .3, .quadratic = .1, .memory = .6, .ms = 3, .bytes = 24'000'000}),
      point("w4a8", 1, {.top1 = 70, .linear = .2, .quadratic = .3, .memory = .7, .ms = 0, .bytes = 28'000'000})};
  const std::vector<StudyGroup> groups = group_points(all);
  CHECK(pick_best(groups, {.linear = 1}).best->name() == "w4a8 x1");
  CHECK(pick_best(groups, {.quadratic = 1}).best->name() == "w4a4 x1");
  CHECK(pick_best(groups, {.memory = 1}).best->name() == "w8a8 x1");
  CHECK(pick_best(groups, {.bytes = 1e9}).best->name() == "w8a8 x1");
  CHECK(pick_best(groups, {.ms = 9}).best->name() == "w8a8 x1");
  CHECK(pick_best(groups, {.ms = 9}).best_of_all->name() == "w8a8 x1");
  CHECK(pick_best(groups, {.linear = 0.4, .ms = 9}).best->name() == "w4a4 x1");
}

TEST_CASE("study pick: all that the budget allows is listed, the most accurate first, of equal ones the cheapest") {
  std::vector<PointResult> all = points();
  all.push_back(point("w8a8", 1, {.top1 = 70, .linear = .2, .quadratic = .25, .memory = .5, .bytes = 9'000'000}));
  const std::vector<StudyGroup> groups = group_points(all);
  const auto names = [&](const Budget& budget) {
    std::vector<std::string> allowed;
    const Pick pick = pick_best(groups, budget);
    CHECK(pick.best == pick.allowed.front());
    for (const StudyGroup* g : pick.allowed) allowed.push_back(g->name());
    return allowed;
  };
  using Names = std::vector<std::string>;
  CHECK(names({.linear = 0.6}) == Names{"w4a4 x1.5", "w8a8 x1", "w4a4 x1", "w4a4 x0.5"});
  CHECK(names({.quadratic = 0.3}) == Names{"w4a4 x1.5", "w4a4 x1", "w8a8 x1", "w4a4 x0.5"});
  CHECK(names({.linear = 0.3}) == Names{"w8a8 x1", "w4a4 x1", "w4a4 x0.5"});
  CHECK(names({.ms = 2.5}) == Names{"w4a4 x1"});
}

TEST_CASE("study pick: a budget that nothing satisfies names the cheapest model by that budget's cost") {
  const std::vector<PointResult> all = points();
  const std::vector<StudyGroup> groups = group_points(all);
  CHECK_THROWS_WITH_AS(pick_best(groups, {.linear = 0.01}), doctest::Contains("the cheapest, w4a4 x0.5"), UsageError);
  CHECK_THROWS_WITH_AS(pick_best(groups, {.ms = 0.5}), doctest::Contains("the cheapest, w4a4 x1,"), UsageError);
  CHECK_THROWS_WITH_AS(pick_best(groups, {.linear = 0.01}),
                       doctest::Contains("4,000,000 bytes, 3.00 ms per image: raise"), UsageError);
  CHECK(costs_text(groups.back()) ==
        "linear cost 0.5000, quadratic 0.1500, memory 0.5000, 25,000,000 bytes, not timed");
  CHECK_THROWS_WITH_AS(pick_best(groups, {.linear = 0.01, .bytes = 5e6}),
                       doctest::Contains("linear cost at most 0.01 and at most 5,000,000 bytes"), UsageError);
  // The limit that cannot be met counts, not the first one.
  CHECK_THROWS_WITH_AS(pick_best(groups, {.linear = 0.2, .ms = 0.5}), doctest::Contains("the cheapest, w4a4 x1,"),
                       UsageError);
  CHECK_THROWS_WITH_AS(pick_best(groups, {.linear = 0.2, .ms = 2}),
                       doctest::Contains("each of these limits has a model, but none satisfies linear cost at most 0.2 "
                                         "and at most 2 ms per image; raise one of them"),
                       UsageError);
  CHECK_THROWS_WITH_AS(pick_best(groups, {.bytes = 0.5}), doctest::Contains("at most 0.5 bytes"), UsageError);
}

TEST_CASE("study pick: where a limited figure was measured of no model, it is said how to get one") {
  std::vector<PointResult> all = points();
  for (PointResult& p : all) {
    p.latency.batch1_ms = 0;
    p.served_bytes = 0;
  }
  const std::vector<StudyGroup> groups = group_points(all);
  CHECK_THROWS_WITH_AS(pick_best(groups, {.linear = 1, .ms = 3}), doctest::Contains("run nibble study measure"),
                       UsageError);
  CHECK_THROWS_WITH_AS(pick_best(groups, {.bytes = 3e6}), doctest::Contains("limit a cost: --max-memory"), UsageError);
}

}  // namespace
}  // namespace nibble::apps
