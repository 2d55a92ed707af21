// The estimate of a run's time: both phases, measured or probed.
#include "apps/step_probe.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "engine/parallel.hpp"
#include "engine/profiler.hpp"

namespace nibble::apps {
namespace {

TEST_CASE("step pace: the steps before calibration and after it are estimated at their own speeds") {
  StepPace pace({.total_steps = 100, .quantized_from = 20, .probe = {.before = 2, .after = 1}});
  CHECK(pace.seconds_left(0) == doctest::Approx(20 * 2 + 80 * 1));
  CHECK(pace.seconds_left(15) == doctest::Approx(5 * 2 + 80 * 1));
  CHECK(pace.seconds_left(20) == doctest::Approx(80));
  CHECK(pace.seconds_left(90) == doctest::Approx(10));
  CHECK(pace.seconds_left(100) == 0);
}

TEST_CASE("step pace: a machine slower than at the probe is expected to be so in the other phase, too") {
  StepPace pace({.total_steps = 100, .quantized_from = 20, .probe = {.before = 2, .after = 1}});
  pace.add(0, 6);
  CHECK(pace.seconds_left(1) == doctest::Approx(19 * 6 + 80 * 3));
}

TEST_CASE("step pace: once a phase is measured, the other phase and the probe no longer count for it") {
  StepPace pace({.total_steps = 100, .quantized_from = 20, .probe = {.before = 2, .after = 1}});
  for (int64_t step = 0; step < 20; ++step) pace.add(step, 6);
  pace.add(20, 0.5);
  CHECK(pace.seconds_left(21) == doctest::Approx(79 * 0.5));
}

TEST_CASE("step pace: it follows a change of speed within some tens of steps") {
  StepPace pace({.total_steps = 1000, .quantized_from = -1, .probe = {}});
  for (int64_t step = 0; step < 200; ++step) pace.add(step, 1);
  for (int64_t step = 200; step < 300; ++step) pace.add(step, 3);
  CHECK(pace.seconds_left(300) == doctest::Approx(700 * 3).epsilon(0.01));
}

TEST_CASE("step pace: without a probe the phase measured so far stands for both") {
  StepPace pace({.total_steps = 100, .quantized_from = 20, .probe = {}});
  CHECK(pace.seconds_left(0) == 0);
  pace.add(0, 2);
  CHECK(pace.seconds_left(1) == doctest::Approx(99 * 2));
}

TEST_CASE("step pace: a calibration step after the end of the run never comes") {
  StepPace pace({.total_steps = 10, .quantized_from = 50, .probe = {.before = 2, .after = 1}});
  CHECK(pace.seconds_left(0) == doctest::Approx(20));
}

TEST_CASE("describe speed: it names the speeds of the phases that are still to come") {
  const PhaseSeconds image{.before = 0.02, .after = 0.01};
  const StepPace::Args run{.total_steps = 1000, .quantized_from = 200, .probe = {}};
  CHECK(describe_speed(image, 10, 0, run) == "about 50 img/s to step 200, then 100 img/s: 2 min 0 s for 1,000 steps");
  CHECK(describe_speed(image, 10, 400, run) == "about 100 img/s: 1 min 0 s for 600 steps");
  CHECK(
      describe_speed({.before = 0.02, .after = 0.02}, 10, 0, {.total_steps = 300, .quantized_from = -1, .probe = {}}) ==
      "about 50 img/s: 1 min 0 s for 300 steps");
  CHECK(describe_speed({.before = 1 / 1372.0, .after = 1}, 343, 0,
                       {.total_steps = 1, .quantized_from = -1, .probe = {}}) == "about 1,372 img/s: 0 s for 1 step");
}

/// What the profiler saw of probe_step(), and the time it took.
struct Probed {
  PhaseSeconds image;
  double seconds = 0;
  int64_t steps = 0;                      // of both phases
  std::array<int64_t, kMacUnits> macs{};  // forward
};

Probed probe(const TrainOptions& o) {
  Probed p;
  start_profiler();
  const auto began = std::chrono::steady_clock::now();
  p.image = probe_step(o);
  p.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  stop_profiler();
  for (const ZoneTotal& z : zone_table()) {
    if (z.name == "optimizer") p.steps = z.count;
    if (z.name == "conv forward") p.macs = z.macs;
  }
  return p;
}

TEST_CASE(
    "probe step: it measures steps on bf16, then steps on codes, and one speed for a network without quantizers") {
  TrainOptions o;
  o.network.arch = "resnet26";
  o.network.width = 0.25;
  o.network.image_size = 32;
  o.network.classes = 10;
  o.batch_size = 4;
  o.shard = 2;
  o.network.precision = "w4a4-fl8";
  int64_t ends = 0, body = 0;  // products of an image, forward
  for (const UnitSpec& u : build_resnet(o.network).units) {
    const bool end = u.name == "conv1" || u.name == "fc";
    (end ? ends : body) += u.macs();
  }
  const int64_t images = 2 * std::min(threads(), 2);  // a shard per thread, at most a batch
  const auto of = [](const Probed& p, MacUnit unit) { return p.macs[static_cast<size_t>(unit)]; };

  const Probed quantized = probe(o);
  const int64_t before = of(quantized, MacUnit::kBf16) / (images * (ends + body));
  const int64_t after = of(quantized, MacUnit::kCode4) / (images * body);
  CHECK(of(quantized, MacUnit::kBf16) == before * images * (ends + body));
  CHECK(of(quantized, MacUnit::kCode4) == after * images * body);
  CHECK(of(quantized, MacUnit::kCode8) == after * images * ends);
  CHECK(of(quantized, MacUnit::kFloat) == 0);
  CHECK((before >= 1 && before <= 3));
  CHECK((after >= 1 && after <= 3));
  CHECK(before + after == quantized.steps);
  CHECK(quantized.image.before > 0);
  CHECK(quantized.image.after > 0);
  CHECK(quantized.image.before != quantized.image.after);
  // A median of up to three steps: half of them, rounded up, took at least as long, and the probe made them all.
  const double steps_before = static_cast<double>((before + 1) / 2), steps_after = static_cast<double>((after + 1) / 2);
  CHECK(static_cast<double>(images) * (steps_before * quantized.image.before + steps_after * quantized.image.after) <=
        quantized.seconds);

  o.network.precision = "bf16";
  const Probed plain = probe(o);
  CHECK(of(plain, MacUnit::kBf16) == plain.steps * images * (ends + body));
  CHECK(of(plain, MacUnit::kCode4) + of(plain, MacUnit::kCode8) + of(plain, MacUnit::kFloat) == 0);
  CHECK(plain.steps <= 3);
  CHECK(plain.image.before > 0);
  CHECK(plain.image.before == plain.image.after);
}

}  // namespace
}  // namespace nibble::apps
