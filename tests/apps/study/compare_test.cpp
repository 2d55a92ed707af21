// Two studies side by side: differences, their errors, and what does not compare.
#include "apps/study/compare.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/report/statistics.hpp"
#include "apps/study/plan.hpp"
#include "engine/error.hpp"
#include "tests/apps/report/small_study.hpp"
#include "tests/apps/whole_run.hpp"

namespace nibble::apps {
namespace {

using testing::point;
using Points = std::vector<PointResult>;

Points baseline() {
  return {point("bf16", 1, 70, 0), point("bf16", 1, 71, 1), point("bf16", 1, 72, 2), point("w4a4-fl8", 1, 68),
          point("w8a8", 0.5, 60)};
}

/// What is left of a difference when its studies are gone.
struct FirstDifference {
  double value = 0, error = 0;
  Verdict verdict = Verdict::kNotTested;
  bool decided = false;
};

FirstDifference of_first(const Points& a, const Points& b) {
  const StudyComparison c(a, b);
  const MeanDifference d = c.difference(c.pairs().front(), &StudyGroup::top1);
  return {d.value(), d.error(), d.verdict(), d.decided()};
}

double image_variance(double percent) {
  return std::pow(binomial_error(percent, 10000), 2);
}

TEST_CASE("study compare: models of both studies are compared, B less A; those of one alone are named") {
  const Points a = baseline(), b = {point("w4a4-fl8", 1, 67.5), point("bf16", 1, 74), point("w4a4", 1, 50)};
  const StudyComparison c(a, b);
  REQUIRE(c.pairs().size() == 2);
  CHECK(c.pairs()[0].first->name() == "bf16 x1");
  CHECK(c.difference(c.pairs()[0], &StudyGroup::top1).value() == doctest::Approx(3));
  CHECK(c.difference(c.pairs()[1], &StudyGroup::top1).value() == doctest::Approx(-0.5));
  CHECK(c.mean_difference(&StudyGroup::top1).value() == doctest::Approx(1.25));
  CHECK(c.mean_difference(&StudyGroup::top1).positive() == 1);
  // Of the gap: training images less validation images, which were 90 and as above.
  CHECK(c.difference(c.pairs()[0], &StudyGroup::gap).value() == doctest::Approx(-3));
  CHECK(c.only_a() == std::vector<std::string>{"w8a8 x0.5"});
  CHECK(c.only_b() == std::vector<std::string>{"w4a4 x1"});
}

TEST_CASE("study compare: errors of two studies with several seeds each, and by how many degrees of freedom") {
  // Spreads over seeds of 1 (two degrees) and of the root of 2 (one).
  const auto with = [](double first, double second) {
    return Points{point("bf16", 1, first, 0), point("bf16", 1, second, 1)};
  };
  const FirstDifference d = of_first(baseline(), with(73, 75));
  CHECK(d.value == doctest::Approx(3));
  const double images = image_variance(71) + image_variance(74), seeds_a = 1.0 / 3, seeds_b = 2.0 / 2;
  CHECK(d.error == doctest::Approx(std::sqrt(images + seeds_a + seeds_b)));
  // (1.73)^2 / (0.33^2 / 2 + 1^2 / 1) = 2.8 degrees, of which two count: 4.303 errors. With one more it were 3.182.
  CHECK_FALSE(of_first(baseline(), with(75, 77)).decided);
  CHECK(of_first(baseline(), with(75, 77)).value > 3.182 * of_first(baseline(), with(75, 77)).error);
  CHECK(of_first(baseline(), with(76, 78)).verdict == Verdict::kHolds);
  CHECK(of_first(baseline(), with(64, 66)).verdict == Verdict::kContradicted);
}

TEST_CASE("study compare: a spread over seeds that only one study knows stands for both") {
  const Points one = {point("bf16", 1, 74)};
  const double images = image_variance(71) + image_variance(74);
  const double expected = std::sqrt(images + 1.0 / 3 + 1);  // a spread of 1: three seeds and one
  CHECK(of_first(baseline(), one).error == doctest::Approx(expected));
  CHECK(of_first(one, baseline()).error == doctest::Approx(expected));
  CHECK(of_first(one, baseline()).value == doctest::Approx(-3));
  // Two degrees, times (1.72 / 1.33)^2: 3.3, of which three count.
  const double most = 3.182 * std::sqrt(image_variance(71) + image_variance(75) + 4.0 / 3);
  CHECK_FALSE(of_first(baseline(), {point("bf16", 1, 71 + most - 0.1)}).decided);
  CHECK(of_first(baseline(), {point("bf16", 1, 71 + most + 0.1)}).decided);
  const Points another = {point("bf16", 1, 74, 1)};
  const StudyComparison known(baseline(), one), unknown(another, one);
  CHECK(known.knows_seeds());
  CHECK_FALSE(unknown.knows_seeds());
  CHECK(unknown.difference(unknown.pairs().front(), &StudyGroup::top1).error() ==
        doctest::Approx(std::sqrt(2 * image_variance(74))));
}

TEST_CASE("study compare: all options in which the recipes differ, layers with precisions of their own, too") {
  const auto studied = [](const std::string& config) {
    Points p = {point("bf16", 1, 70)};
    p.front().provenance.config = config;
    return p;
  };
  const Points a = studied("epochs = 15\nlr = 0.05\nseed = 0\n[layers.\"fc\"]\nprecision = \"w8a8\"\n");
  const Points b = studied("epochs = 30\nlr = 0.1\nseed = 1\n");
  const auto names = [](const StudyComparison& c) {
    std::vector<std::string> all;
    for (const ConfigDifference& d : c.recipe()) all.push_back(d.name);
    std::sort(all.begin(), all.end());
    return all;
  };
  const StudyComparison c(a, b);
  const std::vector<std::string> forth = names(c), back = names(StudyComparison(b, a));
  REQUIRE(forth.size() == 3);
  CHECK(forth == back);
  CHECK(forth[1] == "epochs");
  CHECK(forth[2] == "lr");
  CHECK(testing::has(forth[0], "fc"));
  const auto epochs =
      std::find_if(c.recipe().begin(), c.recipe().end(), [](const auto& d) { return d.name == "epochs"; });
  CHECK(epochs->first == "15");
  CHECK(epochs->second == "30");
  CHECK(StudyComparison(a, a).recipe().empty());
}

TEST_CASE("study compare: other classes, other numbers of images and no common model are refused") {
  const auto refused = [](const Points& b, const char* why) {
    CHECK_THROWS_WITH_AS(StudyComparison(baseline(), b), doctest::Contains(why), DataError);
  };
  Points other = {point("bf16", 1, 70)};
  other.front().classes = 11;
  refused(other, "10 classes and 10000 validation images in A, 11 classes");
  other.front().classes = 10;
  other.front().last.images = 9899;
  refused(other, "9899 validation images in B; compare studies of the same images");
  other.front().last.images = 9900;
  CHECK_NOTHROW(StudyComparison(baseline(), other));
  refused({point("w4a4", 1, 50), point("bf16", 0.75, 60)}, "B has bf16 x0.75, w4a4 x1; train models of the same ones");
}

TEST_CASE("study compare: a model that no option of the recipe touches is the same, and in no mean") {
  const Points a = {point("bf16", 1, 70, 0), point("bf16", 1, 72, 1), point("w4a4", 1, 60, 0), point("w4a4", 1, 62, 1)};
  Points b = {a[0], a[1], point("w4a4", 1, 63, 0), point("w4a4", 1, 65, 1)};
  const auto mean_of = [](const Points& from, const Points& to) {
    const StudyComparison c(from, to);
    const MeanDifference d = c.mean_difference(&StudyGroup::top1);
    return std::pair(c.same(c.pairs().front()), std::pair(d.value(), d.error()));
  };
  const auto [same, mean] = mean_of(a, b);
  CHECK(same);
  CHECK(mean.first == doctest::Approx(3));
  CHECK(mean.second == doctest::Approx(std::sqrt(image_variance(61) + image_variance(64) + 2.0 / 2 + 2.0 / 2)));
  // A seed that one study alone has is chance, not the recipe.
  b.erase(b.begin() + 1);
  CHECK(mean_of(a, b).first);
  CHECK(mean_of(a, b).second.first == doctest::Approx(3));
  // No seed in common, or a loss that differs in its last digit: other models, however equal their accuracy.
  b.front().seed = 2;
  CHECK_FALSE(mean_of(a, b).first);
  CHECK(mean_of(a, b).second.first == doctest::Approx((3.0 - 1.0) / 2));
  b.front().seed = 0;
  b.front().last.loss = std::nextafter(b.front().last.loss, 2);
  CHECK_FALSE(mean_of(a, b).first);
  CHECK(mean_of(a, a).second == std::pair(0.0, 0.0));
  // Nor are those the same that are right on other images, where that is known.
  Points known = a, other = a;
  known.front().outcomes = {"these", "10"};
  CHECK(mean_of(known, other).first);
  other.front().outcomes = {"these", "01"};
  CHECK_FALSE(mean_of(known, other).first);
}

TEST_CASE("study compare: what the program prints, and a warning where the validation images are others") {
  if (testing::no_program()) return;
  const testing::TemporaryFolder folder("compare");
  const auto study = [&](const std::string& name, const Points& points, const std::string& validation) {
    const std::filesystem::path at = folder / name;
    for (const PointResult& p : points) {
      std::filesystem::create_directories(at / p.name);
      testing::write_text(at / p.name / "result.json", to_json(p));
    }
    StudyPlan plan;
    plan.data = {.class_names = {"a", "b"}, .train_images = 9, .validation_images = 3, .images = "train " + validation};
    plan.points = {{.precision = "bf16", .width = 1, .seed = 0}};
    testing::write_text(plan_path(at), to_json(plan));
    return at.string();
  };
  const std::string a = study("a", baseline(), "these"), same = study("same", {point("bf16", 1, 71)}, "these");
  const std::string b = study("b", {point("bf16", 1, 90), point("w4a4-fl8", 1, 80)}, "others");
  const testing::Result text = testing::run_well("study compare " + a + " " + b);
  for (const char* line : {"bf16 x1", "71.00, 3 seeds", "+19.00 (1.28)  beyond chance", "mean", "+15.50",
                           "B is more accurate in 2 of 2 models; the mean difference is beyond chance",
                           "gap to the training images (without augmentation, last epoch): -15.50",
                           "recipes: no difference", "A alone has w8a8 x0.5"})
    CHECK_MESSAGE(testing::has(text.out, line), text.out);
  CHECK(testing::has(text.err, "A and B were judged on other validation images"));
  const testing::Result quiet = testing::run_well("study compare " + same + " " + a);
  CHECK(quiet.err.empty());
  CHECK(testing::has(quiet.out, "A and B are equally accurate in 1 model"));
  CHECK(testing::has(quiet.out, "errors: not all results say what became of each image"));
  CHECK(testing::has(testing::run_well("study compare " + a + " " + a).out,
                     "A and B have the same models: what their recipes differ in does not touch them"));
  Points chance = {point("bf16", 1, 71.2, 3), point("w4a4-fl8", 1, 68, 3)};
  const std::string c = study("c", chance, "these");
  CHECK(testing::has(testing::run_well("study compare " + a + " " + c).out,
                     "B is more accurate in 1 of 2 models, equally in 1; the mean difference may be chance"));
  for (PointResult& p : chance) {
    p.image_size = 32;
    p.provenance.config = "epochs = 15\n";
    p.outcomes = {"these", std::string(static_cast<size_t>(100 * p.last.top1), '1')};
    p.outcomes.right.resize(10000, '0');
  }
  chance[1].provenance.config = "epochs = 16\n";
  const std::string d = study("d", chance, "these");
  const testing::Result warned = testing::run_well("study compare " + a + " " + d);
  CHECK(testing::has(warned.err,
                     "A is of resnet26 at 64 px, B of resnet26 at 32 px: models of one width are not of one"));
  CHECK(testing::has(warned.err, "the models of " + d +
                                     " were not made by one recipe: bf16-x1-s3 has epochs = 15, "
                                     "w4a4-fl8-x1-s3 has 16"));
  CHECK(testing::json_of(testing::run_well("study compare --json " + a + " " + d)).at("paired") == false);
  for (PointResult& p : chance) p.seed = 4;
  const std::string other_seed = study("d-4", chance, "these");
  CHECK(testing::json_of(testing::run_well("study compare --json " + d + " " + other_seed)).at("paired") == false);
  CHECK(testing::has(testing::run_well("study compare " + d + " " + other_seed).out,
                     "errors: no model has several seeds"));
  chance.push_back(chance[0]);
  chance[2].seed = 1;
  chance[2].name = "bf16-x1-s1";
  const std::string e = study("e", chance, "these");
  CHECK(testing::json_of(testing::run_well("study compare --json " + d + " " + e)).at("paired") == true);
  CHECK(testing::has(testing::run_well("study compare " + d + " " + e).out,
                     "errors: all models were judged on the same images"));
  for (PointResult& p : chance) p.outcomes.images = "others";
  const testing::Result strange = testing::run_well("study compare " + d + " " + study("f", chance, "these"));
  CHECK(testing::has(strange.err, "A and B were judged on other validation images"));
  CHECK(testing::has(strange.out, "errors: models were not all judged on the same images"));
  const nlohmann::json j = testing::json_of(testing::run_well("study compare --json " + a + " " + b));
  CHECK(j.at("models").size() == 2);
  CHECK(j.at("models")[0].at("top1").at("difference") == doctest::Approx(19));
  CHECK(j.at("models")[0].at("seeds_a") == 3);
  CHECK(j.at("mean").at("gap").at("difference") == doctest::Approx(-15.5));
  CHECK(j.at("mean").at("top1").at("beyond_chance") == true);
  CHECK(j.at("only_a") == nlohmann::json({"w8a8 x0.5"}));
  CHECK(j.at("seed_spread") == true);
  CHECK(j.at("models")[1].at("same") == false);
  CHECK(j.at("versions").at("a") == j.at("versions").at("b"));
  for (PointResult& p : chance) p.provenance.version = "0.1.0, then 0.2.0+123-dirty";
  const testing::Result dirty = testing::run_well("study compare " + d + " " + study("g", chance, "these"));
  CHECK(testing::has(dirty.err, "3 of 3 points were trained by sources with changes since their commit"));
  CHECK(testing::has(dirty.out, "versions: A ; B 0.1.0, 0.2.0+123-dirty"));
  testing::check_refused("study compare " + a + " " + a + "-not", 2, "there is no study");
  testing::check_refused("study compare " + a, 2, "B is required");
}

}  // namespace
}  // namespace nibble::apps
