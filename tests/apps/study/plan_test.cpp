// The plan of a study: points, their order, and its file.
#include "apps/study/plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "engine/error.hpp"

namespace nibble::apps {
namespace {

std::vector<std::string> names(const StudyPlan& plan) {
  std::vector<std::string> all;
  for (const StudyPoint& p : plan.points) all.push_back(p.name());
  return all;
}

StudyPlan planned(const StudyGrid& grid) {
  StudyPlan plan;
  plan.add(grid);
  return plan;
}

StudyGrid small_grid() {
  return {.widths = {1, 0.5}, .precisions = {"w4a4-fl8", "bf16"}, .seeds = {0}, .extra_seeds = {{1, 7}}};
}

TEST_CASE("study plan: all combinations and the extra seeds, narrow ones first, precisions as asked for") {
  CHECK(names(planned(small_grid())) == std::vector<std::string>{"w4a4-fl8-x0.5-s0", "bf16-x0.5-s0", "w4a4-fl8-x1-s0",
                                                                 "bf16-x1-s0", "w4a4-fl8-x1-s7", "bf16-x1-s7"});
  CHECK(names(planned({})).size() == 16);
  CHECK(names(planned({})).front() == "bf16-x0.5-s0");
  CHECK(names(planned({})).back() == "w4a4-fl8-x1.5-s0");
}

TEST_CASE("study plan: what is added completes the grid, keeps what is there and spreads no extra seed") {
  StudyPlan plan = planned(small_grid());
  plan.add(small_grid());
  CHECK(plan.points.size() == 6);
  plan.add({.widths = {2}, .precisions = {}, .seeds = {}, .extra_seeds = {}});
  CHECK(plan.points.size() == 8);
  CHECK(std::count(plan.points.begin(), plan.points.end(), StudyPoint{"bf16", 2, 0}) == 1);
  CHECK(std::count(plan.points.begin(), plan.points.end(), StudyPoint{"bf16", 2, 7}) == 0);
  plan.add({.widths = {}, .precisions = {}, .seeds = {}, .extra_seeds = {{0.5, 3}}});
  CHECK(plan.points.size() == 10);
  plan.add({.widths = {}, .precisions = {"w8a8"}, .seeds = {}, .extra_seeds = {}});
  CHECK(plan.points.size() == 13);
}

TEST_CASE("study plan: the points that have no result yet are known by name, in the plan's order") {
  const StudyPlan plan = planned(small_grid());
  std::vector<PointResult> results(2);
  results[0].name = "bf16-x1-s0";
  results[1].name = "w8a8-x9-s9";  // of no plan
  CHECK(plan.without({}) == names(plan));
  CHECK(plan.without(results) ==
        std::vector<std::string>{"w4a4-fl8-x0.5-s0", "bf16-x0.5-s0", "w4a4-fl8-x1-s0", "w4a4-fl8-x1-s7", "bf16-x1-s7"});
}

TEST_CASE("study plan: a width that only an extra seed has is not part of the grid") {
  StudyPlan plan;
  plan.add({.widths = {0.5, 1}, .precisions = {"bf16"}, .seeds = {0, 1}, .extra_seeds = {}});
  plan.add({.widths = {}, .precisions = {}, .seeds = {}, .extra_seeds = {{0.7, 7}}});
  REQUIRE(plan.points.size() == 5);
  plan.add({.widths = {}, .precisions = {"w8a8"}, .seeds = {}, .extra_seeds = {}});
  std::vector<std::string> added;
  for (const std::string& name : names(plan))
    if (name.starts_with("w8a8")) added.push_back(name);
  std::sort(added.begin(), added.end());
  CHECK(added == std::vector<std::string>{"w8a8-x0.5-s0", "w8a8-x0.5-s1", "w8a8-x1-s0", "w8a8-x1-s1"});
}

TEST_CASE("study plan: an extra seed with as many widths as the grid is not part of it either") {
  StudyPlan plan;
  plan.add({.widths = {1}, .precisions = {"bf16"}, .seeds = {0}, .extra_seeds = {{0.7, 7}}});
  plan.add({.widths = {}, .precisions = {"w8a8"}, .seeds = {}, .extra_seeds = {}});
  std::vector<std::string> all = names(plan);
  std::sort(all.begin(), all.end());
  CHECK(all == std::vector<std::string>{"bf16-x0.7-s7", "bf16-x1-s0", "w8a8-x1-s0"});
}

TEST_CASE("study plan: an extra seed is WIDTH:SEED and nothing else") {
  CHECK(parse_extra_seed("0.75:12") == std::pair(0.75, uint64_t{12}));
  for (const char* wrong : {"", "1", "1:", ":1", "1:-1", "1:1.5", "x:1", "1:1 ", "1:99999999999999999999"}) {
    CAPTURE(wrong);
    CHECK_THROWS_WITH_AS(parse_extra_seed(wrong), doctest::Contains("use WIDTH:SEED"), UsageError);
  }
}

TEST_CASE("study plan: a plan read back is the same, whatever bytes name its classes") {
  StudyPlan plan = planned(small_grid());
  plan.data = {.class_names = {"tench", "\"quoted\"\n", "caf\xc3\xa9"},
               .train_images = 9469,
               .validation_images = 3925,
               .images = "a3f"};
  plan.train_eval_images = 500;
  plan.start = {.weights = "runs/\n", .choice = {.key = "a/b", .prefix = "model."}, .points = {{0.5, 7, "f", "00"}}};
  const StudyPlan back = plan_from_json(to_json(plan), "plan.json");
  CHECK(back.data == plan.data);
  CHECK(back.points == plan.points);
  CHECK(back.train_eval_images == 500);
  CHECK(back.start.weights == plan.start.weights);
  CHECK(back.start.choice.key == "a/b");
  CHECK(back.start.choice.prefix == "model.");
  CHECK(back.start.points == plan.start.points);
  CHECK(to_json(StudyPlan{}).find("start") == std::string::npos);
  CHECK(back.train_eval_spread);
}

TEST_CASE("study plan: a hostile plan is refused in one sentence that names its file") {
  const auto plan = [](const std::string& points, const std::string& head = R"("format":"nibble-study-1")") {
    return "{" + head + R"(,"classes":["a","b"],"train_images":1,"val_images":1,"train_eval_images":0,"points":)" +
           points + "}";
  };
  const std::string good = R"({"precision":"bf16","width":1,"seed":0})";
  const auto start_of = [](const std::string& point) {
    return R"("format":"nibble-study-1","start":{"weights":"w","key":"","prefix":"","points":[)" + point + "]}";
  };
  CHECK(plan_from_json(plan("[]", start_of(R"({"width":1,"seed":0,"file":"f","sha256":"0"})")), "f")
            .start.points.size() == 1);
  CHECK(plan_from_json(plan("[" + good + "]"), "f").points.size() == 1);
  CHECK_FALSE(plan_from_json(plan("[" + good + "]"), "f").train_eval_spread);  // as older versions wrote it
  CHECK_THROWS_AS(plan_from_json(plan("[]", R"("format":"nibble-study-1","train_eval_spread":1)"), "f"), DataError);
  for (const char* number : {"1e300", "10.5", "-1", "18446744073709551615", "\"7\""}) {
    CAPTURE(number);
    std::string text = to_json(StudyPlan{});
    const std::string key = "\"train_images\": ";
    const size_t at = text.find(key) + key.size();
    REQUIRE(at >= key.size());
    text.replace(at, text.find(',', at) - at, number);
    CHECK_THROWS_WITH_AS(plan_from_json(text, "f"),
                         doctest::Contains("train_images is not a whole number of at least 0"), DataError);
  }
  for (const std::string& text : {std::string(),
                                  std::string("{"),
                                  std::string("[]"),
                                  std::string("null"),
                                  std::string(100000, '['),
                                  plan("[]", R"("format":1)"),
                                  plan("[]", R"("format":"nibble-study-2")"),
                                  plan("7"),
                                  plan("[7]"),
                                  plan("[{}]"),
                                  plan(R"([{"precision":"../../x","width":1,"seed":0}])"),
                                  plan(R"([{"precision":"","width":1,"seed":0}])"),
                                  plan(R"([{"precision":"bf16","width":0,"seed":0}])"),
                                  plan(R"([{"precision":"bf16","width":8.5,"seed":0}])"),
                                  plan(R"([{"precision":"bf16","width":0.04,"seed":0}])"),
                                  plan(R"([{"precision":"bf16","width":1e99,"seed":0}])"),
                                  plan(R"([{"precision":"bf16","width":"1","seed":0}])"),
                                  plan(R"([{"precision":"bf16","width":1,"seed":-1}])"),
                                  plan(R"([{"precision":"bf16","width":1,"seed":0.5}])"),
                                  plan(R"([{"precision":"bf16","width":1,"seed":9223372036854775808}])"),
                                  plan("[]", R"("format":"nibble-study-1","start":7)"),
                                  plan("[]", R"("format":"nibble-study-1","start":{"weights":"w"})"),
                                  plan("[]", start_of(R"({"width":1,"seed":-1,"file":"f","sha256":"0"})")),
                                  plan("[]", start_of(R"({"width":1,"seed":0.5,"file":"f","sha256":"0"})")),
                                  plan("[]", start_of(R"({"width":"1","seed":0,"file":"f","sha256":"0"})")),
                                  plan("[]", start_of(R"({"width":1,"seed":0,"file":7,"sha256":"0"})")),
                                  plan("[]", start_of(R"({"width":1,"seed":0,"file":"f"})")),
                                  plan("[]", start_of("7")),
                                  plan("[" + good + "," + good + "]")}) {
    CAPTURE(text.substr(0, 200));
    CHECK_THROWS_WITH_AS(plan_from_json(text, "there/plan.json"), doctest::Contains("there/plan.json is not the plan"),
                         DataError);
  }
}

}  // namespace
}  // namespace nibble::apps
