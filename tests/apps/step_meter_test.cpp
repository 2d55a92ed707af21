// Sums and times of training steps, on a clock that moves only when it is told to.
#include "apps/training/step_meter.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "apps/console.hpp"

namespace nibble::apps {
namespace {

using Clock = StepMeter::Clock;

/// Seconds that binary fractions hold exactly.
struct TestClock {
  Clock::time_point now{std::chrono::hours(1)};

  void pass(double seconds) {
    now += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }
  /// Of 8 images, 2 of them right.
  static StepResult step(double loss) {
    return {.loss = loss, .top1 = 2, .top5 = 4, .images = 8, .rate = 0.5f, .gradient_norm = 3};
  }
  /// A run of 20 steps, 4 per epoch.
  StepMeter meter() {
    return StepMeter(20, 4, [this] { return now; });
  }
};

nlohmann::json line_of(StepMeter& meter, int64_t done, double waited) {
  return nlohmann::json::parse(meter.take(done, waited).text());
}

StepPace pace() {
  return StepPace({.total_steps = 20, .quantized_from = -1, .probe = {.before = 2, .after = 2}});
}

TEST_CASE("step meter: a line holds means over its steps, the last step's rate and norm, speed and share of waiting") {
  TestClock clock;
  StepMeter meter = clock.meter();
  clock.pass(1);
  meter.add(TestClock::step(3));
  clock.pass(3);
  meter.add({.loss = 2, .top1 = 4, .top5 = 4, .images = 8, .rate = 0.25f, .gradient_norm = 5});
  CHECK(meter.steps() == 2);
  const nlohmann::json expected = {{"step", 6},  {"epoch", 1.5},     {"train/loss", 2.5},        {"train/top1", 37.5},
                                   {"lr", 0.25}, {"grad_norm", 5.0}, {"images_per_second", 4.0}, {"data_wait", 0.25}};
  CHECK(line_of(meter, 6, 1) == expected);
  CHECK(meter.steps() == 0);
}

TEST_CASE(
    "step meter: the next line counts neither the steps nor the waiting of the one before, nor the time between") {
  TestClock clock;
  StepMeter meter = clock.meter();
  clock.pass(4);
  meter.add(TestClock::step(3));
  meter.take(1, 1);
  clock.pass(64);
  meter.go_on(17);  // waited for between the two as well
  clock.pass(2);
  meter.add(TestClock::step(1));
  const nlohmann::json line = line_of(meter, 2, 17.5);
  CHECK(line.at("train/loss") == 1);
  CHECK(line.at("train/top1") == 25);
  CHECK(line.at("images_per_second") == 4);
  CHECK(line.at("data_wait") == 0.25);
}

TEST_CASE("step meter: what is excluded is part of no line's time, and of no speed") {
  TestClock clock;
  StepMeter meter = clock.meter();
  clock.pass(1);
  meter.add(TestClock::step(3));
  for (int i = 0; i < 2; ++i) {
    const Clock::time_point from = clock.now;
    clock.pass(32);
    meter.exclude(from);
  }
  CHECK(meter.images_per_second() == 8);
  clock.pass(1);
  meter.add(TestClock::step(3));
  CHECK(meter.images_per_second() == 8);
  CHECK(line_of(meter, 2, 0.5).at("images_per_second") == 8);
  meter.go_on(0.5);
  const Clock::time_point from = clock.now;
  clock.pass(32);
  meter.exclude(from);
  clock.pass(4);
  meter.add(TestClock::step(3));
  CHECK(line_of(meter, 3, 0.5).at("images_per_second") == 2);
}

TEST_CASE("step meter: the speed of a run is that of all its steps; what follows its last line does not count") {
  TestClock clock;
  StepMeter meter = clock.meter();
  CHECK(meter.images_per_second() == 0);
  clock.pass(2);
  meter.add(TestClock::step(3));
  CHECK(meter.images_per_second() == 4);
  meter.take(1, 0);
  CHECK(meter.images_per_second() == 4);
  clock.pass(64);
  CHECK(meter.images_per_second() == 4);
  meter.go_on(0);
  clock.pass(6);
  meter.add(TestClock::step(3));
  CHECK(meter.images_per_second() == 2);
  meter.take(2, 0);
  clock.pass(64);
  CHECK(meter.images_per_second() == 2);
}

TEST_CASE("step meter: the last loss is the last step's, also after its line, and there is none before the first") {
  TestClock clock;
  StepMeter meter = clock.meter();
  CHECK_FALSE(meter.last_loss());
  meter.add(TestClock::step(3));
  meter.add(TestClock::step(1));
  CHECK(meter.last_loss() == 1);
  clock.pass(1);
  meter.take(2, 0);
  CHECK(meter.last_loss() == 1);
}

TEST_CASE("step meter: no time and no step divide nothing by zero") {
  TestClock clock;
  StepMeter meter = clock.meter();
  const nlohmann::json line = line_of(meter, 0, 0);
  for (const char* key : {"train/loss", "train/top1", "images_per_second", "data_wait"}) CHECK(line.at(key) == 0);
}

TEST_CASE("step meter: a progress line is due at the first step, when its time has passed, and at the last step") {
  const Clock::duration every = std::chrono::milliseconds(interactive() ? 200 : 10000), least(1);
  TestClock clock;
  StepMeter meter = clock.meter();
  int64_t done = 0;
  const auto shown_after = [&](Clock::duration time) {
    clock.now += time;
    meter.add(TestClock::step(3));
    return meter.progress_line(++done, 0, pace()).has_value();
  };
  CHECK(shown_after(least));
  CHECK_FALSE(shown_after(every - least));
  CHECK(shown_after(least));
  CHECK_FALSE(shown_after(every / 2));  // since the line before, not since the start
  CHECK(shown_after(every / 2));
  CHECK(shown_after(every));
  done = 18;
  CHECK_FALSE(shown_after(least));
  CHECK(shown_after(least));  // step 20 of 20
}

TEST_CASE("step meter: the progress line says means and speed since the last line of the log, and the time left") {
  TestClock clock;
  StepMeter meter = clock.meter();
  clock.pass(16);
  meter.add(TestClock::step(7));
  meter.take(1, 3);
  meter.go_on(3);
  clock.pass(2);
  meter.add(TestClock::step(3));
  clock.pass(2);
  meter.add(TestClock::step(2));
  CHECK(meter.progress_line(3, 4, pace()) ==
        "epoch 0.75/5  step 3/20  loss 2.500  top1 25.0  lr 0.5  4.0 img/s  wait 25 %  34 s left");
  CHECK(meter.steps() == 2);  // as they were
}

}  // namespace
}  // namespace nibble::apps
