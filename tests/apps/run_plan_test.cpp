// What the plan of a run raises doubts about.
#include "apps/training/run_plan.hpp"

#include <doctest/doctest.h>

#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::has;

/// Ten epochs of 40 steps; the first doubt, empty when there is none.
std::string doubt(int64_t quantized_from, double warmup_epochs, bool resumed = false) {
  RunPlan plan;
  plan.steps = 400;
  plan.steps_per_epoch = 40;
  plan.quantized_from = quantized_from;
  TrainOptions o;
  o.warmup_epochs = warmup_epochs;
  const std::vector<std::string> all = doubts_about(plan, o, resumed);
  CHECK(all.size() <= 1);
  return all.empty() ? "" : all.front();
}

TEST_CASE(
    "run plan: calibration at the end, after it or within the warm-up is doubted, and so is a warm-up to the end") {
  CHECK(doubt(80, 1) == "");
  CHECK(doubt(80, 2) == "");  // calibrated with the statistics of the whole warm-up
  CHECK(doubt(399, 1) == "");
  CHECK(doubt(-1, 1) == "");  // nothing to calibrate
  CHECK(doubt(-1, 9) == "");
  CHECK(has(doubt(401, 1), "step 401, after the last of 400"));
  CHECK(has(doubt(400, 1), "step 400, the last: activations are quantized after it, and no step trains with them"));
  CHECK(has(doubt(79, 2), "step 79, within the warm-up of 80 steps"));
  CHECK(has(doubt(80, 10), "--warmup-epochs 10 are 400 steps, the run has 400"));
  CHECK(doubt(80, 10, true) == "");  // began long ago
  CHECK(doubt(79, 2, true) == "");
}

TEST_CASE("run plan: a run of few steps is doubted, and so are bounds from few of them") {
  RunPlan plan;
  plan.steps_per_epoch = 4;
  TrainOptions o;
  o.warmup_epochs = 0;
  const auto doubt = [&](int64_t steps, int64_t quantized_from, bool resumed = false) {
    plan.steps = steps;
    plan.quantized_from = quantized_from;
    const std::vector<std::string> all = doubts_about(plan, o, resumed);
    CHECK(all.size() <= 1);
    return all.empty() ? "" : all.front();
  };
  CHECK(has(doubt(99, 20), "the run has 99 steps, 4 per epoch: hardly enough to learn from; give more --epochs or"));
  CHECK(has(doubt(1, -1), "the run has 1 step, "));
  CHECK(doubt(99, 20, true) == "");
  CHECK(doubt(100, 20) == "");
  CHECK(doubt(100, 10) == "");
  CHECK(doubt(100, -1) == "");
  CHECK(has(doubt(100, 9), "fixed after 9 steps"));
  CHECK(doubt(100, 9, true) == "");
  o.steps = 1;  // then epochs do not count
  CHECK(has(doubt(99, 20), "give more --steps"));
  CHECK(has(doubt(100, 9), "give more --steps"));
}

}  // namespace
}  // namespace nibble::apps
