// One logits hash on real images, for every form of activation scales: checkpoint, exported file, this kernel level and
// the scalar one, several threads and batch sizes. The long version is tests/same_logits.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/apps/whole_run.hpp"
#include "tests/shared_data.hpp"

namespace {

namespace fs = std::filesystem;
using namespace nibble::testing;

/// `count` files of a folder, in name order, copied to another.
void copy_some(const fs::path& from, const fs::path& to, size_t count) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(from)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  fs::create_directories(to);
  for (size_t i = 0; i < std::min(count, files.size()); ++i) fs::copy_file(files[i], to / files[i].filename());
}

/// 40 images to train on and 20 to evaluate, of ten classes.
void make_small(const fs::path& imagenette, const fs::path& data) {
  for (const auto& entry : fs::directory_iterator(imagenette / "train")) {
    const fs::path name = entry.path().filename();
    copy_some(imagenette / "train" / name, data / "train" / name, 4);
    copy_some(imagenette / "val" / name, data / "val" / name, 2);
  }
}

std::string hash_of(const std::string& model, const std::string& data, const std::string& options,
                    const std::string& settings = "") {
  const nlohmann::json j = json_of(run_program("eval " + model + " --data " + data + " --json " + options, settings));
  CHECK(j.at("images") == 20);
  return j.at("logits_sha256");
}

}  // namespace

TEST_CASE("real images: checkpoint and exported file have one logits hash, on two levels, for every activation form") {
  const auto shared = shared_data("imagenette");
  if (!program() || !shared) {
    MESSAGE("skipped: needs the program and the shared images");
    return;
  }
  const TemporaryFolder folder("real");
  const std::string data = folder / "data";
  make_small(*shared / "imagenette", data);
  std::vector<std::string> seen;
  for (const std::string form :
       {"--precision w4a4-fl8 --per-channel-by fold", "--precision w4a4-fl8 --per-channel-by shift",
        "--precision w4a4-fl8 --per-channel-by shift+fold", "--precision w4a4-fl8 --granularity per_tensor",
        "--precision w8a8"}) {
    CAPTURE(form);
    const std::string run = folder / ("run" + std::to_string(seen.size())), served = run + "/served.safetensors";
    train_run(data, run,
              form +
                  " --arch resnet26 --width 0.2 --image-size 32 --batch-size 20 --shard 10 --steps 6 "
                  "--warmup-epochs 0 --calibrate-at 3 --quiet");
    run_well("export " + run + "/latest --out " + served);
    const std::string hash = hash_of(run + "/latest", data, "--threads 1 --batch-size 1");
    CHECK(hash_of(served, data, "--threads 2 --batch-size 7") == hash);
    CHECK(hash_of(run + "/latest", data, "--threads 3 --batch-size 32", "NIBBLE_ISA=scalar") == hash);
    CHECK(hash_of(served, data, "--threads 1 --batch-size 20", "NIBBLE_ISA=scalar") == hash);
    CHECK(std::count(seen.begin(), seen.end(), hash) == 0);  // the forms are different models
    seen.push_back(hash);
  }
}
