// Data sets in the layouts they are published in, through the whole program.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;
namespace fs = std::filesystem;

constexpr const char* kTwoSteps =
    " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --save-every 1"
    " --strict-data --quiet";
constexpr const char* kLast = "/checkpoints/step-000002.safetensors";

/// The same files as Tiny ImageNet has them: train/<class>/images/ next to boxes, val/images/ and a list.
void copy_as_tiny_imagenet(const std::string& from, const std::string& to) {
  std::string annotations;
  for (const std::string split : {"train", "val"})
    for (const auto& entry : fs::directory_iterator(from + "/" + split)) {
      const std::string name = entry.path().filename().string();
      const fs::path images = split == "train" ? to + "/train/" + name + "/images" : to + "/val/images";
      fs::create_directories(images);
      if (split == "train") write_text(to + "/train/" + name + "/" + name + "_boxes.txt", "boxes");
      for (const auto& file : fs::directory_iterator(entry)) {
        // In one folder the names must differ.
        const std::string target = file.path().filename().string();
        fs::copy_file(file.path(), images / target);
        if (split == "val") annotations += target + "\t" + name + "\t0\t0\t31\t31\n";
      }
    }
  write_text(to + "/val/val_annotations.txt", annotations);
}

TEST_CASE(
    "split: a folder of classes becomes a data set that trains; what is one already, or is in the way, is refused") {
  if (no_program()) return;
  const TemporaryFolder folder("split");
  const std::string data = synthetic_data(folder, {.train = 12, .val = 1}), photos = data + "/train",
                    out = folder / "out";
  const nlohmann::json counts = json_of(run_well("split " + photos + " --out " + out + " --val-share 0.3 --json"));
  CHECK(counts.at("classes") == 10);
  CHECK(counts.at("train").get<int>() + counts.at("val").get<int>() == 120);
  CHECK(counts.at("val").get<int>() > 20);
  CHECK(counts.at("val").get<int>() < 60);
  const nlohmann::json plan =
      json_of(run_well("train --dry-run --json --data " + out + " --out " + (folder / "run") + kTwoSteps));
  CHECK(plan.at("train_images") == counts.at("train"));
  CHECK(plan.at("val_images") == counts.at("val"));
  check_refused("split " + photos + " --out " + out, 2, "'" + out + "' exists; choose another folder");
  check_refused("split " + data + " --out " + out, 2, "has a folder val already; use it as it is");
  check_refused("split " + photos + " --out " + photos + "/x", 2, "lies in " + photos + ", where it would be taken");
  check_refused("split " + photos + " --out " + out + "2 --val-share 1", 2, "--val-share is 1; use a share between");
  check_refused("split " + data + "/not --out " + out + "2", 3, "there is no folder " + data + "/not");
  // The part of a data set that has images of training alone; training on it says what to do.
  fs::remove_all(data + "/val");
  check_refused("train --data " + data + " --out " + (folder / "run") + kTwoSteps, 3,
                "there is no folder " + data + "/val to evaluate on; nibble split " + data + " --out OUT sets");
  check_refused("train --data " + photos + " --out " + (folder / "run") + kTwoSteps, 3,
                "there is no folder " + photos + "/val to evaluate on; nibble split " + photos);
  CHECK(json_of(run_well("split " + data + " --out " + out + "3 --copy --json")).at("classes") == 10);
  fs::create_directories(data + "/valid");
  check_refused("train --data " + data + " --out " + (folder / "run") + kTwoSteps, 3,
                "but " + data + "/valid; call it val");
}

TEST_CASE("eval of a split's own folder says how to name it") {
  if (no_program()) return;
  const TemporaryFolder folder("split-as-data");
  const std::string data = synthetic_data(folder), run = folder / "run";
  train_run(data, run, std::string(kTwoSteps));
  for (const char* slash : {"", "/"})
    check_refused("eval " + run + "/latest --data " + data + "/val" + slash, 3,
                  "has class folders but no folder val; give the folder above it: --data " + data + " --split val");
  CHECK(run_program("eval " + run + "/latest --data " + data + " --split val").code == 0);
  check_refused("eval " + run + "/latest --data " + data + "/not", 3, "there is no folder " + data + "/not/val");
}

}  // namespace

TEST_CASE("a run on Tiny ImageNet's layout is the run on class folders, and each resumes with the other's images") {
  if (no_program()) return;
  const TemporaryFolder folder("tiny");
  const std::string data = synthetic_data(folder), tiny = folder / "tiny", a = folder / "a", b = folder / "b";
  for (const std::string split : {"train", "val"})
    for (const auto& entry : fs::directory_iterator(data + "/" + split)) {
      std::vector<fs::path> files;
      for (const auto& file : fs::directory_iterator(entry)) files.push_back(file.path());
      for (const fs::path& file : files)
        fs::rename(file, file.parent_path() / (entry.path().filename().string() + "_" + file.filename().string()));
    }
  copy_as_tiny_imagenet(data, tiny);
  train_run(data, a, kTwoSteps);
  const Result quiet = train_run(tiny, b, kTwoSteps);
  CHECK_FALSE(has(quiet.err, "left out"));
  REQUIRE(fs::is_regular_file(b + kLast));
  CHECK(read_text(a + kLast) == read_text(b + kLast));
  const auto hash = [](const std::string& run, const std::string& images) {
    return json_of(run_program("eval " + run + " --data " + images + " --json")).at("logits_sha256");
  };
  CHECK(hash(a, tiny) == hash(b, data));
  fs::remove(a + kLast);
  run_well("train --resume " + a + " --data " + tiny + " --quiet");
  CHECK(read_text(a + kLast) == read_text(b + kLast));
}

TEST_CASE("CIFAR's files are trained on and evaluated as they are") {
  if (no_program()) return;
  const TemporaryFolder folder("cifar");
  const std::string data = folder / "cifar";
  fs::create_directories(data);
  unsigned state = 1;
  const auto write = [&](const std::string& name, int images) {
    std::string bytes;
    for (int i = 0; i < images; ++i) {
      bytes.push_back(static_cast<char>(i % 3));
      for (int k = 0; k < 3072; ++k) {
        state = state * 1664525u + 1013904223u;
        bytes.push_back(static_cast<char>(state >> 24));
      }
    }
    write_text(data + "/" + name, bytes);
  };
  for (int batch = 1; batch <= 5; ++batch) write("data_batch_" + std::to_string(batch) + ".bin", 4);
  write("test_batch.bin", 7);
  write_text(data + "/batches.meta.txt", "airplane\nautomobile\nbird\n\n");
  const std::string run = folder / "run";
  train_run(data, run, kTwoSteps);
  const nlohmann::json by_executor = json_of(run_program("eval " + run + " --data " + data + " --json"));
  CHECK(by_executor.at("images") == 7);
  CHECK(json_of(run_program("eval " + run + " --data " + data + " --by modules --json")).at("logits_sha256") ==
        by_executor.at("logits_sha256"));
  const nlohmann::json doctor = json_of(run_program("doctor --data " + data + " --json"));
  CHECK(doctor.at("loader_images_per_second_per_thread").at("64") > 0);
  fs::remove(data + "/data_batch_4.bin");
  check_refused("train --data " + data + " --out " + (folder / "other") + kTwoSteps, 3,
                "there is no " + data + "/data_batch_4.bin");
}

TEST_CASE("files that no run reads are left out with a word of it, in training and in evaluation") {
  if (no_program()) return;
  const TemporaryFolder folder("others");
  const std::string data = synthetic_data(folder), run = folder / "run";
  write_text(data + "/train/plain_disk/a.webp", "another kind of image");
  write_text(data + "/val/ringed_disk/b.webp", "another kind of image");
  const Result trained = train_run(data, run, kTwoSteps), evaluated = run_well("eval " + run + " --data " + data);
  const std::string left_out = ": left out 1 entry that is not a .jpg, .jpeg or .png file: ";
  CHECK(has(trained.err, left_out + "plain_disk/a.webp"));
  CHECK(has(trained.err, left_out + "ringed_disk/b.webp"));
  CHECK_FALSE(has(evaluated.err, "a.webp"));
  CHECK(has(evaluated.err, left_out + "ringed_disk/b.webp"));
}
