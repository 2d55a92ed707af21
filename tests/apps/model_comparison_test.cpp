// Two models on the same images, and the likeliest classes of one.
#include "apps/model_comparison.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/guesses.hpp"
#include "tests/near.hpp"

namespace nibble::apps {
namespace {

/// Images whose logits are largest at `classes` (of three; -1: a NaN), all with the given labels.
void add(Answers& answers, const std::vector<int64_t>& images, const std::vector<int32_t>& labels,
         const std::vector<int>& classes) {
  Batch batch;
  batch.indices = images;
  batch.labels = labels;
  const Tensor logits(DType::f32, {batch.size(), 3});
  for (int64_t i = 0; i < batch.size(); ++i)
    for (int k = 0; k < 3; ++k) {
      const int largest = classes[static_cast<size_t>(i)];
      logits.row<float>(i)[k] = largest < 0 && k == 1 ? std::numeric_limits<float>::quiet_NaN() : k == largest ? 2 : 1;
    }
  answers.add(batch, logits);
}

TEST_CASE("model comparison: images of both, right in one alone, the same class, and the error of the difference") {
  Answers here, there;
  add(here, {0, 1, 2}, {0, 1, 2}, {0, 1, 0});
  add(here, {4, 5, 7}, {2, 0, 0}, {2, 1, -1});
  add(there, {0, 2, 3, 4}, {0, 2, 0, 2}, {1, 2, 0, 1});
  add(there, {5, 7, 8}, {0, 0, 0}, {1, -1, 0});
  CHECK(here.all().size() == 6);
  CHECK(here.all().back().taken_for == -1);
  const ModelComparison c = compare_answers(here, there);  // images 0, 2, 4, 5, 7
  CHECK(c.images == 5);
  CHECK(c.same == 2);              // 5, both wrong, and 7
  CHECK(c.right_only_here == 2);   // 0 and 4
  CHECK(c.right_only_there == 1);  // 2
  CHECK(c.difference() == doctest::Approx(20));
  // Of +1, -1, +1, 0, 0: mean 0.2, squares 3; (3 - 5 * 0.04) / 4 = 0.7; sqrt(0.7 / 5) = 0.3742.
  CHECK(c.standard_error() == doctest::Approx(37.416574));
  const ModelComparison back = compare_answers(there, here);
  CHECK(back.difference() == doctest::Approx(-20));
  CHECK(back.standard_error() == doctest::Approx(c.standard_error()));
  const ModelComparison same = compare_answers(here, here);
  CHECK(same.images == 6);
  CHECK(same.same == 6);
  CHECK(same.difference() == 0);
  CHECK(same.standard_error() == 0);
  Answers one;
  add(one, {0}, {0}, {0});
  CHECK(std::isnan(compare_answers(one, one).standard_error()));
}

TEST_CASE("guesses: the likeliest by their logits, equal ones by their numbers, names where there are some") {
  const auto indices = [](const std::vector<float>& logits, int64_t top) {
    std::vector<int64_t> all;
    for (const Guess& g : best_guesses(logits.data(), std::ssize(logits), top)) all.push_back(g.index);
    return all;
  };
  CHECK(indices({1, 3, 2, 3}, 3) == std::vector<int64_t>{1, 3, 2});
  CHECK(indices({1, 3}, 5) == std::vector<int64_t>{1, 0});
  // Their probabilities round to the same number, which is 0.
  CHECK(indices({0, -300, 400, -200}, 4) == std::vector<int64_t>{2, 0, 3, 1});
  const std::vector<Guess> two = best_guesses(std::vector<float>{0, std::log(3.0f)}.data(), 2, 2);
  CHECK(two[0].p == doctest::Approx(0.75));
  CHECK(two[1].p == doctest::Approx(0.25));
  const float broken[] = {1, std::numeric_limits<float>::infinity(), 3};
  for (const Guess& g : best_guesses(broken, 3, 2)) CHECK(std::isnan(g.p));
  CHECK(nlohmann::json(guesses_json({{1, 0.5f}, {7, 0.25f}}, {"a", "b"})) ==
        nlohmann::json::parse(R"([{"index":1,"name":"b","p":0.5},{"index":7,"name":"7","p":0.25}])"));
}

}  // namespace
}  // namespace nibble::apps
