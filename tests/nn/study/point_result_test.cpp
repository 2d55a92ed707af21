// The file of a finished point: nothing lost on the way through JSON, nothing hostile let in.
#include "nn/study/point_result.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace nibble;

PointResult sample() {
  NetworkOptions o;
  o.width = 0.25;
  o.image_size = 64;
  o.classes = 10;
  const Cost cost = cost_of(build_resnet(o));
  PointResult p;
  p.name = "w4a4-fl8-x0.25-s3";
  p.arch = o.arch;
  p.precision = o.precision;
  p.width = o.width;
  p.seed = std::numeric_limits<uint64_t>::max();
  p.image_size = 64;
  p.classes = 10;
  p.steps = 1470;
  p.epochs = 10;
  p.cost = cost.total;
  p.ratio = cost_ratio(cost.total, reference_cost(o));
  p.served_bytes = 1234567;
  p.latency = {.batch1_ms = 1.0 / 3, .batch32_ms_per_image = 0.1, .threads = 2, .cpu = "a \"CPU\"", .isa = "avx2"};
  p.last = {.top1 = 70.1, .top5 = 95.3, .loss = 0.97, .images = 1966};
  p.best = {.step = 1323, .epoch = 9, .top1 = 70.05, .top5 = 95.2, .loss = 0.98};
  p.train_unaugmented = {.top1 = 80.5, .top5 = 98.5, .loss = 0.6, .images = 9469};
  p.curves.train = {{.step = 10, .epoch = 0.5, .loss = 2.3, .top1 = 11},
                    {.step = 20, .epoch = 1, .loss = NAN, .top1 = NAN}};
  p.curves.evaluations = {{.step = 20, .epoch = 1, .top1 = 30, .top5 = 80, .loss = 2}};
  for (const LayerCost& l : cost.layers) p.layers.push_back({l, 0, 0, 0, {}});
  p.layers[1].bound_min = 0.5;
  p.layers[1].bound_median = 1;
  p.layers[1].bound_max = 1e6;
  p.layers[1].usage = {.codes = {5, 0, 7}, .clipped = 2, .total = 12};
  p.provenance = {.command = "nibble train",
                  .config = "seed = 3\n",
                  .version = "0.1.0",
                  .cpu = "cpu",
                  .isa = "avx2",
                  .threads = 1,
                  .started = "2026-11-23T10:00:00Z",
                  .seconds = 3600.25};
  return p;
}

/// The sentence of the refusal of `text`.
std::string refusal(const std::string& text) {
  try {
    point_result_from_json(text, "results/a.json");
  } catch (const DataError& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a point's result comes back equal from its JSON") {
  const PointResult p = sample();
  const PointResult q = point_result_from_json(to_json(p), "test");
  CHECK(to_json(q) == to_json(p));
  CHECK(q.seed == p.seed);
  CHECK(q.cost == p.cost);
  CHECK(q.ratio.linear == p.ratio.linear);
  CHECK(q.latency == p.latency);
  CHECK(q.last == p.last);
  CHECK(q.best.top1 == p.best.top1);
  CHECK(q.train_unaugmented == p.train_unaugmented);
  CHECK(q.provenance == p.provenance);
  REQUIRE(q.curves.train.size() == 2);
  CHECK(std::isnan(q.curves.train[1].loss));
  REQUIRE(q.layers.size() == p.layers.size());
  CHECK(static_cast<const LayerCost&>(q.layers[1]) == static_cast<const LayerCost&>(p.layers[1]));
  CHECK(q.layers[1].usage.codes == p.layers[1].usage.codes);
  CHECK(q.layers[1].bound_max == 1e6);
  CHECK(q.layers[0].usage.codes.empty());
}

TEST_CASE("a point whose codes were not counted keeps its bounds") {
  PointResult p = sample();
  p.layers[1].usage = {};
  const PointResult q = point_result_from_json(to_json(p), "test");
  CHECK(q.layers[1].bound_min == 0.5);
  CHECK(q.layers[1].bound_median == 1);
  CHECK(q.layers[1].bound_max == 1e6);
  CHECK(q.layers[1].usage.codes.empty());
}

TEST_CASE("a point says what became of each validation image, as its accuracy does") {
  PointResult p = sample();
  CHECK(to_json(p).find("outcomes") == std::string::npos);  // of an older version
  p.last = {.top1 = 50, .top5 = 75, .loss = 1, .images = 4};
  p.outcomes = {"digest", "10-01"};
  CHECK(point_result_from_json(to_json(p), "test").outcomes == p.outcomes);
  const auto refused = [&](const char* right, const char* why) {
    p.outcomes.right = right;
    CHECK_MESSAGE(refusal(to_json(p)).find(why) != std::string::npos, refusal(to_json(p)));
  };
  refused("1001x", "'outcomes.right' has other characters than 0, 1 and -");
  refused("10010", "'outcomes.right' is of 5 images, 'last' of 4");
  refused("100-0", "'outcomes.right' has 1 of 4 images right, 'last' 50 %");
  refused("1111", "'outcomes.right' has 4 of 4 images right");
}

TEST_CASE("a point timed alongside others says when, and one timed alone says nothing") {
  PointResult p = sample();
  CHECK(to_json(p).find("sitting") == std::string::npos);
  p.latency.sitting = "2026-11-27T14:30:05Z";
  CHECK(point_result_from_json(to_json(p), "test").latency == p.latency);
}

TEST_CASE("a point that starts from trained weights says which, and one from nothing says nothing") {
  PointResult p = sample();
  CHECK(to_json(p).find("weights_sha256") == std::string::npos);
  p.provenance.weights = "runs/a\n";
  p.provenance.weights_sha256 = "0a1b";
  CHECK(point_result_from_json(to_json(p), "test").provenance == p.provenance);
}

TEST_CASE("a result that misses any of its keys is refused by that key's name") {
  const nlohmann::json whole = nlohmann::json::parse(to_json(sample()));
  for (const auto& member : whole.items()) {
    const std::string& key = member.key();
    nlohmann::json less = whole;
    less.erase(key);
    CHECK_MESSAGE(refusal(less.dump()).find("'" + key + "'") != std::string::npos, key);
  }
  for (const char* group : {"cost", "ratio", "latency", "last", "best", "train_unaugmented", "curves", "provenance"})
    for (const auto& member : whole[group].items()) {
      const std::string& key = member.key();
      nlohmann::json less = whole;
      less[group].erase(key);
      CHECK_MESSAGE(refusal(less.dump()).find("'" + std::string(group) + "." + key + "'") != std::string::npos, key);
    }
}

TEST_CASE("hostile results are refused in one sentence that names file, key and remedy") {
  const nlohmann::json whole = nlohmann::json::parse(to_json(sample()));
  const auto with = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json changed = whole;
    changed[nlohmann::json::json_pointer(pointer)] = value;
    return refusal(changed.dump());
  };
  CHECK(with("/ratio/linear", 0).find("'ratio.linear'") != std::string::npos);
  for (const char* text : {"", "{", "[]", "null", "\"x\"", "{\"format\":1}", "{\"format\":\"nibble-point-2\"}"})
    CHECK_MESSAGE(refusal(text).starts_with("results/a.json is not the result of a training run: "), text);
  CHECK(refusal(std::string(100000, '[')).starts_with("results/a.json is not the result"));
  CHECK(with("/last/top1", 100.5).find("'last.top1' is not a number from 0 to 100;") != std::string::npos);
  CHECK(with("/last/top1", "70").find("'last.top1'") != std::string::npos);
  CHECK(with("/last/images", -1).find("'last.images' is not a whole number") != std::string::npos);
  CHECK(with("/last/images", 1.5).find("'last.images' is not a whole number") != std::string::npos);
  CHECK(with("/cost/macs", std::numeric_limits<uint64_t>::max()).find("'cost.macs'") != std::string::npos);
  CHECK(with("/width", 0).find("'width'") != std::string::npos);
  CHECK(with("/seed", -1).find("'seed'") != std::string::npos);
  CHECK(with("/layers", 3).find("'layers' is not a list") != std::string::npos);
  CHECK(with("/layers/3", 3).find("'layers[3]' is not an object") != std::string::npos);
  CHECK(with("/layers/1/code_counts", std::vector<int>(257, 0)).find("'layers[1].code_counts'") != std::string::npos);
  CHECK(with("/layers/1/clipped", 13).find("'layers[1].clipped' is more than 'values'") != std::string::npos);
  CHECK(with("/curves/eval", nlohmann::json::array()).find("'curves.eval' has no evaluation") != std::string::npos);
  CHECK(with("/latency", nullptr).find("'latency' is not an object") != std::string::npos);
  CHECK(with("/last/top1", 100.5).find("remove it to compute the point again") != std::string::npos);
}

TEST_CASE("bytes that are not UTF-8 do not stop a result from being written") {
  PointResult p = sample();
  p.provenance.command = "nibble train --data \xff\xfe";
  CHECK(point_result_from_json(to_json(p), "test").provenance.command.starts_with("nibble train --data "));
}

TEST_CASE("a result file is read from disk, and a missing one is a disk error") {
  const testing::TempDir dir;
  write_file_atomically(dir / "a.json", to_json(sample()));
  CHECK(read_point_result(dir / "a.json").name == "w4a4-fl8-x0.25-s3");
  CHECK_THROWS_AS(read_point_result(dir / "b.json"), DiskError);
}
