// What study pick prints about what a budget costs.
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "nn/study/point_result.hpp"
#include "tests/apps/report/small_study.hpp"
#include "tests/apps/whole_run.hpp"

namespace nibble::testing {
namespace {

TEST_CASE("study pick: what is given up is the difference to the best of all, within or beyond its error") {
  if (no_program()) return;
  const TemporaryFolder folder("pick");
  const auto picked = [&](double best, const std::string& more) {
    const std::string study = folder / ("study" + std::to_string(static_cast<int>(best)));
    std::vector<PointResult> points = small_study();  // w4a4-fl8 x1 has 71 %, w8a8 x1 72
    for (PointResult& p : points) {
      if (p.name == "w8a8-x1-s0") p.last.top1 = p.best.top1 = p.curves.evaluations.back().top1 = best;
      std::filesystem::create_directories(study + "/" + p.name);
      write_text(study + "/" + p.name + "/result.json", to_json(p));
    }
    return run_program("study pick " + study + " --max-linear 0.3" + more);
  };
  const nlohmann::json j = json_of(picked(80, " --json"));
  CHECK(j.at("name") == "w4a4-fl8-x1-s0");
  CHECK(j.at("given_up").get<double>() == doctest::Approx(9));
  CHECK(j.at("best_of_all").at("name") == "w8a8-x1-s0");
  CHECK(j.at("next_better").at("name") == "w8a8-x1-s0");
  CHECK(has(picked(80, "").out, "given up: 9.00 points to w8a8 x1 (beyond two standard errors)"));
  CHECK(has(picked(72, "").out, "given up: 1.00 points to w8a8 x1 (within two standard errors)"));
}

}  // namespace
}  // namespace nibble::testing
