// nibble study run --weights: points that start from trained weights, and what knows them again.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/apps/whole_run.hpp"

namespace nibble::testing {
namespace {

namespace fs = std::filesystem;

const std::string kTinyRecipe =
    " --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --lr 0.01";

nlohmann::json json_file(const std::string& path) {
  return nlohmann::json::parse(read_text(path));
}

/// Two bf16 models, of which x0.1 has two seeds.
std::string trained_study(const TemporaryFolder& folder, const std::string& data) {
  const std::string study = folder / "trained";
  run_well("study run --quiet --data " + data + " --out " + study + kTinyRecipe +
           " --widths 0.1,0.15 --precisions bf16 --seeds 0 --extra-seeds 0.1:3");
  return study;
}

TEST_CASE("study run --weights: from a study each point starts from its bf16 model of the same width, and seed") {
  if (no_program()) return;
  const TemporaryFolder folder("study-weights");
  const std::string data = synthetic_data(folder), from = trained_study(folder, data), tuned = folder / "tuned";
  const std::string begin = "study run --json --data " + data + " --out " + tuned + kTinyRecipe + " --weights " + from +
                            " --widths 0.1,0.15 --precisions w8a8,w4a4 --seeds 3";
  const Result planned = run_well(begin + " --dry-run");
  CHECK_FALSE(fs::exists(tuned));
  const Result begun = run_well(begin + " --quiet");
  CHECK(json_of(begun).at("points").size() == 4);

  const nlohmann::json start = json_file(tuned + "/plan.json").at("start");
  CHECK(start.at("weights") == from);
  REQUIRE(start.at("points").size() == 2);
  const std::string same_seed = from + "/bf16-x0.1-s3/checkpoints/step-000002.safetensors",
                    other_seed = from + "/bf16-x0.15-s0/checkpoints/step-000002.safetensors";
  CHECK(start.at("points")[0].at("file") == same_seed);
  CHECK(start.at("points")[1].at("file") == other_seed);
  for (const char* precision : {"w8a8", "w4a4"}) {
    for (const auto& [width, file, at] : {std::tuple("0.1", same_seed, 0), std::tuple("0.15", other_seed, 1)}) {
      const std::string point = tuned + "/" + precision + "-x" + width + "-s3";
      const nlohmann::json provenance = json_file(point + "/result.json").at("provenance");
      CHECK(provenance.at("weights") == file);
      CHECK(provenance.at("weights_sha256") == start.at("points")[static_cast<size_t>(at)].at("sha256"));
      CHECK(has(provenance.at("command").get<std::string>(), " --weights " + file + " --out"));
      // The same bytes as of the run that the command makes.
      const std::string alone = folder / "alone";
      run_well("train --quiet --config " + point + "/config.resolved.toml --weights " + file + " --out " + alone);
      CHECK((read_text(alone + "/latest") == read_text(point + "/latest")));
      fs::remove_all(alone);
    }
  }

  // More points are added without naming the weights again; another study of them, at the same time, is the same.
  run_well("study run --quiet --out " + tuned + " --widths 0.1 --precisions w4a4-fl8 --seeds 4");
  CHECK(json_file(tuned + "/plan.json").at("start").at("points")[1].at("file") ==
        from + "/bf16-x0.1-s0/checkpoints/step-000002.safetensors");
  const std::string at_once = folder / "at-once";
  run_well("study run --quiet --jobs 2 --data " + data + " --out " + at_once + kTinyRecipe + " --threads 2 --weights " +
           from + " --widths 0.1 --precisions w8a8,w4a4 --seeds 3");
  for (const char* point : {"/w8a8-x0.1-s3/latest", "/w4a4-x0.1-s3/latest"})
    CHECK((read_text(at_once + point) == read_text(tuned + point)));

  // Beside a study from nothing the weights are a difference of the recipes.
  const std::string fresh = folder / "fresh";
  run_well("study run --quiet --data " + data + " --out " + fresh + kTinyRecipe +
           " --widths 0.1 --precisions w8a8 --seeds 3");
  const nlohmann::json compared = json_of(run_well("study compare --json " + fresh + " " + tuned));
  CHECK(compared.at("recipe") ==
        nlohmann::json::parse(R"([{"option":"weights","a":"none","b":")" + same_seed + "\"}]"));
  CHECK(json_of(run_well("study compare --json " + at_once + " " + tuned)).at("recipe").empty());
  const auto page_of = [](const std::string& study) {
    run_well("study report " + study);
    return read_text(study + "/report/index.html");
  };
  const std::string hash = start.at("points")[0].at("sha256").get<std::string>().substr(0, 12);
  CHECK(has(page_of(tuned), same_seed + " (" + hash + ")"));
  CHECK_FALSE(has(page_of(fresh), "starts from"));
}

TEST_CASE("study run --weights: other weights, none, and weights that do not fit are refused; nothing is changed") {
  if (no_program()) return;
  const TemporaryFolder folder("study-weights-refused");
  const std::string data = synthetic_data(folder), from = trained_study(folder, data), tuned = folder / "tuned";
  const std::string begin = "study run --quiet --data " + data + " --out " + tuned + kTinyRecipe;
  check_refused(begin + " --widths 0.2 --precisions w8a8 --weights " + from, 3,
                "has no finished bf16 model of width 0.2 for w8a8-x0.2-s0 to start from");
  check_refused(begin + " --widths 0.15 --precisions w8a8 --weights " + from + "/bf16-x0.1-s0", 4,
                "was it made with another arch or width?");
  check_refused(begin + " --weights-key ema", 2, "choose from the file of --weights; name it");
  check_refused(begin + " --weights " + from + "-not", 4, "does not exist");
  CHECK_FALSE(fs::exists(tuned));

  run_well(begin + " --widths 0.1 --precisions w8a8 --weights " + from + "/bf16-x0.1-s0");
  const std::string plan = read_text(tuned + "/plan.json"), again = "study run --quiet --out " + tuned;
  check_refused(again + " --weights " + from + "/bf16-x0.1-s3", 4, "has other bytes than the weights that the study");
  CHECK(read_text(tuned + "/plan.json") == plan);
  // The same bytes elsewhere are the same weights, and then found there.
  const std::string copy = folder / "copy.safetensors";
  fs::copy_file(from + "/bf16-x0.1-s0/latest", copy);
  run_well(again + " --weights " + copy + " --precisions w8a8,w4a4");
  CHECK(json_file(tuned + "/plan.json").at("start").at("points")[0].at("file") == copy);
  // A file that changes before its point starts; one that is needed for no point may be gone.
  fs::copy_file(from + "/bf16-x0.1-s3/latest", copy, fs::copy_options::overwrite_existing);
  const Result changed = run_program(again + " --precisions w4a4-fl8");
  CHECK(changed.code == 1);
  CHECK(has(changed.out, "'" + copy + "' has changed since the study was planned; put the file back"));
  fs::remove(copy);
  fs::remove_all(tuned + "/w4a4-fl8-x0.1-s0");
  std::string done = read_text(tuned + "/plan.json");
  const size_t added = done.find("w4a4-fl8");
  done.erase(done.rfind(',', added), done.find('}', added) + 1 - done.rfind(',', added));
  write_text(tuned + "/plan.json", done);
  CHECK(run_program(again).code == 0);

  // A study from nothing takes no weights later, nor results that had some.
  const std::string fresh = folder / "fresh";
  const std::string begin_fresh = "study run --quiet --data " + data + " --out " + fresh + kTinyRecipe;
  run_well(begin_fresh + " --widths 0.1 --precisions w4a4-fl8");
  check_refused("study run --quiet --out " + fresh + " --weights " + from, 2, "was begun without --weights");
  fs::copy(tuned + "/w8a8-x0.1-s0", fresh + "/w8a8-x0.1-s0", fs::copy_options::recursive);
  check_refused("study run --quiet --out " + fresh, 2,
                "was trained from " + from +
                    "/bf16-x0.1-s0/checkpoints/step-000002.safetensors, the points of the study "
                    "start from nothing; remove");
}

}  // namespace
}  // namespace nibble::testing
