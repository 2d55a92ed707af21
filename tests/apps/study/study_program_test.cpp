// nibble study run and pick as a user meets them: a tiny study, stopped, continued, extended and refused.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/decode.hpp"
#include "tests/apps/child.hpp"
#include "tests/apps/whole_run.hpp"

namespace nibble::testing {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRecipe =
    " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --threads 1 ";

/// A data set of 20 training images; false (with a message) when there is no program to run.
bool make_data(const std::string& data) {
  if (no_program()) return false;
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 1 --size 32").code == 0);
  return true;
}

/// The file must have `from`; all of them become `to`.
void replace_in(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = read_text(path);
  REQUIRE(has(text, from));
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  write_text(path, text);
}

std::vector<std::string> names(const nlohmann::json& points) {
  std::vector<std::string> all;
  for (const nlohmann::json& p : points) all.push_back(p.at("name"));
  return all;
}

TEST_CASE("study run: the dry run prints every point with its cost, state and time, and writes nothing; layers too") {
  const TemporaryFolder folder("study-dry");
  const std::string data = folder / "data", study = folder / "study";
  if (!make_data(data)) return;
  const std::string config = folder.write("layers.toml", "[layers.\"layer3.0.conv2\"]\nprecision = \"w8a8\"\n");
  const std::string run = "study run --dry-run --data " + data + " --out " + study + kRecipe +
                          "--widths 0.1,0.2 --precisions bf16,w4a4 --extra-seeds 0.1:5";
  const nlohmann::json plain = nlohmann::json::parse(run_program(run + " --json").out);
  CHECK(names(plain.at("points")) == std::vector<std::string>{"bf16-x0.1-s0", "w4a4-x0.1-s0", "bf16-x0.2-s0",
                                                              "w4a4-x0.2-s0", "bf16-x0.1-s5", "w4a4-x0.1-s5"});
  for (const nlohmann::json& p : plain.at("points")) {
    CHECK(p.at("state") == "waiting");
    CHECK(p.at("seconds").get<double>() > 0);
  }
  const Result mixed = run_program(run + " --json --config " + config);
  REQUIRE(mixed.code == 0);
  const nlohmann::json with_layer = nlohmann::json::parse(mixed.out);
  CHECK(with_layer.at("layers").at("layer3.0.conv2") == "w8a8");
  const auto linear = [](const nlohmann::json& j) { return j.at("points")[1].at("linear_ratio").get<double>(); };
  CHECK(linear(with_layer) > linear(plain));
  CHECK(has(run_program(run + " --config " + config).out, "in all points: layer3.0.conv2 w8a8"));
  // For the bf16 points too, and that is said, once; not where there are none, nor where the layers are bf16.
  const std::string mixed_bf16 = "the bf16 points are not all bf16 (layer3.0.conv2 w8a8)";
  const size_t said = mixed.err.find(mixed_bf16);
  CHECK(said != std::string::npos);
  CHECK(mixed.err.find(mixed_bf16, said + 1) == std::string::npos);
  const std::string only_w4a4 = "study run --dry-run --data " + data + " --out " + study + kRecipe +
                                "--widths 0.1 --precisions w4a4 --config " + config;
  CHECK_FALSE(has(run_well(only_w4a4).err, "not all bf16"));
  const std::string unquantized = folder.write("bf16.toml", "[layers.\"layer3.0.conv2\"]\nprecision = \"bf16\"\n");
  CHECK_FALSE(has(run_well(run + " --config " + unquantized).err, "not all bf16"));
  CHECK_FALSE(fs::exists(study));

  // The recipe of a study keeps its layers when the study continues without the config.
  REQUIRE(run_program("study run --quiet --data " + data + " --out " + study + kRecipe +
                      "--widths 0.1 --precisions w4a4 --config " + config)
              .code == 0);
  for (const std::string& more : {std::string(), " --config " + config}) {
    const Result on = run_program("study run --dry-run --json --out " + study + more);
    CAPTURE(on.err);
    REQUIRE(on.code == 0);
    CHECK(nlohmann::json::parse(on.out).at("layers").at("layer3.0.conv2") == "w8a8");
  }
  const nlohmann::json result = nlohmann::json::parse(read_text(study + "/w4a4-x0.1-s0/result.json"));
  CHECK(result.at("ratio").at("linear") == linear(with_layer));
}

TEST_CASE("study run: points become runs with results; a result alone counts as done; report and pick read them") {
  const TemporaryFolder folder("study-run");
  const std::string data = folder / "data", study = folder / "study", again = "study run --out " + study + " --quiet";
  if (!make_data(data)) return;
  const Result first = run_program("study run --json --quiet --data " + data + " --out " + study + kRecipe +
                                   "--widths 0.1 --precisions bf16,w4a4-fl8 --train-eval-images 7");
  CAPTURE(first.err);
  REQUIRE(first.code == 0);
  const nlohmann::json done = nlohmann::json::parse(first.out);
  CHECK(names(done.at("points")) == std::vector<std::string>{"bf16-x0.1-s0", "w4a4-fl8-x0.1-s0"});
  CHECK(done.at("points")[1].at("precision") == "w4a4-fl8");
  CHECK(done.at("points")[1].at("width") == 0.1);
  CHECK(done.at("failed").empty());
  const nlohmann::json result = nlohmann::json::parse(read_text(study + "/w4a4-fl8-x0.1-s0/result.json"));
  CHECK(result.at("train_unaugmented").at("images") == 7);
  CHECK(result.at("last").at("images") == 10);
  CHECK(result.at("steps") == 2);
  CHECK(result.at("served_bytes") == fs::file_size(study + "/w4a4-fl8-x0.1-s0/served.safetensors"));
  CHECK(result.at("latency").at("batch1_ms").get<double>() > 0);
  const std::string exported = folder / "exported.safetensors";
  run_well("export --out " + exported + " " + study + "/w4a4-fl8-x0.1-s0/latest");
  CHECK(read_text(exported) == read_text(study + "/w4a4-fl8-x0.1-s0/served.safetensors"));
  CHECK(result.at("layers").size() == 30);
  CHECK(result.at("layers")[1].at("values").get<int64_t>() > 0);

  CHECK(nlohmann::json::parse(run_well("study report --json " + study).out).at("points") == done.at("points"));
  // The accuracy of the file is its own, not the published metric's: here its last epoch was its worst.
  nlohmann::json worse = result;
  worse.at("best").at("top1") = 90;
  write_text(study + "/w4a4-fl8-x0.1-s0/result.json", worse.dump());
  const nlohmann::json pick = nlohmann::json::parse(run_program("study pick --json --max-linear 1 " + study).out);
  CHECK(fs::exists(pick.at("model").get<std::string>()));
  run_well("study report " + study);  // with the result as it is now
  fs::copy_file(study + "/report/study.json", study + "/study.json");
  const nlohmann::json by_file = json_of(run_program("study pick --json --max-linear 1 " + study + "/study.json"));
  CHECK(by_file.at("model") == pick.at("model"));
  CHECK(by_file.at("result") == pick.at("result"));
  CHECK(names(pick.at("points")) == std::vector<std::string>{"w4a4-fl8-x0.1-s0", "bf16-x0.1-s0"});
  CHECK(pick.at("points")[0].at("linear_ratio") == pick.at("linear_ratio"));
  CHECK(pick.at("points")[1].at("top1").get<double>() <= 90);
  CHECK(pick.at("top1") == 90);
  for (const std::string cost : {"quadratic", "memory"}) {  // 4 bits alone fit what 4 bits take
    const nlohmann::json under = nlohmann::json::parse(
        run_well(fmt::format("study pick --json --max-{} {} {}", cost, pick.at(cost + "_ratio").dump(), study)).out);
    CHECK(names(under.at("points")) == std::vector<std::string>{"w4a4-fl8-x0.1-s0"});
  }
  const nlohmann::json file =
      nlohmann::json::parse(run_well("eval --json --data " + data + " " + pick.at("model").get<std::string>()).out);
  CHECK(pick.at("top1_last") == file.at("top1"));
  const std::string text = run_well("study pick --max-linear 1 " + study).out;
  CHECK(has(text, "w4a4-fl8 x0.1: top1 90.00 +- "));
  CHECK(
      has(text, fmt::format("top1 of w4a4-fl8-x0.1-s0 after its last step, as its file has it: {:.2f} (above: the best "
                            "evaluation)",
                            file.at("top1").get<double>())));
  write_text(study + "/w4a4-fl8-x0.1-s0/result.json", result.dump());
  check_refused("study pick --max-bytes 5 " + study, 2, "the cheapest, w4a4-fl8 x0.1");
  CHECK(run_program("study report " + study).code == 0);

  // The same bytes as a run of its own: nothing of the point before it is left in the process.
  const std::string own = folder / "own", checkpoint = "/checkpoints/step-000002.safetensors";
  REQUIRE(run_program("train --quiet --threads 1 --out " + own + " --config " + study +
                      "/w4a4-fl8-x0.1-s0/config.resolved.toml")
              .code == 0);
  CHECK(read_text(own + checkpoint).size() > 1000);
  CHECK(read_text(own + checkpoint) == read_text(study + "/w4a4-fl8-x0.1-s0" + checkpoint));

  // Stopped while it was measured: measured again, not trained.
  const std::string trained = read_text(study + "/bf16-x0.1-s0/metrics.jsonl");
  fs::remove(study + "/bf16-x0.1-s0/result.json");
  CHECK(run_program("study run --out " + study).code == 0);
  CHECK(fs::exists(study + "/bf16-x0.1-s0/result.json"));
  CHECK(read_text(study + "/bf16-x0.1-s0/metrics.jsonl") == trained);

  // As in a repository: nothing but the results and the plan.
  for (const char* name : {"/bf16-x0.1-s0", "/w4a4-fl8-x0.1-s0"})
    for (const auto& entry : fs::directory_iterator(study + name))
      if (entry.path().filename() != "result.json") fs::remove_all(entry.path());
  CHECK(run_program(again).code == 0);
  CHECK_FALSE(fs::exists(study + "/bf16-x0.1-s0/config.resolved.toml"));
  const Result more = run_program(again + " --json --widths 0.2 --precisions w4a4-fl8");
  CHECK(nlohmann::json::parse(more.out).at("points").size() == 3);
  CHECK_FALSE(fs::exists(study + "/bf16-x0.1-s0/config.resolved.toml"));
  fs::copy_file(study + "/bf16-x0.1-s0/result.json", study + "/w4a4-fl8-x0.1-s0/result.json",
                fs::copy_options::overwrite_existing);
  check_refused(again, 3, "is the result of bf16-x0.1-s0");
  fs::remove_all(study + "/w4a4-fl8-x0.1-s0");
  // A point that is not in the plan counts when it is of the recipe, and is refused when not.
  fs::remove_all(study + "/w4a4-fl8-x0.2-s0");
  fs::remove(study + "/plan.json");
  const std::string others = "study run --quiet --data " + data + " --out " + study + kRecipe + "--widths 0.3 ";
  run_well(others + "--train-eval-images 7 --precisions bf16 --dry-run");
  check_refused(others + "--lr 0.5", 2, "bf16-x0.1-s0/result.json was made with lr = 0.05, the study has 0.5");
  check_refused("study run --quiet --data " + data + " --out " + study + kRecipe + "--widths 0.1 --lr 0.5", 2,
                "was made with lr = 0.05, the study has 0.5");
}

TEST_CASE("study run: the points of a study.json that a repository keeps are not run again") {
  const TemporaryFolder folder("study-kept");
  const std::string data = folder / "data", study = folder / "study", kept = folder / "kept";
  if (!make_data(data)) return;
  const std::string run = "study run --quiet --data " + data + kRecipe + "--widths 0.1 --precisions bf16,w4a4 --out ";
  REQUIRE(run_program(run + study).code == 0);
  REQUIRE(run_program("study report " + study).code == 0);
  fs::create_directories(kept);
  fs::copy_file(study + "/report/study.json", kept + "/study.json");
  const nlohmann::json plan = nlohmann::json::parse(run_program(run + kept + " --dry-run --json").out);
  CHECK(plan.at("points")[1].at("state") == "done");
  check_refused(run + kept + " --lr 0.5", 2, "kept/study.json was made with lr = 0.05");
  // Nor do points come in that are not in this plan: the report would show them with the others.
  check_refused("study run --quiet --data " + data + kRecipe + "--lr 0.5 --widths 0.2 --precisions bf16 --out " + kept,
                2, "kept/study.json was made with lr = 0.05");
  // The larger of the two results does not fit: the smaller one alone would hide it.
  const auto blocks = fs::file_size(study + "/bf16-x0.1-s0/result.json") / 512 + 1;
  CHECK(run_program(run + kept, "ulimit -f " + std::to_string(blocks) + ";").code == 7);
  CHECK_FALSE(fs::exists(kept + "/bf16-x0.1-s0/result.json"));
  CHECK(run_program(run + kept).code == 0);
  CHECK(read_text(kept + "/w4a4-x0.1-s0/result.json") == read_text(study + "/w4a4-x0.1-s0/result.json"));
  CHECK_FALSE(fs::exists(kept + "/w4a4-x0.1-s0/config.resolved.toml"));
  // A result that was removed from among others does not come back from the file, which may be stale.
  fs::remove_all(kept + "/w4a4-x0.1-s0");
  const nlohmann::json stale = nlohmann::json::parse(run_program(run + kept + " --dry-run --json").out);
  CHECK(stale.at("points")[0].at("state") == "done");
  CHECK(stale.at("points")[1].at("state") == "waiting");
  // Unless the machine stopped while it was unpacked: then the file still counts for what is missing.
  folder.write("kept/unpacking", "");
  CHECK(run_program(run + kept).code == 0);
  CHECK(read_text(kept + "/w4a4-x0.1-s0/result.json") == read_text(study + "/w4a4-x0.1-s0/result.json"));
  CHECK_FALSE(fs::exists(kept + "/w4a4-x0.1-s0/config.resolved.toml"));
  CHECK_FALSE(fs::exists(kept + "/unpacking"));
  fs::remove_all(kept + "/w4a4-x0.1-s0");
  fs::remove_all(kept + "/bf16-x0.1-s0");
  nlohmann::json hostile = nlohmann::json::parse(read_text(kept + "/study.json"));
  const nlohmann::json sound = hostile;
  hostile.at("points")[1].at("precision") = "w3a3";
  folder.write("kept/study.json", hostile.dump());
  check_refused(run + kept, 3, "kept/study.json has a point 'w4a4-x0.1-s0' that no study can have: the precision is");
  hostile = sound;
  hostile.at("points")[1].at("name") = "../outside";
  folder.write("kept/study.json", hostile.dump());
  check_refused(run + kept, 3, "a point called '../outside'");
  CHECK_FALSE(fs::exists(folder / "outside"));
}

TEST_CASE("study run: one recipe, one data set and one plan per study; anything else is refused and changes nothing") {
  const TemporaryFolder folder("study-refuse");
  const std::string data = folder / "data", study = folder / "study";
  if (!make_data(data)) return;
  const std::string fresh = "study run --quiet --data " + data + " --out " + study + kRecipe;
  check_refused(fresh + "--precisions w5a5", 2, "'w5a5'");
  check_refused(fresh + "--widths 99", 2, "--width is 99");
  check_refused(fresh + "--extra-seeds 1", 2, "use WIDTH:SEED");
  check_refused(fresh + "--seeds=-1", 2, "--seeds: -1 is not a whole number from 0");
  check_refused(fresh + "--seeds 0,-1", 2, "--seeds: -1 is not a whole number from 0");
  check_refused(fresh + "--seeds 9223372036854775808", 2, "--seed is 9223372036854775808; use 0 to");
  check_refused(fresh + "--extra-seeds 0.05:9223372036854775808", 2, "--seed is 9223372036854775808; use 0 to");
  check_refused(fresh + "--calibrate-at 2", 2, "--calibrate-at gives step 2 of 2: no step would train");
  check_refused(fresh + "--calibrate-at 9", 2, "no step would train");
  check_refused(fresh + "--train-eval-images -1", 2, "--train-eval-images is -1");
  const std::string bytes = folder / "caf\xe9";  // no text file could hold it
  fs::rename(data, bytes);
  for (const std::string only : {"", " --dry-run"})
    check_refused("study run --quiet --data '" + bytes + "' --out " + study + kRecipe + only, 2, "UTF-8");
  fs::rename(bytes, data);
  check_refused("study run --quiet --out " + study, 2, "--data is missing");
  check_refused("study run", 2, "--out");
  check_refused("study rnu", 2, "unknown command 'rnu' (did you mean run?); see nibble study --help");
  check_refused("study run --out x --lrr 1", 2, "(did you mean --lr?); see nibble study run --help");
  check_refused("study", 2, "study needs run, measure, report, pick or compare");
  check_refused("study pick " + study + " --max-linear 1", 2, "there is no study");
  fs::create_directory(study);
  for (const std::string command : {"report ", "measure ", "pick --max-linear 1 "})
    check_refused("study " + command + study, 3, "no finished");
  // What lies in the folder is the user's as long as it is not a study.
  const std::string own = folder.write("study/recipe.toml", "# mine\nlr = 0.05\n");
  check_refused(fresh + "--widths 0.1 --config " + own, 2, "study/recipe.toml' is there already and would be replaced");
  CHECK(read_text(own) == "# mine\nlr = 0.05\n");
  fs::remove(own);
  folder.write("study/unpacking", "mine");
  check_refused(fresh + "--widths 0.1", 2, "study/unpacking' is in the way of the study");
  fs::remove(study + "/unpacking");
  // Batch norm of one value learns nothing, whatever the width.
  check_refused(fresh + "--widths 0.1 --batch-size 1 --shard 1", 2, "--shard 1 at 32 px leaves batch norm one value");
  CHECK(fs::is_empty(study));
  fs::remove_all(study);

  REQUIRE(run_program(fresh + "--widths 0.1 --precisions bf16").code == 0);
  const std::string plan = read_text(study + "/plan.json"), recipe = read_text(study + "/recipe.toml");
  const std::string again = "study run --quiet --out " + study;
  check_refused(again + " --lr 0.1", 2, "has lr = 0.05, not 0.1");
  check_refused(again + " --config " + folder.write("lr.toml", "lr = 0.2\n"), 2, "has lr = 0.05, not 0.2");
  check_refused(again + " --config " + folder.write("fc.toml", "[layers.fc]\nprecision = \"w8a8\"\n"), 2,
                "has [layers.\"fc\"] precision = nothing, not");
  check_refused(again + " --train-eval-images 3", 2, "has train-eval-images = 0, not 3");
  check_refused("study pick " + study, 2, "pick needs a budget");
  check_refused("study pick " + study + " --max-ms nan", 2, "--max-ms is nan; use a number above 0 and below 1e15");
  const std::string other = folder / "other";
  REQUIRE(run_program("synth --out " + other + " --train 3 --val 1 --size 32").code == 0);
  check_refused(again + " --data " + other, 3, "30 training");
  for (const char* split : {"/train", "/val"}) {  // as many images of the same classes
    const std::string folder_of_class = data + split + "/plain_disk/";
    fs::rename(folder_of_class + "00000.jpg", folder_of_class + "another.jpg");
    check_refused(again, 3, "with images or classes of other names");
    fs::rename(folder_of_class + "another.jpg", folder_of_class + "00000.jpg");
  }
  CHECK(read_text(study + "/plan.json") == plan);
  CHECK(read_text(study + "/recipe.toml") == recipe);
  fs::remove(study + "/plan.json");  // as of a call that was stopped between its two files
  REQUIRE(run_program(fresh + "--widths 0.1 --precisions bf16").code == 0);
  CHECK(read_text(study + "/plan.json") == plan);
  check_refused("study run --quiet --out " + study + "/bf16-x0.1-s0", 2, "is a training run, not a study");
  check_refused("train --data " + data + " --out " + study, 2, "is a study, which could not continue");
  folder.write("study/plan.json", "{}");
  check_refused(again, 3, "plan.json is not the plan of a study");
}

TEST_CASE("study run: a point that fails stops no other, is noted and is tried again") {
  const TemporaryFolder folder("study-fail");
  const std::string data = folder / "data", study = folder / "study", again = "study run --quiet --out " + study;
  if (!make_data(data)) return;
  const std::string point = study + "/bf16-x0.1-s0";
  REQUIRE(
      run_program("study run --quiet --data " + data + " --out " + study + kRecipe + "--widths 0.1 --precisions bf16")
          .code == 0);
  fs::remove(point + "/result.json");
  for (const auto& checkpoint : fs::directory_iterator(point + "/checkpoints"))
    fs::resize_file(checkpoint.path(), fs::file_size(checkpoint.path()) - 1);
  const Result r = run_program(again + " --json --precisions w8a8");
  CHECK(r.code == 1);
  const nlohmann::json j = nlohmann::json::parse(r.out);
  CHECK(names(j.at("points")) == std::vector<std::string>{"w8a8-x0.1-s0"});
  CHECK(names(j.at("failed")) == std::vector<std::string>{"bf16-x0.1-s0"});
  CHECK(has(read_text(point + "/failure.txt"), "no checkpoint that can be read"));
  CHECK(has(run_program("study run --dry-run --out " + study).out, "failed"));
  CHECK(run_program(again).code == 1);
  fs::remove_all(point);
  CHECK(run_program(again).code == 0);
  CHECK(fs::exists(point + "/result.json"));
}

TEST_CASE("study run: a study keeps the decoder it began with; one of an older version, which wrote auto, continues") {
  const TemporaryFolder folder("study-decoder");
  const std::string data = folder / "data", study = folder / "study", again = "study run --quiet --out " + study;
  if (!make_data(data)) return;
  const std::string recipe = study + "/recipe.toml", point = study + "/bf16-x0.05-s0";
  const std::string own(name_of(resolve(Decoder::auto_))), other = own == "turbo" ? "stb" : "turbo";
  const auto decoder = [](const std::string& name) { return "decoder = '" + name + "'"; };
  REQUIRE(run_program("study run --quiet --data " + data + " --out " + study + kRecipe +
                      "--widths 0.05 --precisions bf16 --train-eval-images 7")
              .code == 0);
  CHECK(has(read_text(recipe), decoder(own)));
  CHECK(has(read_text(point + "/config.resolved.toml"), decoder(own)));
  CHECK(run_program(again + " --decoder auto").code == 0);
  check_refused(again + " --decoder " + other, 2, "has " + decoder(own) + ", not '" + other + "'");
  CHECK(has(read_text(recipe), decoder(own)));
  replace_in(recipe, decoder(own), decoder(other));
  check_refused(again + " --decoder auto", 2,
                own == "turbo" ? "has decoder = 'stb', not 'turbo'"
                               : "was begun with the decoder turbo, which this build does not have");

  // As an older version left it: no option names the decoder, and the plan does not say how images were chosen.
  replace_in(recipe, decoder(other), decoder("auto"));
  for (const char* file : {"/config.resolved.toml", "/result.json"})
    replace_in(point + file, decoder(own), decoder("auto"));
  replace_in(study + "/plan.json", "\"train_eval_spread\": true,", "");
  const Result older = run_program(again);
  CAPTURE(older.err);
  CHECK(older.code == 0);
  CHECK(has(older.err, "begun by a version that evaluated its first 7 training images"));
  CHECK(has(read_text(recipe), decoder("auto")));
  // A begun point that needs a decoder can be given it.
  fs::remove(point + "/result.json");
  CHECK(run_program(again + " --decoder " + own).code == 0);
  CHECK(has(read_text(recipe), decoder(own)));
  CHECK(fs::exists(point + "/result.json"));
}

TEST_CASE("study run: a result from before an option existed was made with its default, and with no other value") {
  const TemporaryFolder folder("study-before");
  const std::string data = folder / "data", study = folder / "study", kept = folder / "kept";
  if (!make_data(data)) return;
  const std::string run = "study run --quiet --data " + data + kRecipe + "--widths 0.05 --precisions w4a4 --out ";
  const std::string point = study + "/w4a4-x0.05-s0";
  REQUIRE(run_program(run + study).code == 0);
  for (const char* file : {"/result.json", "/config.resolved.toml"})
    for (const char* line : {"quant-scheme = 'paper'", "bf16-weights = false"})
      replace_in(point + file, std::string(line) + (file[1] == 'r' ? "\\n" : "\n"), "");
  fs::remove(study + "/plan.json");
  REQUIRE(run_program("study report " + study).code == 0);
  fs::create_directories(kept);
  fs::copy_file(study + "/report/study.json", kept + "/study.json");
  const std::string scheme = " was made with quant-scheme = 'paper', the study has 'nearest'",
                    rounded = " was made with bf16-weights = false, the study has true";
  for (const std::string& held : {study, kept}) {
    const std::string named = held == kept ? kept + "/study.json" : point + "/result.json";
    check_refused(run + held + " --quant-scheme nearest", 2, named + scheme);
    check_refused(run + held + " --bf16-weights", 2, named + rounded);
    const Result same = run_well(run + held + " --dry-run --json");
    CHECK(nlohmann::json::parse(same.out).at("points")[0].at("state") == "done");
  }
  fs::remove(point + "/result.json");  // a run that has begun
  check_refused(run + study + " --quant-scheme nearest", 2, point + "/config.resolved.toml" + scheme);
}

TEST_CASE("study run: a point that was judged on fewer images than the validation set has says so at once") {
  const TemporaryFolder folder("study-fewer");
  const std::string data = folder / "data", study = folder / "study";
  if (!make_data(data)) return;
  for (const auto& entry : fs::recursive_directory_iterator(data + "/val"))
    if (entry.is_regular_file()) {
      write_text(entry.path().string(), "no image");
      break;
    }
  const Result r =
      run_program("study run --quiet --data " + data + " --out " + study + kRecipe + "--widths 0.05 --precisions bf16");
  CAPTURE(r.err);
  CHECK(r.code == 0);
  CHECK(has(r.err, "bf16-x0.05-s0 was judged on 9 of 10 validation images"));
}

TEST_CASE("study measure: all points are timed in one sitting, and nothing else of their results changes") {
  const TemporaryFolder folder("study-measure");
  const std::string data = folder / "data", study = folder / "study", kept = folder / "kept";
  if (!make_data(data)) return;
  REQUIRE(run_program("study run --quiet --data " + data + " --out " + study + kRecipe +
                      "--widths 0.05 --precisions bf16,w4a4 --extra-seeds 0.05:1")
              .code == 0);
  const std::vector<std::string> points = {"bf16-x0.05-s0", "bf16-x0.05-s1", "w4a4-x0.05-s0", "w4a4-x0.05-s1"};
  const auto result = [&](const std::string& point) {
    return nlohmann::json::parse(read_text(study + "/" + point + "/result.json"));
  };
  const std::string pick = "study pick --max-ms 1e6 ", measure = "study measure --rounds 1 --threads 1 ";
  CHECK(has(run_program(pick + study).err, "nibble study measure " + study + " times all models in turn"));
  std::vector<nlohmann::json> before;
  for (const std::string& p : points) before.push_back(result(p));
  CHECK_FALSE(before[0].at("latency").contains("sitting"));

  const Result measured = run_program(measure + "--json " + study);
  CAPTURE(measured.err);
  REQUIRE(measured.code == 0);
  const nlohmann::json j = nlohmann::json::parse(measured.out);
  CHECK(names(j.at("points")) == points);
  for (size_t i = 0; i < points.size(); ++i) {
    nlohmann::json now = result(points[i]);
    CHECK(now.at("latency").at("sitting") == j.at("sitting"));
    CHECK(now.at("latency").at("batch1_ms") == j.at("points")[i].at("batch1_ms"));
    now.erase("latency");
    before[i].erase("latency");
    CHECK(now == before[i]);
  }
  CHECK(result(points[2]).at("latency") == result(points[3]).at("latency"));
  // Each image's outcome, of the same images in all points: the plan names them.
  const nlohmann::json plan = nlohmann::json::parse(read_text(study + "/plan.json"));
  for (const std::string& p : points) {
    const nlohmann::json point = result(p);
    const std::string right = point.at("outcomes").at("right"), images = plan.at("images");
    CHECK(right.size() == plan.at("val_images").get<size_t>());
    CHECK(point.at("last").at("top1").get<double>() ==
          doctest::Approx(100.0 * static_cast<double>(std::count(right.begin(), right.end(), '1')) /
                          static_cast<double>(right.size())));
    CHECK(images.ends_with(" " + point.at("outcomes").at("images").get<std::string>()));
  }
  CHECK(run_program(pick + study).err.empty());
  CHECK(has(run_program(measure + study).out, "next: nibble study report " + study));

  // As a repository keeps it: one file, rebuilt from its points.
  REQUIRE(run_program("study report " + study).code == 0);
  CHECK(has(read_text(study + "/report/index.html"), "all models in turn, from "));
  // The next report would lose the times that its own data had got.
  for (const std::string own : {"/report/study.json", "/report/./study.json", "/report/../report/study.json"})
    check_refused(measure + study + own, 2, "belongs to the report of the study '");
  fs::create_directories(kept);
  fs::copy_file(study + "/report/study.json", kept + "/study.json");
  REQUIRE(run_program(measure + kept).code == 0);
  nlohmann::json then = nlohmann::json::parse(read_text(study + "/report/study.json")),
                 now = nlohmann::json::parse(read_text(kept + "/study.json"));
  CHECK(now.at("points")[0].at("latency") != then.at("points")[0].at("latency"));
  for (nlohmann::json* side : {&then, &now}) {
    for (nlohmann::json& p : side->at("points")) p.erase("latency");
    for (nlohmann::json& g : side->at("groups")) g.at("cost").erase("latency");
    side->at("fronts").erase("latency");
  }
  CHECK(now == then);
  CHECK_FALSE(fs::exists(kept + "/.lock"));

  now = nlohmann::json::parse(read_text(kept + "/study.json"));
  for (nlohmann::json& p : now.at("points")) {
    p.erase("outcomes");  // which are of the images as they were
    p.at("last").at("images") = p.at("name") == points[0] ? 995 : 1000;
  }
  folder.write("kept/study.json", now.dump());
  const Result uneven = run_program(measure + kept);
  CHECK(uneven.code == 0);
  CHECK(has(uneven.err, points[0] + " saw 995; the others 1,000"));
  nlohmann::json strangers = nlohmann::json::parse(read_text(kept + "/study.json"));
  strangers.at("points")[0].at("last").at("images") = 7;
  folder.write("kept/study.json", strangers.dump());
  check_refused(measure + kept, 3, "do not compare");  // and in one line: before any progress
  check_refused("study measure --rounds 0 " + study, 2, "--rounds is 0; use 1 to 10000");
  check_refused(measure + (folder / "none"), 2, "there is no study");
  check_refused(measure + data, 3, "has no finished point");
  nlohmann::json other = result(points[0]);
  other.at("provenance").at("config") = "width = 3.0";
  folder.write("study/" + points[0] + "/result.json", other.dump());
  const std::string unchanged = read_text(study + "/" + points[3] + "/result.json");
  check_refused(measure + study, 3, "bf16-x0.05-s0 is a resnet26 x0.05");
  CHECK(read_text(study + "/" + points[3] + "/result.json") == unchanged);
}

TEST_CASE(
    "study run: images that come while a point is trained stop the study before a point that would train on them") {
  if (no_program()) return;
  const TemporaryFolder folder("changing");
  const std::string data = synthetic_data(folder), study = folder / "s";
  Child run("exec " + *program() + " study run --quiet --data " + data + " --out " + study +
            " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --calibrate-at 1 --steps 4 --widths 0.1"
            " --precisions bf16,w8a8,w4a4 --threads 1 2> " +
            (folder / "err"));
  REQUIRE(run.reaches([&] { return fs::exists(study + "/bf16-x0.1-s0/result.json"); }));
  const std::string disk = data + "/train/striped_disk";
  fs::copy(disk + "/00000.jpg", disk + "/00009.jpg");
  CHECK(WEXITSTATUS(run.wait()) == 3);
  CHECK(has(read_text(folder / "err"), "use the same images or begin another study"));
  CHECK_FALSE(fs::exists(study + "/w4a4-x0.1-s0/result.json"));
  fs::remove(disk + "/00009.jpg");
  run_well("study run --quiet --out " + study);
}

TEST_CASE("study report: its own folder takes a report of points begun again, a folder is not a page") {
  if (no_program()) return;
  const TemporaryFolder folder("again");
  const std::string study = folder / "s", point = study + "/bf16-x0.1-s0";
  const std::string run = "study run --quiet --data " + synthetic_data(folder) + " --out " + study +
                          " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --steps 1 --widths 0.1"
                          " --precisions bf16 --threads 1";
  run_well(run);
  run_well("study report " + study);
  nlohmann::json other = nlohmann::json::parse(read_text(point + "/result.json"));
  other.at("provenance").at("started") = "2001-01-01T00:00:00Z";  // as of a training begun at another time
  write_text(point + "/result.json", other.dump());
  run_well("study report " + study);
  CHECK(has(read_text(study + "/report/study.json"), "2001-01-01"));
  fs::copy(study + "/report", folder / "kept");
  other.at("provenance").at("started") = "2002-02-02T00:00:00Z";
  write_text(point + "/result.json", other.dump());
  check_refused("study report " + study + " --out " + (folder / "kept/index.html"), 2, "holds another study");
  fs::create_directories(folder / "empty");
  check_refused("study report " + study + " --out " + (folder / "empty"), 2, "a folder; name the page in it");
  check_refused("study report " + study + " --out " + (folder / "new/"), 2, "a folder; name the page in it");
  CHECK(fs::is_empty(folder / "empty"));
  CHECK_FALSE(fs::exists(folder / "new"));
}

TEST_CASE("study run: SIGTERM saves and exits with 75, a second study waits outside, and the next call continues") {
  const TemporaryFolder folder("study-term");
  const std::string data = folder / "data", study = folder / "study", point = study + "/w4a4-x0.1-s0";
  if (!make_data(data)) return;
  const std::string command = "exec '" + program().value() + "' study run --quiet --data " + data + " --out " + study +
                              kRecipe + "--steps 100 --save-every 2 --widths 0.1 --precisions w4a4 2>'" +
                              (folder / "err") + "' >/dev/null";
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  for (int i = 0; i < 6000 && !fs::exists(point + "/latest"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  REQUIRE(fs::exists(point + "/latest"));
  check_refused("study run --quiet --out " + study, 2, "another process is working on the study");
  fs::create_directories(study + "/kept");
  fs::copy_file(folder.write("result.json", "{}"), study + "/kept/result.json");
  check_refused("study measure " + study, 2, "another process is working on the study");
  fs::remove_all(study + "/kept");
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK(has(read_text(folder / "err"), "continue with: nibble study run --out " + study));
  CHECK_FALSE(fs::exists(point + "/result.json"));
  const Result rest = run_program("study run --out " + study);
  CHECK(rest.code == 0);
  CHECK(has(rest.err, "resuming " + point + " at step "));
  CHECK(nlohmann::json::parse(read_text(point + "/result.json")).at("steps") == 100);
}

}  // namespace
}  // namespace nibble::testing
