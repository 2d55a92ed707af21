// The report of a run: of a folder that is complete, unfinished, hostile or not a run at all.
#include "apps/report/run_report.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "apps/config_file.hpp"
#include "apps/machine_note.hpp"
#include "engine/error.hpp"
#include "nn/study/point_layers.hpp"
#include "tests/apps/program.hpp"
#include "tests/apps/report/xml_checker.hpp"

namespace nibble::apps {
namespace {

using testing::has;
using testing::TemporaryFolder;

constexpr const char* kMetrics =
    "{\"step\":10,\"epoch\":1,\"train/loss\":2.5,\"train/"
    "top1\":20,\"lr\":0.05,\"images_per_second\":40,\"data_wait\":0}\n"
    "{\"step\":10,\"epoch\":1,\"eval/top1\":30,\"eval/top5\":80,\"eval/loss\":2.1,\"eval/images\":100}\n"
    "{\"step\":20,\"epoch\":2,\"train/loss\":1.5,\"train/"
    "top1\":60,\"lr\":0.01,\"images_per_second\":50,\"data_wait\":0.5}\n"
    "{\"step\":20,\"epoch\":2,\"eval/top1\":50,\"eval/top5\":90,\"eval/loss\":1.2,\"eval/images\":100}\n";

/// A run folder without checkpoints.
void write_run(const TemporaryFolder& folder, const std::string& metrics, const std::string& config_more = "") {
  TrainOptions options;
  options.epochs = 2;
  NetworkTexts texts;
  std::vector<OptionField> fields = network_fields(options.network, texts);
  for (const OptionField& f : training_fields(options)) fields.push_back(f);
  folder.write("config.resolved.toml", write_config(fields, {}) + config_more);
  if (!metrics.empty()) folder.write("metrics.jsonl", metrics);
}

std::string reading_refusal(const std::string& run) {
  try {
    read_run(run);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST_CASE("run report: a finished run says its accuracy with a standard error, and every part is there") {
  const TemporaryFolder run("report");
  write_run(run, kMetrics);
  run.write("machine.json", "{\"sessions\":[{\"nibble\":\"0.1.0\",\"cpu\":\"a CPU\",\"isa\":\"avx2\",\"threads\":2}]}");
  RunFacts facts = read_run(run / "");
  CHECK(facts.planned_steps() == 20);
  CHECK(facts.sessions.size() == 1);
  const std::string html = run_report(facts);
  testing::XmlFacts xml = testing::xml_facts(html);
  CHECK(xml.problem == "");
  CHECK(xml.links.empty());
  CHECK(xml.elements["figure"] == 5);
  // Binomial: sqrt(0.5 * 0.5 / 100) = 5 %.
  CHECK(has(html,
            "Finished after 20 steps. The last evaluation, after step 20, classified 50.0 % of the validation images "
            "correctly (standard error 5.0 for 100 images)"));
  CHECK(has(html, "There is no checkpoint yet"));
  CHECK(has(html, "a CPU"));
  CHECK(has(html, "label-smoothing = "));
}

TEST_CASE("run report: the published metric of a quantized run is of evaluations after calibration") {
  const TemporaryFolder run("report");
  std::string metrics = kMetrics;
  metrics.replace(metrics.find("\"eval/top1\":30"), 14, "\"eval/top1\":90");
  write_run(run, metrics);
  RunFacts facts = read_run(run / "");
  facts.options.calibrate_at = 11;
  CHECK(has(run_report(facts), "over five epochs, is 50.0 % (epoch 2, not smoothed: no other evaluation that counts "));
  CHECK_FALSE(has(run_report(facts), "The best evaluation was"));
  facts.options.calibrate_at = 10;
  CHECK(has(run_report(facts), "The best evaluation was 90.0 % after step 10. "));
  CHECK(has(run_report(facts), "over five epochs, is 75.0 % (epoch 1)."));  // (2.5 * 90 + 1.5 * 50) / 4
  facts.options.calibrate_at = 11;
  facts.options.network.precision = "bf16";
  CHECK(has(run_report(facts), "over five epochs, is 75.0 % (epoch 1)."));
}

TEST_CASE("run report: an accuracy with bf16 activations is not called that of the quantized model") {
  const TemporaryFolder run("report");
  write_run(run, kMetrics);
  RunFacts facts = read_run(run / "");
  facts.options.calibrate_at = 21;  // the run stopped before
  const std::string html = run_report(facts);
  CHECK(has(html,
            "after step 20, of the model with bf16 activations, classified 50.0 % of the validation images correctly"));
  CHECK(has(html, "quantized from step 21 on, and no evaluation is of such a model: there is no accuracy of w4a4-fl8"));
  CHECK_FALSE(has(html, "The published metric"));
  facts.options.network.precision = "bf16";
  CHECK(has(run_report(facts), "The published metric"));
}

TEST_CASE("run report: an unfinished run is reported as far as it came") {
  const TemporaryFolder run("report");
  write_run(run, "{\"step\":5,\"epoch\":0.5,\"train/loss\":2.5,\"train/top1\":20}\n{\"step\":6,\"tra");
  const std::string html = run_report(read_run(run / ""));
  CHECK(has(html, "Not finished: 5 of 20 steps. It has not been evaluated yet."));
  CHECK(testing::xml_facts(html).problem == "");
}

TEST_CASE("run report: layers show bounds and codes once there is a calibrated checkpoint") {
  const TemporaryFolder run("report");
  write_run(run, kMetrics);
  RunFacts facts = read_run(run / "");
  facts.network.arch = "resnet26";
  facts.network.width = 0.25;
  facts.network.image_size = 32;
  facts.network.classes = 5;
  Model model = make_model(build_resnet(facts.network), {});
  facts.layers = point_layers(model);
  facts.checkpoint_step = 20;
  facts.layers[3].bound_min = 0.5;
  facts.layers[3].bound_median = 1.25;
  facts.layers[3].bound_max = 2;
  facts.layers[3].usage = {.codes = {30, 60, 10, 0}, .clipped = 7, .total = 100};
  const std::string html = run_report(facts);
  testing::XmlFacts xml = testing::xml_facts(html);
  CHECK(xml.problem == "");
  for (const PointLayer& l : facts.layers) CHECK(has(html, "<td class=\"words\">" + l.name + "</td>"));
  CHECK(has(html,
            "<td class=\"number\">1.25</td><td class=\"number\">2</td><td class=\"number\">7.00 %</td>"
            "<td class=\"number\">3 of 4</td>"));
  CHECK(has(html, "<title>30.0, 60.0, 10.0, 0.0 %</title>"));
}

TEST_CASE("run report: what files and folders are called cannot leave its place on the page") {
  const TemporaryFolder outer("report");
  const TemporaryFolder run("report-<script>'\"&");
  write_run(run, kMetrics, "# </pre><script>alert(1)</script>\n");
  run.write("machine.json", "{\"sessions\":[{\"cpu\":\"<img src=x>\",\"threads\":1e300,\"seconds\":1e300},7,{}]}");
  const std::string html = run_report(read_run(run / ""));
  testing::XmlFacts xml = testing::xml_facts(html);
  CHECK(xml.problem == "");
  CHECK(xml.elements.count("script") == 0);
  CHECK(xml.elements.count("img") == 0);
}

TEST_CASE("run report: of a log without epochs the best evaluation is reported as it is") {
  const TemporaryFolder run("report");
  write_run(run, "{\"step\":7,\"eval/top1\":40}\n{\"step\":1200,\"eval/top1\":60}\n{\"step\":1300,\"eval/top1\":50}\n");
  CHECK(has(run_report(read_run(run / "")), "is 60.0 % (step 1,200, not smoothed: the log has no epochs)."));
}

TEST_CASE("run report: numbers of any size in the log give a page") {
  const TemporaryFolder run("report");
  write_run(
      run,
      "{\"step\":999999999999999,\"epoch\":1e-300,\"train/loss\":1e308,\"train/top1\":-1e308,\"lr\":-1}\n"
      "{\"step\":7,\"epoch\":1e308,\"eval/top1\":1e308,\"eval/top5\":null,\"eval/loss\":-1e308,\"eval/images\":1e9}\n"
      "{\"step\":8,\"epoch\":null,\"eval/top1\":0}\n");
  CHECK(testing::xml_facts(run_report(read_run(run / ""))).problem == "");
}

TEST_CASE("run report: a log that promises more steps than anyone can train has no planned number of them") {
  const TemporaryFolder run("report");
  write_run(run, "{\"step\":1000000,\"epoch\":1e-300,\"train/loss\":2.5}\n");
  const RunFacts facts = read_run(run / "");
  CHECK(!facts.planned_steps());
  CHECK(has(run_report(facts), "Not finished: 1,000,000 steps."));
}

TEST_CASE("run report: only what describes a session is read from machine.json") {
  const TemporaryFolder run("report");
  write_run(run, kMetrics);
  const std::string longer_than_any(size_t{2} << 20, ' ');
  for (const std::string& text : {std::string("[]"), std::string("{\"sessions\":7}"), std::string("{\"sessions\":[]}"),
                                  std::string("not json"), std::string(), longer_than_any}) {
    run.write("machine.json", text);
    const RunFacts facts = read_run(run / "");
    CHECK(facts.sessions.empty());
    CHECK(has(run_report(facts), "machine.json says nothing about it."));
  }
  run.write("machine.json", "{\"sessions\":[7,null,[],{\"cpu\":5,\"threads\":\"two\",\"isa\":\"avx2\"}]}");
  const RunFacts facts = read_run(run / "");
  REQUIRE(facts.sessions.size() == 1);
  CHECK(facts.sessions[0].cpu.empty());
  CHECK(facts.sessions[0].isa == "avx2");
  CHECK(facts.sessions[0].threads < 0);
}

TEST_CASE(
    "machine note: an entry is added to the flat ones of an older file; a deep or a long file is begun from scratch") {
  const TemporaryFolder run("note");
  const auto sessions_after = [&](const std::string& older) {
    run.write("machine.json", older);
    MachineNote({.path = run / "machine.json", .data = "images", .decoder = "stb", .first_step = 0});
    return nlohmann::json::parse(testing::read_text(run / "machine.json")).at("sessions");
  };
  const nlohmann::json kept =
      sessions_after("{\"sessions\":[{\"cpu\":\"a CPU\"},7,{\"cpu\":[1]},[{}],{\"threads\":2}]}");
  REQUIRE(kept.size() == 3);
  CHECK(kept[0].at("cpu") == "a CPU");
  CHECK(kept[1].at("threads") == 2);
  CHECK(kept[2].at("data") == "images");
  std::string many = "{\"sessions\":[{\"cpu\":\"the oldest\"}";
  for (int i = 0; i < 200; ++i)
    many += ",{\"threads\":" + std::to_string(i) + ",\"data\":\"" + std::string(4096, 'x') + "\"}";
  const nlohmann::json last_ones = sessions_after(many + "]}");
  CHECK((last_ones.size() > 100 && last_ones.size() < 130));  // 512 KiB of them
  CHECK(last_ones[last_ones.size() - 2].at("threads") == 199);
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  for (const std::string& older :
       {"{\"sessions\":[{\"more\":" + deep + ",\"cpu\":\"a CPU\"}]}", deep, std::string("no json"),
        "{\"sessions\":[{\"cpu\":\"" + std::string(size_t{1} << 20, 'x') + "\"}]}"})
    CHECK(sessions_after(older).size() == 1);
}

TEST_CASE("run report: no run, no metrics and a damaged config are refused in one sentence naming the file") {
  const TemporaryFolder run("report");
  CHECK(has(reading_refusal(run / ""), "has no config.resolved.toml"));
  write_run(run, "");
  CHECK(has(reading_refusal(run / ""), "metrics.jsonl' has no metrics to report yet"));
  write_run(run, "not json\n");
  CHECK(has(reading_refusal(run / ""), "has no metrics to report yet"));
  write_run(run, kMetrics, "nonsense = 1\n");
  CHECK(has(reading_refusal(run / ""), "config.resolved.toml:"));
  run.write("config.resolved.toml", "epochs = ");
  CHECK(has(reading_refusal(run / ""), "config.resolved.toml"));
}

TEST_CASE("run report: the command writes the page of a real run, and refuses what is not one") {
  if (!testing::program()) {
    MESSAGE("skipped: NIBBLE_PROGRAM does not name the built program");
    return;
  }
  const TemporaryFolder folder("report");
  testing::train_tiny_run(folder / "data", folder / "run");
  const testing::Result r = testing::run_program("report " + (folder / "run") + " --out " + (folder / "page.html"));
  CHECK(r.code == 0);
  CHECK(r.out.empty());
  CHECK(has(r.err, "page.html"));
  const std::string html = testing::read_text(folder / "page.html");
  testing::XmlFacts xml = testing::xml_facts(html);
  CHECK(xml.problem == "");
  CHECK(xml.links.empty());
  CHECK(has(html, "codes used"));
  CHECK(has(html, " of 16</td>"));
  const testing::Result json =
      testing::run_program("report --json " + (folder / "run") + " --out " + (folder / "json.html"));
  CHECK(json.code == 0);
  CHECK(nlohmann::json::parse(json.out) == nlohmann::json({{"page", folder / "json.html"}, {"bytes", html.size()}}));
  CHECK(testing::read_text(folder / "json.html") == html);
  std::filesystem::remove(folder / "run/best");
  std::filesystem::remove(folder / "run/latest");
  CHECK(testing::run_program("report " + (folder / "run") + " --out " + (folder / "page.html")).code == 0);
  CHECK(testing::read_text(folder / "page.html") == html);
  CHECK(testing::run_program("report " + (folder / "data")).code == 2);
  CHECK(testing::run_program("report " + (folder / "run") + " --out " + (folder / "made/for/page.html")).code == 0);
  CHECK(testing::read_text(folder / "made/for/page.html") == html);
  CHECK(testing::run_program("report " + (folder / "run") + " --out " + (folder / "page.html/below.html")).code == 7);
}

}  // namespace
}  // namespace nibble::apps
