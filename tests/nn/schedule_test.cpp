// Learning rates: the published schedule's check values, cosine and step.
#include "nn/schedule.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "engine/error.hpp"
#include "tests/near.hpp"
#include "tests/worst.hpp"

namespace nibble {
namespace {

TEST_CASE("schedule: the paper's schedule has the seven published learning rates") {
  const Schedule s{.kind = ScheduleKind::kPaper, .peak = 3.2, .warmup_steps = 780, .total_steps = 39000};
  CHECK(s.rate(0) == 0.0f);
  CHECK(s.rate(390) == testing::relative(1.6, 1e-6));
  CHECK(s.rate(780) == testing::relative(3.2, 1e-6));
  CHECK(s.rate(7500) == testing::relative(2.83028, 2e-6));
  CHECK(s.rate(31200) == testing::relative(0.0032, 1e-6));
  CHECK(s.rate(31355) == testing::relative(0.00313641, 2e-6));
  CHECK(s.rate(35100) == testing::relative(0.0016, 1e-6));
  CHECK(s.rate(38999) == testing::relative(4.10256e-7, 2e-6));
}

TEST_CASE("schedule: the paper's schedule equals its formula in double at every step") {
  const Schedule s{.kind = ScheduleKind::kPaper, .peak = 3.2, .warmup_steps = 780, .total_steps = 39000};
  double worst = 0;
  for (int64_t step = 1; step < 39000; ++step) {
    const double t = static_cast<double>(step);
    const double progress = std::min(1.0, std::max(0.0, (t - 780) / 30420));
    const double cosine = 0.001 + 0.999 * 0.5 * (1 + std::cos(3.14159265358979323846 * progress));
    const double expected = 3.2 * std::min(1.0, t / 780) * cosine * std::min(1.0, (39000 - t) / 7800);
    worst = testing::worse(worst, std::fabs(static_cast<double>(s.rate(step)) - expected) / expected);
  }
  CHECK(worst < 1e-4);  // the own cosine is single precision: near its zero 6e-8 of 1 is 6e-5 of the floor 0.001
}

TEST_CASE("schedule: the paper's cosine ends where its cooldown begins, whatever part of the run is warm-up") {
  for (const int64_t warmup : {0, 10, 100, 250}) {
    CAPTURE(warmup);
    const Schedule s{.kind = ScheduleKind::kPaper, .peak = 2, .warmup_steps = warmup, .total_steps = 1000};
    CHECK(s.rate(799) > 0.002f);
    CHECK(s.rate(800) == testing::relative(0.002, 1e-4));
    CHECK(s.rate(900) == testing::relative(0.001, 1e-4));
    const int64_t middle = (800 + warmup) / 2;
    CHECK(s.rate(middle) == testing::relative(2 * 0.5005, 1e-4));
  }
}

TEST_CASE("schedule: cosine rises linearly to the peak at the end of the warm-up and falls to zero") {
  const Schedule s{.kind = ScheduleKind::kCosine, .peak = 0.4, .warmup_steps = 10, .total_steps = 110};
  CHECK(s.rate(0) == doctest::Approx(0.04));
  CHECK(s.rate(4) == doctest::Approx(0.2));
  CHECK(s.rate(9) == doctest::Approx(0.4));
  CHECK(s.rate(10) == doctest::Approx(0.4));
  CHECK(s.rate(60) == doctest::Approx(0.2));
  CHECK(s.rate(85) == doctest::Approx(0.4 * 0.5 * (1 + std::cos(0.75 * 3.14159265358979))));
  CHECK(s.rate(109) < 1e-3f);
  CHECK(s.rate(110) == testing::relative(0.0, 1e-7));
  for (int64_t step = 11; step < 110; ++step) CHECK(s.rate(step) < s.rate(step - 1));
}

TEST_CASE("schedule: step divides by ten at each third of the run") {
  const Schedule s{.kind = ScheduleKind::kStep, .peak = 0.1, .warmup_steps = 5, .total_steps = 90};
  CHECK(s.rate(0) == doctest::Approx(0.02));
  CHECK(s.rate(4) == doctest::Approx(0.1));
  CHECK(s.rate(5) == doctest::Approx(0.1));
  CHECK(s.rate(29) == doctest::Approx(0.1));
  CHECK(s.rate(30) == doctest::Approx(0.01));
  CHECK(s.rate(59) == doctest::Approx(0.01));
  CHECK(s.rate(60) == doctest::Approx(0.001));
  CHECK(s.rate(89) == doctest::Approx(0.001));
}

TEST_CASE("schedule: runs of one step, without warm-up and with nothing but warm-up have finite rates above zero") {
  for (ScheduleKind kind : {ScheduleKind::kCosine, ScheduleKind::kStep, ScheduleKind::kPaper}) {
    CHECK(Schedule{.kind = kind, .peak = 0.1, .warmup_steps = 0, .total_steps = 1}.rate(0) == doctest::Approx(0.1));
    const Schedule warm{.kind = kind, .peak = 0.1, .warmup_steps = 4, .total_steps = 4};
    for (int64_t step = 1; step < 4; ++step) {
      CHECK(std::isfinite(warm.rate(step)));
      CHECK(warm.rate(step) > 0.0f);
    }
  }
}

TEST_CASE("schedule: names parse, others are refused with the choices") {
  CHECK(schedule_kind("cosine") == ScheduleKind::kCosine);
  CHECK(schedule_kind("step") == ScheduleKind::kStep);
  CHECK(schedule_kind("paper") == ScheduleKind::kPaper);
  CHECK_THROWS_WITH_AS(schedule_kind("Cosine"), doctest::Contains("cosine, step or paper"), UsageError);
}

}  // namespace
}  // namespace nibble
