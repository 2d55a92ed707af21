// Models compared on the same images, on some of their classes, and image by image, through the program.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nn/runtime/served_file.hpp"
#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;
namespace fs = std::filesystem;

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void train_small(const std::string& data, const std::string& run, const std::string& more = "") {
  train_run(data, run,
            "--arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 4 --calibrate-at 2 --quiet " +
                more);
}

TEST_CASE("comparison: eval --against says how two models differ, image by image as --predictions has them") {
  if (no_program()) return;
  const TemporaryFolder folder("against");
  const std::string data = synthetic_data(folder, {.train = 4, .val = 3}), here = folder / "here",
                    there = folder / "there";
  train_small(data, here, "--precision w4a4-fl8");
  train_small(data, there, "--precision bf16 --seed 5");
  run_well("export " + there + "/latest --out " + there + "-served");
  const std::string bad = data + "/val/plain_disk/00001.jpg";
  write_text(bad, "no image");
  const auto predictions = [&](const std::string& model) {
    const std::string file = folder / "predictions.jsonl";
    evaluation_of(model, data, "--predictions " + file);
    return json_lines(read_text(file));
  };
  const std::vector<nlohmann::json> a = predictions(here), b = predictions(there);
  REQUIRE(a.size() == 29);
  REQUIRE(b.size() == 29);
  int same = 0, here_alone = 0, there_alone = 0, right = 0;
  const std::vector<std::string> classes = names_in(data + "/val");
  for (size_t i = 0; i < a.size(); ++i) {
    const fs::path image = a[i].at("image").get<std::string>();
    REQUIRE(b[i].at("image") == image.string());
    CHECK(image != bad);
    const nlohmann::json& label = a[i].at("label");
    CHECK(label.at("name") == image.parent_path().filename().string());
    CHECK(label.at("name") == classes.at(label.at("index").get<size_t>()));
    REQUIRE(a[i].at("top").size() == 5);
    const auto first = [](const nlohmann::json& line) { return line.at("top").front().at("index").get<int>(); };
    const bool right_here = first(a[i]) == label.at("index"), right_there = first(b[i]) == label.at("index");
    right += right_here;
    same += first(a[i]) == first(b[i]);
    here_alone += right_here && !right_there;
    there_alone += right_there && !right_here;
  }
  const nlohmann::json j = evaluation_of(here, data, "--against " + there), c = j.at("against");
  CHECK(j.at("images") == 29);
  CHECK(j.at("top1").get<double>() == doctest::Approx(100.0 * right / 29));
  const nlohmann::json alone = evaluation_of(there, data);
  for (const char* key : {"top1", "top5", "loss", "logits_sha256"}) CHECK(c.at(key) == alone.at(key));
  CHECK(c.at("model") == there);
  CHECK(c.at("same_class") == same);
  CHECK(c.at("right_only_here") == here_alone);
  CHECK(c.at("right_only_there") == there_alone);
  CHECK(c.at("difference").get<double>() ==
        doctest::Approx(j.at("top1").get<double>() - c.at("top1").get<double>()).epsilon(1e-9));
  const double mean = (here_alone - there_alone) / 29.0;
  CHECK(c.at("standard_error").get<double>() ==
        doctest::Approx(100 * std::sqrt(((here_alone + there_alone) / 29.0 - mean * mean) / 28)));
  const Result text = run_well("eval " + here + " --data " + data + " --against " + there);
  CHECK(has(text.out, "against it: top1 "));
  CHECK(text.err.find("skipped " + bad) == text.err.rfind("skipped " + bad));
  const nlohmann::json itself = evaluation_of(here, data, "--against " + here).at("against");
  CHECK(itself.at("same_class") == 29);
  CHECK(itself.at("standard_error") == 0.0);

  const std::string other = folder / "other";
  train_small(data, other, "--classes 3");
  check_refused("eval " + here + " --data " + data + " --against " + other, 2, "tell other classes apart");
  check_refused("eval " + here + " --data " + data + " --against " + (folder / "none"), 4, "does not exist");
  const std::string config = here + "/config.resolved.toml", before = read_text(config);
  check_refused("eval " + here + " --data " + data + " --predictions " + config, 2, "holds no predictions");
  CHECK(read_text(config) == before);
  check_refused("eval " + here + " --data " + data + " --predictions " + (folder / "none/file"), 7, "none");
  // A link stays one; what is no file is refused before anything is read from it.
  const std::string file = folder / "predictions.jsonl", link = folder / "link", pipe = folder / "pipe";
  fs::create_symlink(file, link);
  evaluation_of(there, data, "--predictions " + link);
  CHECK(fs::is_symlink(link));
  CHECK(json_lines(read_text(file)).size() == 29);
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  check_refused("eval " + here + " --data " + data + " --predictions " + pipe, 7, pipe);

  // Models without names of classes number them as the folders do; another order is another model's.
  nibble::ServedModel named = nibble::load_served(there + "-served"), nameless = named;
  nameless.class_names.clear();
  nibble::save_served(folder / "nameless", nameless);
  std::reverse(named.class_names.begin(), named.class_names.end());
  nibble::save_served(folder / "reversed", named);
  CHECK(evaluation_of(folder / "nameless", data, "--against " + there).at("against").at("same_class") == 29);
  check_refused("eval " + (folder / "nameless") + " --data " + data + " --against " + (folder / "reversed"), 2,
                "tell other classes apart");
}

TEST_CASE("comparison: a model is evaluated on some of its classes, by their names and in any order") {
  if (no_program()) return;
  const TemporaryFolder folder("some-classes");
  const std::string data = synthetic_data(folder, {.train = 4, .val = 2}), run = folder / "run", some = folder / "some";
  train_small(data, run);
  const nlohmann::json whole = evaluation_of(run, data, "--by-class");
  const std::vector<std::string> classes = names_in(data + "/val"), kept = {classes[7], classes[2], classes[4]};
  for (const std::string& name : kept) {
    fs::create_directories(some + "/val");
    fs::copy(data + "/val/" + name, some + "/val/" + name, fs::copy_options::recursive);
  }
  const Result r = run_program("eval " + run + " --data " + some + " --by-class --json");
  const nlohmann::json j = json_of(r);
  CHECK(has(r.err, some + " has 3 of the 10 classes of the model"));
  CHECK(j.at("images") == 6);
  REQUIRE(j.at("by_class").size() == 3);
  std::map<std::string, nlohmann::json> of_whole;
  for (const nlohmann::json& c : whole.at("by_class")) of_whole[c.at("name")] = c;
  for (const nlohmann::json& c : j.at("by_class")) CHECK(c == of_whole.at(c.at("name")));
  fs::rename(some + "/val/" + kept[0], some + "/val/unheard-of");
  check_refused("eval " + run + " --data " + some, 3, "class 'unheard-of' of ");
}

TEST_CASE("comparison: predict takes folders, and says what it says of their images one by one") {
  if (no_program()) return;
  const TemporaryFolder folder("folders");
  const std::string data = synthetic_data(folder, {.train = 2, .val = 2}), run = folder / "run";
  train_small(data, run);
  const std::string bad = data + "/val/plain_disk/00000.jpg", damaged = data + "/val/ringed_disk/00001.jpg";
  write_text(bad, "no image");
  const std::string bytes = read_text(damaged);
  write_text(damaged, bytes.substr(0, bytes.size() * 3 / 4));
  std::vector<std::string> images;
  for (const auto& entry : fs::recursive_directory_iterator(data + "/val"))
    if (entry.is_regular_file()) images.push_back(entry.path().string());
  std::sort(images.begin(), images.end());
  REQUIRE(images.size() == 20);
  std::string named;
  for (const std::string& image : images) named += " " + image;
  for (const char* json : {"", " --json"}) {
    const Result by_folder = run_program("predict " + run + " " + data + "/val" + json),
                 by_name = run_program("predict " + run + named + json + " --loader-threads 3");
    CHECK(by_folder.code == 3);
    CHECK(by_name.code == 3);
    CHECK(by_folder.out == by_name.out);
    CHECK(by_folder.err == by_name.err);
    CHECK(has(by_folder.err, damaged + " is used although damaged"));
    CHECK(has(*json == 0 ? by_folder.err : by_folder.out, bad));
  }
  // In the order of the command line, each what it is; one that is missing stops no other.
  const std::string missing = folder / "missing.jpg";
  const Result mixed = run_program("predict " + run + " --json " + images[3] + " " + missing + " " + data +
                                   "/val/striped_disk " + bad + " " + images[3]);
  CHECK(mixed.code == 3);
  const std::vector<nlohmann::json> lines = json_lines(mixed.out);
  REQUIRE(lines.size() == 6);
  CHECK(lines[0] == lines[5]);
  CHECK(lines[0].at("image") == images[3]);
  CHECK(has(lines[1].at("error").get<std::string>(), missing));
  CHECK(lines[2].at("image") == data + "/val/striped_disk/00000.jpg");
  CHECK(lines[3].at("image") == data + "/val/striped_disk/00001.jpg");
  CHECK(has(lines[4].at("error").get<std::string>(), bad));
  const Result none = run_program("predict " + run + " " + bad + " " + missing);
  CHECK(none.code == 3);
  CHECK(none.out.empty());
  CHECK(std::count(none.err.begin(), none.err.end(), '\n') == 2);
  // What is no image is not looked at, but not without a word either.
  write_text(data + "/val/striped_disk/photo.heic", "");
  const Result beside = run_program("predict " + run + " " + data + "/val/striped_disk");
  CHECK(beside.code == 0);
  CHECK(
      has(beside.err, data + "/val/striped_disk: left out 1 entry that is not a .jpg, .jpeg or .png file: photo.heic"));
  const std::string heic = folder / "heic";
  fs::create_directories(heic);
  write_text(heic + "/photo.heic", "");
  CHECK(has(run_program("predict " + run + " " + heic).err, "nor do the folders in it (but photo.heic, for one)"));
  check_refused("predict model image --loader-threads 0", 2, "--loader-threads is 0; use 1 to 64");
}

}  // namespace
