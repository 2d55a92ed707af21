// A trained model quantized without training, through the program.
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "nn/checkpoint.hpp"
#include "nn/safetensors.hpp"
#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;

/// A bf16 run that knows most of its validation images: seconds on the scalar level.
std::string trained_in_bf16(const TemporaryFolder& folder, const std::string& data) {
  std::string run = folder / "bf16";
  train_run(data, run,
            "--precision bf16 --arch resnet26 --width 0.15 --image-size 32 --batch-size 32 --shard 16 --epochs 12 "
            "--lr 0.1 --warmup-epochs 1 --min-crop 0.6 --quiet");
  return run;
}

nlohmann::json evaluated(const std::string& model, const std::string& data) {
  return json_of(run_program("eval " + model + " --data " + data + " --json"));
}

/// The masters of a checkpoint under torchvision's names, as another program would have saved them.
void save_foreign(const std::string& checkpoint, const std::string& out) {
  const nibble::SafetensorsFile held = nibble::SafetensorsFile::open(checkpoint);
  nibble::SafetensorsWriter writer;
  for (const nibble::TensorEntry& e : held.entries())
    if (e.name.find("momentum.") != 0 && e.name.find(".input.") == std::string::npos)
      writer.add(e.name, held.tensor_f32(e.name));
  writer.write(out);
}

}  // namespace

TEST_CASE("quantize: a bf16 run becomes a model of 8 and of 4 bits without training, of nearly its accuracy") {
  if (no_program()) return;
  const TemporaryFolder folder("quantize");
  const std::string data = synthetic_data(folder, {.train = 40, .val = 10, .size = 40});
  const std::string run = trained_in_bf16(folder, data), trained = run + "/latest";
  const nlohmann::json before = evaluated(trained, data);
  REQUIRE(before.at("top1") > 40);  // of ten classes

  // As it is: no image is asked for.
  const std::string same = folder / "bf16.safetensors";
  const nlohmann::json kept = json_of(run_program("quantize " + trained + " --precision bf16 --json --out " + same));
  CHECK(kept.at("images") == 0);
  CHECK(kept.at("norms") == "model");
  CHECK(evaluated(same, data).at("logits_sha256") == before.at("logits_sha256"));

  const std::string with_images = " --data " + data + " --images 100 --batch-size 32 --json --out ";
  for (const std::string precision : {"w8a8", "w4a4-fl8"}) {
    CAPTURE(precision);
    const std::string file = folder / (precision + ".safetensors");
    const nlohmann::json j =
        json_of(run_program("quantize " + trained + " --precision " + precision + with_images + file));
    CHECK(j.at("precision") == precision);
    CHECK(j.at("file") == file);
    CHECK(j.at("bytes") == std::filesystem::file_size(file));
    CHECK(j.at("images") == 96);  // whole batches
    CHECK(j.at("skipped") == 0);
    CHECK(j.at("norms") == "images");
    const nlohmann::json after = evaluated(file, data);
    CHECK(after.at("calibrated") == true);
    CHECK(std::abs(after.at("top1").get<double>() - before.at("top1").get<double>()) <= 15);
    CHECK(after.at("loss").get<double>() <= before.at("loss").get<double>() + 0.3);
    // Once more, on another number of threads: the same file.
    const std::string again = folder / "again.safetensors";
    run_well("quantize " + trained + " --threads 3 --precision " + precision + with_images + again);
    CHECK(read_text(again) == read_text(file));
    const nlohmann::json inspected = json_of(run_program("inspect " + file + " --json"));
    CHECK(inspected.at("quant_scheme") == "nearest");
    CHECK(inspected.at("layers").at(3).contains("code_counts"));
  }

  // A file of another program says nothing about its network; its classes are those of the data.
  const std::string foreign = folder / "foreign.safetensors", of_foreign = folder / "of-foreign.safetensors";
  save_foreign(trained, foreign);
  const std::string quantize_foreign =
      "quantize " + foreign + " --arch resnet26 --width 0.15 --image-size 32" + with_images;
  run_well(quantize_foreign + of_foreign);
  CHECK(evaluated(of_foreign, data).at("logits_sha256") ==
        evaluated(folder / "w8a8.safetensors", data).at("logits_sha256"));
  check_refused("quantize " + foreign + " --arch resnet26 --width 0.2 --out " + (folder / "n"), 4,
                "was it made with another arch or width?");
  check_refused("quantize " + foreign + " --arch resnet26 --width 0.15 --classes 7 --out " + (folder / "n"), 4,
                "has 10 classes, not 7, so there is no fc to serve");
  check_refused("quantize " + same + " --out " + (folder / "n"), 4, "is a served model");
  check_refused("quantize " + trained + " --out " + (folder / "n"), 2, "--data is missing");
  check_refused("quantize " + trained + " --data " + data + " --split test --out " + (folder / "n"), 3, "test");
  check_refused("quantize " + trained + " --data " + data + " --quant-mode fake --out " + (folder / "n"), 2,
                "--quant-mode fake has no served model");
  check_refused("quantize " + trained + " --data " + data + " --out " + run + "/metrics.jsonl", 2,
                "exists and is not a served model");
  check_refused("quantize " + trained + " --data " + data + " --batch-size 1 --out " + (folder / "n"), 2,
                "give --batch-size and --images of 2 or more");
  CHECK_FALSE(std::filesystem::exists(folder / "n"));
  const std::string bad = data + "/train/striped_disk/00000.jpg";
  write_text(bad, "not an image");
  const Result skipped = run_program("quantize " + trained + " --data " + data + " --images 400 --json --out " + same);
  CHECK(json_of(skipped).at("skipped") == 1);
  CHECK(has(skipped.err, "skipped " + bad));
  check_refused("quantize " + trained + " --data " + data + " --images 400 --strict-data --out " + same, 3, bad,
                "NIBBLE_LOG=quiet");
}

TEST_CASE("quantize: options that make no sense are refused before anything is read") {
  if (no_program()) return;
  for (const auto& [options, part] :
       std::vector<std::pair<std::string, std::string>>{{"--images 0", "--images is 0; use 1 to 100000"},
                                                        {"--batch-size 0", "--batch-size is 0; use 1 to 1024"},
                                                        {"--norms all", "--norms is 'all'; use auto, model or images"},
                                                        {"--loader-threads 0", "--loader-threads is 0; use 1 to 64"}})
    check_refused("quantize /nonexistent --data /nonexistent --out n " + options, 2, part);
  check_refused("quantize /nonexistent --data /nonexistent --out n", 4, "'/nonexistent' does not exist");
  check_refused("quantize /nonexistent --out m.onnx", 2, "asks for a format that nibble does not write");
}
