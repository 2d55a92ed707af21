// The curves of a run: what the log says, and the published smoothing by hand-computed values.
#include "nn/study/curves.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace nibble;

Curves curves_of(const std::string& log) {
  const testing::TempDir dir;
  write_file_atomically(dir / "metrics.jsonl", log);
  return read_curves(dir / "metrics.jsonl");
}

std::vector<EvalSample> evaluations(const std::vector<double>& top1) {
  std::vector<EvalSample> all;
  for (size_t i = 0; i < top1.size(); ++i)
    all.push_back({.step = static_cast<int64_t>(10 * (i + 1)),
                   .epoch = static_cast<double>(i + 1),
                   .top1 = top1[i],
                   .top5 = 50 + top1[i] / 2,
                   .loss = 10 - top1[i] / 10});
  return all;
}

}  // namespace

TEST_CASE("training and evaluation lines become two ascending curves") {
  const Curves c = curves_of(
      "{\"step\":20,\"epoch\":2,\"train/loss\":1.5,\"train/top1\":40}\n"
      "{\"step\":10,\"epoch\":1,\"train/loss\":2.5,\"train/top1\":20}\n"
      "{\"step\":20,\"epoch\":2,\"eval/top1\":41.5,\"eval/top5\":90,\"eval/loss\":1.25}\n");
  REQUIRE(c.train.size() == 2);
  CHECK(c.train[0].step == 10);
  CHECK(c.train[0].loss == 2.5);
  CHECK(c.train[1].top1 == 40);
  REQUIRE(c.evaluations.size() == 1);
  CHECK(c.evaluations[0].top5 == 90);
  CHECK(c.evaluations[0].loss == 1.25);
}

TEST_CASE("of two lines for one step the later one counts") {
  const Curves c = curves_of(
      "{\"step\":5,\"epoch\":1,\"eval/top1\":10,\"eval/top5\":50,\"eval/loss\":2}\n"
      "{\"step\":5,\"epoch\":1,\"eval/top1\":12,\"eval/top5\":51,\"eval/loss\":1}\n");
  REQUIRE(c.evaluations.size() == 1);
  CHECK(c.evaluations[0].top1 == 12);
}

TEST_CASE("the log's rates, speeds and waits come at the steps of training, an evaluation knows its images") {
  const Curves c = curves_of(
      "{\"step\":10,\"epoch\":1,\"train/loss\":2,\"lr\":0.05,\"images_per_second\":40.5,\"data_wait\":0.25}\n"
      "{\"step\":20,\"epoch\":2,\"train/loss\":1}\n"
      "{\"step\":20,\"epoch\":2,\"eval/top1\":50,\"eval/images\":1966}\n"
      "{\"step\":30,\"epoch\":3,\"eval/top1\":51,\"eval/images\":-5}\n");
  REQUIRE(c.progress.size() == 2);
  CHECK(c.progress[0].step == 10);
  CHECK(c.progress[0].lr == 0.05);
  CHECK(c.progress[0].images_per_second == 40.5);
  CHECK(c.progress[0].data_wait == 0.25);
  CHECK(std::isnan(c.progress[1].lr));
  REQUIRE(c.evaluations.size() == 2);
  CHECK(c.evaluations[0].images == 1966);
  CHECK(c.evaluations[1].images == 0);
}

TEST_CASE("damaged, foreign and half-written lines are left out") {
  const Curves c = curves_of(
      "not json\n[1,2]\n{\"step\":-1,\"train/loss\":1}\n{\"step\":1e300,\"train/loss\":1}\n{\"train/loss\":1}\n"
      "{\"step\":3,\"epoch\":1,\"eval/top1\":null}\n{\"step\":4,\"epoch\":1,\"train/loss\":null}\n{\"step\":5,\"tra");
  CHECK(c.evaluations.empty());
  REQUIRE(c.train.size() == 1);
  CHECK(c.train[0].step == 4);
  CHECK(std::isnan(c.train[0].loss));
}

TEST_CASE("a missing log is an error that names it") {
  CHECK_THROWS_AS(read_curves("/nonexistent/metrics.jsonl"), DiskError);
}

TEST_CASE("smoothing weighs five epochs 1 3 5 3 1 and renormalises at the ends") {
  const auto s = smoothed(evaluations({10, 20, 30, 40, 90}));
  REQUIRE(s.size() == 5);
  CHECK(s[2].top1 == doctest::Approx((10 + 3 * 20 + 5 * 30 + 3 * 40 + 90) / 13.0));
  CHECK(s[0].top1 == doctest::Approx((5 * 10 + 3 * 20 + 30) / 9.0));
  CHECK(s[4].top1 == doctest::Approx((30 + 3 * 40 + 5 * 90) / 9.0));
  CHECK(s[4].loss == doctest::Approx((7 + 3 * 6 + 5 * 1) / 9.0));
  CHECK(s[4].top5 == doctest::Approx(50 + s[4].top1 / 2));
}

TEST_CASE("smoothed values that are all equal are that value to the bit: a hundred percent stays one") {
  // A last epoch of 9.677 (31 steps per epoch, 300 steps): its weights sum so that 100 came out as 100.00000000000001.
  std::vector<EvalSample> all;
  for (const int64_t step : {31, 62, 93, 124, 155, 186, 217, 248, 279, 300})
    all.push_back({.step = step, .epoch = static_cast<double>(step) / 31, .top1 = 100, .top5 = 100, .loss = 0.1});
  for (const SmoothedEpoch& e : smoothed(all)) {
    CHECK(e.top1 == 100);
    CHECK(e.top5 == 100);
    CHECK(e.loss == 0.1);
  }
}

TEST_CASE("an evaluation has neighbours when others are nearer than two and a half epochs") {
  std::vector<EvalSample> all = evaluations({10, 20, 30});  // epochs 1, 2, 3
  CHECK(has_neighbours(all, 1));
  CHECK(has_neighbours(all, 2, all[1].step));
  CHECK_FALSE(has_neighbours(all, 3, all[2].step));
  all = {all[0]};
  CHECK_FALSE(has_neighbours(all, 1));
  all.push_back(all[0]);
  all[1].epoch = 3.5;
  CHECK_FALSE(has_neighbours(all, 1));
  all[1].epoch = 3.4;
  CHECK(has_neighbours(all, 3.4));
  all[1].epoch = std::nan("");
  CHECK_FALSE(has_neighbours(all, std::nan("")));
}

TEST_CASE("an epoch is not smoothed where no other evaluation counts") {
  const std::vector<EvalSample> all = evaluations({10, 20, 30, 24});
  CHECK(is_smoothed(all, best_smoothed(all, 0)));
  // Earlier evaluations are near, but of bf16 activations.
  CHECK_FALSE(is_smoothed(all, best_smoothed(all, all[3].step)));
  CHECK_FALSE(is_smoothed({all[0]}, best_smoothed({all[0]}, 0)));
  const std::vector<EvalSample> level = evaluations({100, 100, 100});
  CHECK(is_smoothed(level, best_smoothed(level, 0)));
}

TEST_CASE("one lucky epoch is not the best smoothed epoch") {
  const SmoothedEpoch best = best_smoothed(evaluations({10, 60, 10, 50, 52, 51, 50, 49}), 0);
  CHECK(best.step == 60);  // (50 + 3 * 52 + 5 * 51 + 3 * 50 + 49) / 13
  CHECK(best.top1 == doctest::Approx(660.0 / 13));
}

TEST_CASE("of equal smoothed epochs the first is the best") {
  CHECK(best_smoothed(evaluations({30, 30, 30}), 0).step == 10);
}

TEST_CASE("evaluations before the first step that counts are neither the best nor smoothed into later ones") {
  const std::vector<EvalSample> all = evaluations({90, 90, 90, 40, 50, 45, 40, 30});
  const SmoothedEpoch best = best_smoothed(all, 40);
  CHECK(best.step == 50);
  CHECK(best.top1 == doctest::Approx((3 * 40 + 5 * 50 + 3 * 45 + 40) / 12.0));
  CHECK(best_smoothed(all, 31).top1 == best.top1);
  CHECK(best_smoothed(all, 80).top1 == 30);
  CHECK(best_smoothed(all, 81).top1 == best_smoothed(all, 0).top1);  // none is left: all count
}

TEST_CASE("an evaluation whose epoch is not known stands for itself, and is not a neighbour of any other") {
  std::vector<EvalSample> all = evaluations({10, 20, 90, 40, 50});
  all[2].epoch = NAN;
  const auto s = smoothed(all);
  REQUIRE(s.size() == 5);
  CHECK(s[2].top1 == 90);
  CHECK(s[2].loss == 1);
  CHECK(s[1].top1 == doctest::Approx((3 * 10 + 5 * 20 + 40) / 9.0));  // the window continues after it
  CHECK(s[3].top1 == doctest::Approx((20 + 5 * 40 + 3 * 50) / 9.0));
  CHECK(best_smoothed(all, 0).step == 50);  // not the lucky one that could not be smoothed
  for (EvalSample& e : all) e.epoch = NAN;
  CHECK(best_smoothed(all, 0).step == 30);
  CHECK(best_smoothed(all, 0).top1 == 90);
  CHECK(best_smoothed(all, 31).top1 == 50);
}

TEST_CASE("numbers of any size are smoothed to a number, or to the one that was there") {
  std::vector<EvalSample> all = evaluations({10, 20, 30});
  all[0].epoch = -1e308;
  all[1].epoch = 1e308;
  all[2].epoch = HUGE_VAL;
  const auto s = smoothed(all);
  for (size_t i = 0; i < all.size(); ++i) CHECK(s[i].top1 == all[i].top1);
  CHECK(best_smoothed(all, 0).top1 == 20);
}

TEST_CASE("of a log that evaluates without end the nearest 250 on each side are weighed, not all") {
  std::vector<EvalSample> all;  // all in one epoch: the square of their number would take minutes
  for (int64_t i = 0; i < 200'000; ++i) all.push_back({.step = i, .epoch = 1, .top1 = i < 100'000 ? 0.0 : 100.0});
  const auto s = smoothed(all);
  REQUIRE(s.size() == all.size());
  CHECK(s[99'749].top1 == 0);
  CHECK(s[99'750].top1 == doctest::Approx(100 / 501.0));
  CHECK(s[100'249].top1 == doctest::Approx(100 * 500 / 501.0));
  CHECK(s[100'250].top1 == 100);
  CHECK(s[0].top1 == 0);
  CHECK(s.back().top1 == 100);
}

TEST_CASE("thinning keeps the mean and the last step") {
  std::vector<TrainSample> train;
  for (int i = 1; i <= 1000; ++i) train.push_back({.step = i, .epoch = i / 100.0, .loss = i * 1.0, .top1 = 0});
  const auto thin = thinned(train, 7);
  REQUIRE(thin.size() == 7);
  CHECK(thin.back().step == 1000);
  CHECK(thin.back().epoch == doctest::Approx(10));
  CHECK(thin.front().loss == doctest::Approx((1 + 142) / 2.0));
  CHECK(thinned(train, 1000).size() == 1000);
  CHECK(thinned({}, 5).empty());
}
