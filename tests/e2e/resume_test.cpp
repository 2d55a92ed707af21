// A resumed run is the same run: it goes on from the same weights, with the same options, on the same images, or not.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/apps/program.hpp"

namespace {

using nibble::testing::no_program;
using nibble::testing::read_text;
using nibble::testing::Result;
using nibble::testing::run_program;
using nibble::testing::TemporaryFolder;
using nibble::testing::write_text;

constexpr const char* kRun =
    " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 3 --calibrate-at 1 --save-every 1"
    " --strict-data --quiet";
constexpr const char* kLast = "/checkpoints/step-000003.safetensors";

std::string make_data(const TemporaryFolder& folder) {
  const std::string data = folder / "data";
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 1 --size 32").code == 0);
  return data;
}

/// A run of three steps, taken back to its second checkpoint.
std::string begun_run(const TemporaryFolder& folder, const std::string& data) {
  const std::string run = folder / "run";
  REQUIRE(run_program("train --data " + data + " --out " + run + kRun).code == 0);
  std::filesystem::remove(run + kLast);
  return run;
}

}  // namespace

TEST_CASE("a run that starts from given weights and ends before its first step goes on from those weights") {
  if (no_program()) return;
  const TemporaryFolder folder("given");
  const std::string data = make_data(folder), whole = folder / "whole", broken = folder / "broken";
  REQUIRE(run_program("train --data " + data + " --out " + (folder / "base") + kRun + " --seed 9").code == 0);
  const std::string options = " --weights " + (folder / "base") + kLast + kRun;
  REQUIRE(run_program("train --data " + data + " --out " + whole + options).code == 0);

  std::filesystem::rename(data + "/train", data + "/kept");
  std::filesystem::copy(data + "/kept", data + "/train", std::filesystem::copy_options::recursive);
  for (const auto& image : std::filesystem::recursive_directory_iterator(data + "/train"))
    if (image.is_regular_file()) write_text(image.path(), "no image");
  CHECK(run_program("train --data " + data + " --out " + broken + options).code == 3);
  std::filesystem::remove_all(data + "/train");
  std::filesystem::rename(data + "/kept", data + "/train");
  CHECK(run_program("train --resume " + broken + " --quiet").code == 0);
  CHECK(read_text(broken + kLast) == read_text(whole + kLast));
}

TEST_CASE("a run whose config was edited is not resumed, and the option is named") {
  if (no_program()) return;
  const TemporaryFolder folder("edited");
  const std::string run = begun_run(folder, make_data(folder)), config = run + "/config.resolved.toml";
  const std::string text = read_text(config);
  const size_t at = text.find("\nlr = ") + 1;
  write_text(config, text.substr(0, at) + "lr = 0.0625" + text.substr(text.find('\n', at)));
  const Result r = run_program("train --resume " + run + " --quiet");
  CAPTURE(r.err);
  CHECK(r.code == 2);
  CHECK(r.err.find("lr = 0.0625, the run began with 0.05") != std::string::npos);
  write_text(config, text);
  CHECK(run_program("train --resume " + run + " --keep 9 --quiet").code == 0);
}

TEST_CASE("a run is not resumed on other images or other classes, and is on the same ones in another place") {
  if (no_program()) return;
  const TemporaryFolder folder("images");
  const std::string data = make_data(folder), run = begun_run(folder, data), moved = folder / "moved";
  const std::string disk = data + "/train/striped_disk";
  std::filesystem::copy(disk + "/00000.jpg", disk + "/00009.jpg");
  Result r = run_program("train --resume " + run + " --quiet");
  CHECK(r.code == 3);
  CHECK(r.err.find("trained on other images than") != std::string::npos);
  std::filesystem::remove(disk + "/00009.jpg");
  for (const std::string split : {"train", "val"})
    std::filesystem::rename(data + "/" + split + "/striped_disk", data + "/" + split + "/disk");
  r = run_program("train --resume " + run + " --quiet");
  CHECK(r.code == 3);
  CHECK(r.err.find("trained on other classes than") != std::string::npos);
  for (const std::string split : {"train", "val"})
    std::filesystem::rename(data + "/" + split + "/disk", data + "/" + split + "/striped_disk");
  std::filesystem::rename(data, moved);
  CHECK(run_program("train --resume " + run + " --data " + moved + " --quiet").code == 0);
}

/// Each step of it multiplies the weights by about a thousand: batch norm hides that from training, not from
/// evaluation.
TEST_CASE("a model whose logits are not finite ends its run with exit code 6 and is not the best") {
  if (no_program()) return;
  const TemporaryFolder folder("diverged");
  const std::string data = make_data(folder), run = folder / "run";
  const std::string options =
      " --precision bf16 --lr 1000 --weight-decay 1 --warmup-epochs 0 --no-zero-gamma --steps 6";
  for (const std::string& command : {"--data " + data + " --out " + run + kRun + options, "--resume " + run}) {
    const Result r = run_program("train --quiet " + command);
    CAPTURE(r.err);
    CHECK(r.code == 6);
    CHECK(r.err.find("logits that are not finite") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(run + "/best"));
  }
  const Result eval = run_program("eval " + run + "/latest --json --data " + data);
  CHECK(eval.code == 0);
  const nlohmann::json result = nlohmann::json::parse(eval.out);
  CHECK(result.at("images") == 10);
  CHECK(result.at("loss").is_null());  // JSON has no NaN
  // Of a single image they may be finite, by the level of the kernels; what is printed is a probability anyway.
  const Result one = run_program("predict " + run + "/latest --json " + data + "/val/striped_disk/00000.jpg");
  CHECK((one.code == 6 ? one.out.empty() : one.code == 0 && one.out.find("null") == std::string::npos));
}

TEST_CASE("a class folder whose name models could not keep is refused before training") {
  if (no_program()) return;
  const TemporaryFolder folder("bytes");
  const std::string data = make_data(folder);
  for (const std::string split : {"train", "val"})
    std::filesystem::rename(data + "/" + split + "/striped_disk", data + "/" + split + "/caf\xe9");
  const Result r = run_program("train --data " + data + " --out " + (folder / "run") + kRun);
  CAPTURE(r.err);
  CHECK(r.code == 3);
  CHECK(r.err.find("is not UTF-8") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}
