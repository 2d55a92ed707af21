// The report of a study: groups, errors, fronts, verdicts, and pages that hostile results cannot break.
#include "apps/report/study_report.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/report/study_charts.hpp"
#include "apps/report/study_data.hpp"
#include "engine/error.hpp"
#include "nn/study/study_folder.hpp"
#include "tests/apps/program.hpp"
#include "tests/apps/report/small_study.hpp"
#include "tests/apps/report/xml_checker.hpp"
#include "tests/shared_data.hpp"

namespace nibble::apps {
namespace {

using testing::count_of;
using testing::has;
using testing::point;
using testing::small_study;
using testing::TemporaryFolder;

TEST_CASE("study report: points of one precision and width are one group, with errors of images and of seeds") {
  const std::vector<PointResult> points = {point("bf16", 1, 70, 1), point("bf16", 1, 74, 0), point("w4a4", 0.5, 50),
                                           point("bf16", 0.5, 60)};
  const std::vector<StudyGroup> groups = group_points(points);
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].name() == "bf16 x0.5");
  CHECK(groups[1].name() == "bf16 x1");
  CHECK(groups[2].name() == "w4a4 x0.5");
  CHECK(groups[1].first().seed == 0);
  CHECK(groups[1].top1.value == doctest::Approx(72));
  // Binomial: 100 * sqrt(0.72 * 0.28 / 10000); two seeds at 70 and 74: sd sqrt(8), of the mean sqrt(8 / 2).
  CHECK(seed_spread(groups) == doctest::Approx(std::sqrt(8)));
  CHECK(groups[1].top1.error == doctest::Approx(std::sqrt(0.72 * 0.28 + 4)));
  CHECK(groups[2].top1.error == doctest::Approx(std::sqrt(0.25 + 8)));  // one seed: the spread of those with several
  CHECK(groups[2].gap.value == doctest::Approx(40));
  CHECK(groups[2].gap.error == doctest::Approx(std::sqrt(0.25 + 0.09 + 8)));
  CHECK(has(study_page(points, "s"), "varies by 2.83 points (standard deviation, pooled"));
  const std::vector<PointResult> single = {point("w4a4", 0.5, 50)};
  const std::vector<StudyGroup> alone = group_points(single);
  CHECK(seed_spread(alone) == 0);
  CHECK(alone[0].top1.error == doctest::Approx(0.5));
  CHECK(alone[0].gap.error == doctest::Approx(std::sqrt(0.25 + 0.09)));
  CHECK(has(study_page(single, "s"), "No model has several seeds, so the second part is not known"));
}

TEST_CASE(
    "study report: the spread over seeds is pooled by degrees of freedom, and a gap's is that of the differences") {
  std::vector<PointResult> points = {point("bf16", 1, 70, 0), point("bf16", 1, 72, 1), point("w4a4", 1, 60, 0),
                                     point("w4a4", 1, 63, 1), point("w4a4", 1, 66, 2)};
  // Variances 2 (one degree of freedom) and 9 (two).
  CHECK(seed_spread(group_points(points)) == doctest::Approx(std::sqrt((2 + 2 * 9) / 3.0)));
  // Training accuracy moves as validation does: the gaps do not vary.
  for (PointResult& p : points) p.train_unaugmented.top1 = p.last.top1 + 10;
  const std::vector<StudyGroup> groups = group_points(points);
  CHECK(groups[1].gap.value == doctest::Approx(10));
  CHECK(groups[1].gap.error == doctest::Approx(std::sqrt(0.63 * 0.37 + 0.73 * 0.27)));
}

TEST_CASE("study report: the front is what no model beats at lower or equal cost") {
  const std::vector<PointResult> points = small_study();
  const std::vector<StudyGroup> groups = group_points(points);
  std::vector<std::string> names;
  for (const StudyGroup* g : front_of(groups, cost_kinds()[0])) names.push_back(g->name());
  CHECK(names ==
        std::vector<std::string>{"w4a4 x0.5", "w4a4-fl8 x0.5", "w8a8 x0.5", "w4a4 x1", "w4a4-fl8 x1", "w8a8 x1"});
  CHECK(front_of(groups, cost_kinds()[3]).empty());  // no latency was measured
  CHECK(best_under(groups, 0.3)->name() == "w4a4-fl8 x1");
  CHECK(best_under(groups, 0.001) == nullptr);
}

TEST_CASE("study report: the studies in bench/results say what this version says of their points") {
  int studies = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::source_root() / "bench/results")) {
    if (!has(entry.path().filename().string(), "study-")) continue;
    CAPTURE(entry.path());
    const std::vector<PointResult> points = read_study(entry.path().string());
    // Not the files themselves: a failure would print them.
    CHECK((study_json(points) == testing::read_text(entry.path() / "study.json")));
    CHECK((study_picture(points) == testing::read_text(entry.path() / "pareto.svg")));
    // Every model has its label: half a comparison is of no use.
    const std::string picture = study_picture(points);
    const std::vector<StudyGroup> groups = group_points(points);
    for (const StudyGroup& g : groups)
      CHECK(count_of(picture, fmt::format(">x{:g}</text>", g.width)) ==
            std::count_if(groups.begin(), groups.end(), [&](const StudyGroup& o) { return o.width == g.width; }));
    ++studies;
  }
  CHECK(studies > 0);
}

TEST_CASE("study report: the page has every part, and no script, link or broken tag") {
  const std::string html = study_page(small_study(), "small");
  testing::XmlFacts xml = testing::xml_facts(html);
  CHECK(xml.problem == "");
  CHECK(xml.links.empty());
  CHECK(xml.elements.count("script") == 0);
  for (const char* part :
       {"Study: small", "The published findings", "The best model for a budget", "Accuracy and cost",
        "Training against validation", "Training curves", "Where the cost is, at width 1", "What the quantizers do",
        "All points", "Where it comes from", "saved as config.resolved.toml, whose data names",
        "Confirmed of the published findings: 4 bits with 8-bit"})
    CHECK_MESSAGE(has(html, part), part);
  // linear, quadratic, memory, bytes, width; two curves for each of two widths; four precisions' layers.
  CHECK(xml.elements["figure"] == 5 + 4 + 4);
  CHECK(count_of(html, "class=\"front\"") == 4);
  CHECK(count_of(html, "the paper: ResNet-50, ImageNet") == 3);
  CHECK(count_of(html, "100 % of its linear cost is more accurate in 1 case; the mean difference is ") == 1);
  CHECK(count_of(html, "(per-channel-by fold)") == 1);
}

TEST_CASE("study report: times of one sitting compare, those of several moments or machines are called so") {
  std::vector<PointResult> points = small_study();
  CHECK(times_of(points).machines.empty());
  CHECK_FALSE(has(study_page(points, "s"), "Times were measured"));
  for (PointResult& p : points)
    p.latency = {
        .batch1_ms = 2, .batch32_ms_per_image = 1, .threads = 2, .cpu = "Cpu A", .isa = "avx2", .sitting = "T"};
  CHECK(times_of(points).compare());
  CHECK(has(study_page(points, "s"), "Cpu A (avx2 kernels, 2 threads), all models in turn, from T on."));
  points[1].latency.sitting.clear();
  CHECK(has(study_page(points, "s"), "some in turn, others when their training ended"));
  points[1].latency.sitting = "U";
  CHECK_FALSE(times_of(points).compare());
  CHECK(has(study_page(points, "s"), ", in 2 sittings, which do not compare."));
  for (PointResult& p : points) p.latency.sitting.clear();
  CHECK(has(study_page(points, "s"), ", each when its training ended"));
  for (PointResult& p : points) p.latency.sitting = "T";
  points[1].latency.cpu = "Cpu <b>";
  CHECK(has(study_page(points, "s"),
            "Cpu &lt;b&gt; (avx2 kernels, 2 threads) and Cpu A (avx2 kernels, 2 threads); only those of one "));
  points[1].latency.batch1_ms = 0;
  CHECK(times_of(points).sittings == std::vector<std::string>{"T"});
  CHECK(times_of(points).compare());
}

TEST_CASE("study report: a layer with bits of its own is named") {
  std::vector<PointResult> points = small_study();
  CHECK(count_of(study_page(points, "small"), "<figcaption>8 bits: conv1, fc; 4 bits: all others.</figcaption>") == 1);
  CHECK(count_of(study_page(points, "small"), "<figcaption>16 bits: all layers.</figcaption>") == 1);
  points[7].layers[5].weight_bits = points[7].layers[5].activation_bits = 8;
  const std::string named = "<figcaption>8 bits: " + points[7].layers[5].name + "; 4 bits: all others.</figcaption>";
  CHECK(count_of(study_page(points, "small"), named) == 1);
  for (size_t i = 5; i < 16; ++i) points[7].layers[i].weight_bits = 8;
  CHECK(count_of(study_page(points, "small"), "<figcaption>8 bits: 11 layers; 4 bits: all others.</figcaption>") == 1);
}

TEST_CASE("study report: layers of their own are named at once and next to the precisions that they belong to") {
  std::vector<PointResult> points = small_study();
  CHECK_FALSE(has(study_page(points, "plain"), "a precision of their own"));
  CHECK_FALSE(has(study_page(points, "plain"), "; except"));
  const auto set = [](PointResult& p, size_t layer) {
    p.layers[layer].weight_bits = p.layers[layer].activation_bits = 8;
  };
  for (PointResult& p : points) set(p, 5);
  const std::string name = points[0].layers[5].name, except = "; except, in all its models, " + name + " w8a8<";
  std::string html = study_page(points, "eight");
  CHECK(has(html, "whatever that of the model: " + name + " w8a8; what is called a bf16 model here has them too"));
  CHECK(has(html, "bf16: weights and activations as 16-bit floats, not quantized" + except));
  CHECK(has(html, "w4a4: 4-bit weights and activations in every layer" + except));
  CHECK(has(html, "w8a8: 8-bit weights and activations<"));  // they have these bits anyway
  CHECK(count_of(html, except) == 3);
  points = small_study();
  set(points[7], 5);
  html = study_page(points, "one");
  CHECK(has(html, "whatever that of the model: " + name + " w8a8. "));
  CHECK(has(html, "in every layer; except, in some of its models, " + name + " w8a8<"));
  for (size_t i = 5; i < 14; ++i) set(points[7], i);
  CHECK(has(study_page(points, "many"), "whatever that of the model: 9 layers. "));
}

TEST_CASE("study report: models are counted once whatever their seeds, and it is said which have several") {
  std::vector<PointResult> points = small_study();
  CHECK(has(study_page(points, "s"), "8 models of resnet26"));
  CHECK_FALSE(has(study_page(points, "s"), "trainings"));
  points.push_back(point("bf16", 1, 71, 1));
  CHECK(has(study_page(points, "s"),
            "There were 9 trainings: bf16 x1 with 2 seeds, whose mean counts, the others with one."));
  points.push_back(point("w4a4", 1, 66, 1));
  points.push_back(point("w4a4", 1, 66, 2));
  const std::string html = study_page(points, "s");
  CHECK(has(html, "8 models of resnet26"));
  CHECK(has(html, "There were 11 trainings: bf16 x1 with 2 and w4a4 x1 with 3 seeds, whose mean counts, the others"));
  points = {points[1], points[8]};
  CHECK(has(study_page(points, "s"), "One model of resnet26"));
  CHECK(has(study_page(points, "s"), "There were 2 trainings, 2 seeds, whose mean counts."));
}

TEST_CASE("study report: it is said whether one recipe trained all points, and where two differ") {
  std::vector<PointResult> points = small_study();
  for (PointResult& p : points)
    p.provenance.config = fmt::format("width = {}\nseed = {}\nkeep = {}\nepochs = 15\n", p.width, p.seed, p.width);
  CHECK(has(study_page(points, "s"), "trained by one recipe and judged on"));
  points[2].provenance.config = "epochs = 3\n";
  CHECK(has(study_page(points, "s"),
            "trained by different recipes, which do not compare (bf16-x0.5-s0 has epochs = 15, "
            "w8a8-x0.5-s0 has 3), and judged on"));
  points = small_study();
  points[4].steps = 100;
  CHECK(has(study_page(points, "s"), "(bf16-x0.5-s0 has steps = 0, w4a4-fl8-x1-s0 has 100), and"));
}

TEST_CASE("study report: accuracies that nothing smoothed are called so") {
  std::vector<PointResult> points = small_study();
  for (PointResult& p : points) p.best.top1 -= 0.01;  // of no single evaluation
  CHECK_FALSE(has(study_page(points, "s"), "the best evaluation itself"));
  points[0].curves.evaluations.erase(points[0].curves.evaluations.begin());
  CHECK(has(study_page(points, "s"), "smoothed over five epochs (of 1 point, it is the best evaluation itself"));
  for (PointResult& p : points) p.curves.evaluations.clear();
  CHECK(has(study_page(points, "s"), "smoothed over five epochs (of all points, it is the best evaluation itself"));
}

TEST_CASE("study report: codes that were not counted are not called codes that are not there") {
  std::vector<PointResult> points = {point("w4a4", 1, 60)};
  for (PointLayer& l : points[0].layers) l.usage = {};
  CHECK(has(study_page(points, "s"), "The use of the codes was not counted."));
  points[0].layers[1].bound_min = points[0].layers[1].bound_median = 1.5;
  points[0].layers[1].bound_max = 4.25;
  const std::string html = study_page(points, "s");
  CHECK(has(html, "<summary>" + points[0].name + "</summary>"));
  CHECK(has(html, ">4.25<"));
}

TEST_CASE("study report: an unfinished study says what is still to come, and what it cannot tell yet") {
  const std::vector<PointResult> points = {point("bf16", 2, 60)};
  const std::vector<std::string> missing = {"w8a8-x2-s0", "w4a4-x2-s0"};
  const std::string html = study_page(points, "s", missing);
  CHECK(testing::xml_facts(html).problem == "");
  CHECK(has(html, "not finished: 2 trainings are still to come (w8a8-x2-s0 and w4a4-x2-s0); what follows may change"));
  CHECK(has(html, "Not tested, for lack of models to compare: 4 bits with 8-bit"));
  CHECK(has(html, "No finished model quantizes its activations."));
  CHECK(has(html, "No finished model costs at most as much as bf16 at width 1."));
  CHECK(has(study_page(points, "s", std::vector<std::string>(9, "x")), "9 trainings are still to come; what"));
  CHECK(has(study_page(points, "s", {"x"}), "one training is still to come (x); what follows may change with it."));
  CHECK_FALSE(has(study_page(points, "s"), "still to come"));
}

TEST_CASE("study report: dominated models are hollow in the picture, which is a file of its own") {
  const std::string svg = study_picture(small_study());
  CHECK(testing::xml_facts(svg).problem == "");
  CHECK(has(svg, "xmlns=\"http://www.w3.org/2000/svg\""));
  CHECK(count_of(svg, "class=\"mark hollow\"") == 2);  // both of bf16
  CHECK(count_of(svg, ", dominated</title>") == 2);
}

TEST_CASE("study report: JSON and CSV hold all points") {
  const std::vector<PointResult> points = small_study();
  const nlohmann::json j = nlohmann::json::parse(study_json(points));
  CHECK(j["points"].size() == points.size());
  CHECK(point_result_from_json(j["points"][3].dump(), "test").cost == points[3].cost);
  CHECK(j["fronts"]["linear"].size() == 6);
  CHECK(j["findings"][0]["verdict"] == "holds");
  const std::string csv = study_csv(points);
  CHECK(count_of(csv, "\r\n") == points.size() + 1);
  CHECK(has(csv, "\"w4a4-fl8-x0.5-s0\",\"resnet26\",\"w4a4-fl8\",0.5,0,"));
}

TEST_CASE("study report: each CSV cell and each cost stands under its own name") {
  std::vector<PointResult> points = {point("w4a4", 0.5, 50)};
  PointResult& p = points[0];
  p.best.top1 = 51;
  p.steps = 77;
  p.train_unaugmented = {.top1 = 81, .top5 = 99, .loss = 0.25, .images = 123};
  p.latency.batch1_ms = 3;
  p.latency.batch32_ms_per_image = 2;
  p.provenance.seconds = 9;
  const std::string csv = study_csv(points);
  const auto cells = [](std::string line) {
    std::vector<std::string> all;
    for (size_t at; (at = line.find(',')) != std::string::npos; line.erase(0, at + 1))
      all.push_back(line.substr(0, at));
    all.push_back(line);
    return all;
  };
  const size_t end = csv.find("\r\n");
  const std::vector<std::string> names = cells(csv.substr(0, end)),
                                 values = cells(csv.substr(end + 2, csv.rfind("\r\n") - end - 2));
  REQUIRE(names.size() == values.size());
  const std::vector<std::pair<std::string, double>> expected = {
      {"width", 0.5},
      {"steps", 77},
      {"top1_best", 51},
      {"epoch_best", 2},
      {"top1_last", 50},
      {"top5_last", 95},
      {"loss_last", 1},
      {"images", 10000},
      {"train_top1", 81},
      {"train_loss", 0.25},
      {"train_images", 123},
      {"linear", static_cast<double>(p.cost.linear)},
      {"quadratic", static_cast<double>(p.cost.quadratic)},
      {"memory_bits", static_cast<double>(p.cost.memory_bits)},
      {"linear_ratio", p.ratio.linear},
      {"quadratic_ratio", p.ratio.quadratic},
      {"memory_ratio", p.ratio.memory},
      {"served_bytes", 1000000},
      {"batch1_ms", 3},
      {"batch32_ms_per_image", 2},
      {"seconds", 9}};
  for (const auto& cell : expected) {
    const auto at = std::find(names.begin(), names.end(), cell.first);
    REQUIRE_MESSAGE(at != names.end(), cell.first);
    CHECK_MESSAGE(std::stod(values[static_cast<size_t>(at - names.begin())]) == cell.second, cell.first);
  }
  const std::vector<StudyGroup> groups = group_points(points);
  const double costs[] = {p.ratio.linear, p.ratio.quadratic, p.ratio.memory, 3, 1};
  for (size_t i = 0; i < cost_kinds().size(); ++i)
    CHECK_MESSAGE(cost_kinds()[i].of(groups[0]) == doctest::Approx(costs[i]), cost_kinds()[i].key);
}

TEST_CASE("study report: names from files cannot leave their place on the page or in a spreadsheet") {
  std::vector<PointResult> points = small_study();
  const std::string hostile = "=</td><script>\"x\"&'\x01\xFF";
  for (std::string* text : {&points[0].name, &points[1].precision, &points[2].provenance.command,
                            &points[3].provenance.cpu, &points[4].layers[0].name, &points[5].latency.cpu})
    *text = hostile;
  points[5].latency.batch1_ms = 1e300;
  points[6].provenance.seconds = 1e15;
  points[7].layers.clear();
  testing::XmlFacts xml = testing::xml_facts(study_page(points, hostile));
  CHECK(xml.problem == "");
  CHECK(xml.elements.count("script") == 0);
  CHECK(testing::xml_facts(study_picture(points)).problem == "");
  CHECK(has(study_csv(points), "\"'=</td><script>\"\"x\"\"&'"));
  CHECK(nlohmann::json::parse(study_json(points)).is_object());
}

TEST_CASE("study report: points that do not compare are refused") {
  CHECK_THROWS_AS(study_page({}, "empty"), DataError);
  std::vector<PointResult> points = {point("bf16", 1, 70), point("bf16", 1, 70)};
  CHECK_THROWS_WITH_AS(study_page(points, "twice"), doctest::Contains("are called 'bf16-x1-s0'"), DataError);
  points[1].name = "other";
  CHECK_THROWS_WITH_AS(study_page(points, "seed"),
                       doctest::Contains("'bf16-x1-s0' and 'other' are both results of bf16 x1 with seed 0; keep one"),
                       DataError);
  points[1].seed = 1;
  CHECK_NOTHROW(study_page(points, "fine"));
  points[1].image_size = 96;
  CHECK_THROWS_AS(study_page(points, "sizes"), DataError);
}

TEST_CASE("study report: points that lack a few validation images are named; beyond 1 % they do not compare") {
  std::vector<PointResult> points = small_study();
  CHECK(uneven_images(points) == "");
  points[0].last.images = 9950;
  points[3].last.images = 9900;
  const std::string sentence =
      "not all models saw the same validation images: w8a8-x1-s0 saw 9,900; bf16-x0.5-s0 saw 9,950; the others 10,000";
  CHECK(uneven_images(points) == sentence);
  CHECK(has(study_page(points, "uneven"), "judged on 10,000 validation images ("));
  CHECK(has(study_page(points, "uneven"), "validation images (" + sentence + ")."));
  CHECK_NOTHROW(study_json(points));
  points[3].last.images = 9899;
  CHECK_THROWS_WITH_AS(study_page(points, "uneven"), doctest::Contains("'w8a8-x1-s0'"), DataError);
  CHECK_THROWS_WITH_AS(study_page(points, "uneven"), doctest::Contains("do not compare"), DataError);
}

TEST_CASE("study report: the command writes page, JSON, CSV and picture, and reads its own JSON again") {
  if (!testing::program()) {
    MESSAGE("skipped: NIBBLE_PROGRAM does not name the built program");
    return;
  }
  const TemporaryFolder folder("study");
  for (const PointResult& p : small_study()) {
    std::filesystem::create_directories(folder / ("study/" + p.name));
    folder.write("study/" + p.name + "/result.json", to_json(p));
  }
  const testing::Result r = testing::run_program("study report " + (folder / "study"));
  CAPTURE(r.err);
  CHECK(r.code == 0);
  CHECK(r.out.empty());
  CHECK(has(r.err, "8 points"));
  const std::string page = testing::read_text(folder / "study/report/index.html");
  CHECK(has(page, "Study: study"));
  CHECK(testing::xml_facts(testing::read_text(folder / "study/report/pareto.svg")).problem == "");
  CHECK(count_of(testing::read_text(folder / "study/report/points.csv"), "\r\n") == 9);
  const std::string again =
      "study report " + (folder / "study/report/study.json") + " --out " + (folder / "again.html");
  const testing::Result printed = testing::run_program(again + " --json");
  CHECK(printed.code == 0);
  const nlohmann::json j = nlohmann::json::parse(printed.out);
  CHECK(j.at("page") == folder / "again.html");
  CHECK(j.at("bytes") == std::filesystem::file_size(folder / "again.html"));
  CHECK(j.at("json") == folder / "study.json");
  CHECK(j.at("csv") == folder / "points.csv");
  CHECK(j.at("svg") == folder / "pareto.svg");
  for (const char* key : {"json", "csv", "svg"}) CHECK(std::filesystem::file_size(j.at(key).get<std::string>()) > 0);
  REQUIRE(j.at("points").size() == 8);
  CHECK(j.at("points")[0].at("name") == "bf16-x0.5-s0");
  CHECK(j.at("points")[0].at("top1_best") == 60);
  CHECK(j.at("points")[0].at("top1_train") == 80);
  CHECK(j.at("points")[0].at("served_bytes") == 1000000);
  CHECK(j.at("missing").is_null());  // there is no plan next to a single file
  CHECK(count_of(testing::read_text(folder / "again.html"), "<figure>") == count_of(page, "<figure>"));
  CHECK(testing::run_program("study report " + (folder / "nowhere")).code == 2);
  PointResult fewer = small_study()[1];
  fewer.last.images = 9990;
  folder.write("study/" + fewer.name + "/result.json", to_json(fewer));
  for (const char* command : {"study report ", "study pick --max-linear 1 "}) {
    const testing::Result uneven = testing::run_program(command + (folder / "study"));
    CHECK(uneven.code == 0);
    CHECK(has(uneven.err, "bf16-x1-s0 saw 9,990; the others 10,000"));
  }
  folder.write("study/plan.json",
               R"({"format":"nibble-study-1","classes":["a"],"train_images":1,"val_images":1,"train_eval_images":0,)"
               R"("points":[{"precision":"bf16","width":1,"seed":0},{"precision":"w8a8","width":3,"seed":2}]})");
  const testing::Result unfinished = testing::run_program("study report --json " + (folder / "study"));
  CHECK(nlohmann::json::parse(unfinished.out).at("missing") == std::vector<std::string>{"w8a8-x3-s2"});
  CHECK(has(unfinished.err, "report on 8 points (1 still to come): "));
  CHECK(has(testing::read_text(folder / "study/report/index.html"), "still to come (w8a8-x3-s2)"));
  folder.write("study/plan.json",
               R"({"format":"nibble-study-1","classes":["a"],"train_images":1,"val_images":1,"train_eval_images":0,)"
               R"("points":[{"precision":"bf16","width":1,"seed":0}]})");
  const testing::Result whole = testing::run_program("study report --json " + (folder / "study"));
  CHECK(nlohmann::json::parse(whole.out).at("missing") == nlohmann::json::array());
  folder.write("study/plan.json", "{}");
  const testing::Result damaged = testing::run_program("study report --json " + (folder / "study"));
  CHECK(damaged.code == 0);
  CHECK(nlohmann::json::parse(damaged.out).at("missing").is_null());
  CHECK(has(damaged.err, "does not say what is still to come: "));
  CHECK_FALSE(has(testing::read_text(folder / "study/report/index.html"), "still to come"));
  const std::string before = testing::read_text(folder / "study.json");
  for (const char* companion : {"study.json", "points.csv", "pareto.svg"}) {
    const testing::Result named =
        testing::run_program("study report " + (folder / "study") + " --out " + (folder / companion));
    CHECK(named.code == 2);
    CHECK(has(named.err, fmt::format("but {} is written next to the page", companion)));
  }
  CHECK(testing::read_text(folder / "study.json") == before);
  // Nothing that is not this study's is replaced.
  std::filesystem::create_directories(folder / "other");
  const std::string other = study_json({point("w4a4", 3, 50)}),
                    to_other = "study report " + (folder / "study") + " --out " + (folder / "other/page.html");
  folder.write("other/study.json", other);
  testing::Result refused = testing::run_program(to_other);
  CHECK(refused.code == 2);
  CHECK(has(refused.err, "other/study.json holds another study, and would be replaced"));
  CHECK(testing::read_text(folder / "other/study.json") == other);
  CHECK_FALSE(std::filesystem::exists(folder / "other/page.html"));
  const std::string unreadable = R"({"format":"nibble-study-1","points":3})";  // of a later version, for all we know
  folder.write("other/study.json", unreadable);
  refused = testing::run_program(to_other);
  CHECK(refused.code == 3);
  CHECK(has(refused.err, "other/study.json"));
  CHECK(testing::read_text(folder / "other/study.json") == unreadable);
  folder.write("other/study.json", study_json({small_study()[2]}));  // an older state of the same study
  folder.write("other/points.csv", "my,own,data\n");
  CHECK(has(testing::run_program(to_other).err, "other/points.csv exists and is not a table of a study"));
  folder.write("other/points.csv", "");
  CHECK(testing::run_program(to_other).code == 0);
  folder.write("study/bf16-x1-s0/result.json", "{}");
  const testing::Result bad = testing::run_program("study report " + (folder / "study"));
  CHECK(bad.code == 3);
  CHECK(has(bad.err, "bf16-x1-s0/result.json"));
}

}  // namespace
}  // namespace nibble::apps
