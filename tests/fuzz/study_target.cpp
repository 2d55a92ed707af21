// The files of studies and runs that are read again: study.json, plan.json, metrics.jsonl. The first byte says which.
#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <stdexcept>

#include "apps/report/study_report.hpp"
#include "apps/study/plan.hpp"
#include "engine/error.hpp"
#include "nn/metrics_log.hpp"
#include "nn/study/curves.hpp"
#include "nn/study/point_result.hpp"
#include "nn/unit.hpp"
#include "tests/apps/report/xml_checker.hpp"
#include "tests/fuzz/target.hpp"
#include "tests/temp_dir.hpp"

namespace nibble::testing {
namespace {

constexpr char kPoints = 's', kPlan = 'p', kMetrics = 'm';

/// The pages of accepted results are whole and hold nothing that a browser would run or fetch.
void check_points(const std::string& text) {
  const std::vector<PointResult> points = points_from_json(text, "fuzzed");
  for (const PointResult& p : points)
    if (to_json(point_result_from_json(to_json(p), "written")) != to_json(p))
      throw std::logic_error("a result is not read back as it was written");
  const XmlFacts page = XmlChecker(apps::study_page(points, "fuzzed <study>")).check();
  if (!page.problem.empty()) throw std::logic_error("the page is not well-formed: " + page.problem);
  if (page.elements.contains("script")) throw std::logic_error("the page has a script");
  for (const std::string& link : page.links)
    if (!link.starts_with('#')) throw std::logic_error("the page fetches " + link);
  const XmlFacts picture = XmlChecker(apps::study_picture(points)).check();
  if (!picture.problem.empty()) throw std::logic_error("the picture is not well-formed: " + picture.problem);
  (void)apps::study_csv(points);
  (void)points_from_json(apps::study_json(points), "written study.json");
}

void check_metrics(const std::string& text) {
  static const TempDir dir;
  const std::filesystem::path path = dir / "metrics.jsonl";
  std::ofstream(path, std::ios::binary) << text;
  const Curves curves = read_curves(path);
  (void)thinned(curves.train, 3);
  if (!curves.evaluations.empty()) (void)best_smoothed(curves.evaluations, 2);
  (void)logged_value(path, 3, "train/loss");
  { MetricsLog log(path, {.keep_to_step = 3}); }
  for (const TrainSample& s : read_curves(path).train)
    if (s.step > 3) throw std::logic_error("a line after the step stayed in the log");
}

bool check_study(std::span<const uint8_t> input) {
  if (input.empty()) return false;
  const std::string text = text_of(input.subspan(1));
  try {
    if (input[0] == kPoints) check_points(text);
    if (input[0] == kPlan) {
      const std::string once = to_json(apps::plan_from_json(text, "fuzzed"));
      if (to_json(apps::plan_from_json(once, "written")) != once)
        throw std::logic_error("a plan is not read back as it was written");
    }
    if (input[0] == kMetrics) check_metrics(text);
    return input[0] == kPoints || input[0] == kPlan || input[0] == kMetrics;
  } catch (const DataError&) {
    return false;
  }
}

PointResult finished_point(const char* precision, uint64_t seed) {
  NetworkOptions options;
  options.arch = "resnet26";
  options.precision = precision;
  options.width = 0.5;
  options.image_size = 64;
  options.classes = 10;
  const Cost cost = cost_of(build_resnet(options));
  PointResult p;
  p.name = fmt::format("{}-x0.5-s{}", precision, seed);
  p.arch = options.arch;
  p.precision = precision;
  p.width = options.width;
  p.seed = seed;
  p.image_size = options.image_size;
  p.classes = options.classes;
  p.steps = 20;
  p.epochs = 2;
  p.cost = cost.total;
  p.ratio = cost_ratio(cost.total, reference_cost(options));
  p.served_bytes = 1'000'000;
  p.latency = {1.5, 1.25, 2, "a <CPU>", "avx2", "2026-01-02T03:04:05Z"};
  p.last = {70, 95, 1, 1000};
  p.best = {20, 2, 70, 95, 1};
  p.train_unaugmented = {90, 99, 0.5, 1000};
  p.curves.train = {{10, 1, 2, 30}, {20, 2, 1, 60}};
  p.curves.evaluations = {{10, 1, 35, 80, 2}, {20, 2, 70, 95, 1}};
  for (const LayerCost& layer : cost.layers) p.layers.push_back({layer, 0, 0, 0, {}});
  p.layers[1].usage = {.codes = {5, 3, 2, 0}, .clipped = 1, .total = 10};
  p.provenance = {"nibble train --data 'a b'", "lr = 1\n", "0.1.0", "a <CPU>", "avx2", 2, "2026-01-02T03:04:05Z", 60};
  return p;
}

std::vector<FuzzInput> study_seeds() {
  apps::StudyPlan plan;
  plan.data = {{"a", "b"}, 100, 10};
  plan.add({{0.5, 1}, {"bf16", "w4a4"}, {0, 1}, {{1, 7}}});
  const std::string one = to_json(finished_point("bf16", 0)), other = to_json(finished_point("w4a4", 3));
  return {
      bytes_of(std::string(1, kPoints) + R"({"points":[)" + one + "," + other + "]}"),
      bytes_of(std::string(1, kPlan) + to_json(plan)),
      bytes_of(std::string(1, kMetrics) + "{\"step\":1,\"epoch\":0.5,\"train/loss\":2.5,\"train/top1\":10,\"lr\":0.1}\n"
                                          "{\"step\":2,\"epoch\":1,\"eval/top1\":12.5,\"eval/top5\":50,\"eval/loss\":2,"
                                          "\"eval/images\":64}\n{\"step\":4,\"train/loss\":null}\n{\"step\":5,\"trai"),
  };
}

}  // namespace

const FuzzTarget kStudyTarget = {"study", check_study, study_seeds};

}  // namespace nibble::testing
