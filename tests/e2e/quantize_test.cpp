// A trained model quantized without training, through the program.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

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

/// A data set of fewer classes.
std::string synthetic_data_of(const TemporaryFolder& folder, int classes) {
  const std::string data = folder / "few";
  run_well("synth --out " + data + " --train 4 --val 2 --size 40");
  for (const char* split : {"/train", "/val"}) {
    int kept = 0;
    std::vector<std::filesystem::path> all;
    for (const auto& entry : std::filesystem::directory_iterator(data + split)) all.push_back(entry.path());
    std::sort(all.begin(), all.end());
    for (const std::filesystem::path& path : all)
      if (std::filesystem::is_directory(path) && ++kept > classes) std::filesystem::remove_all(path);
  }
  return data;
}

/// All training images of `data` side by side, in the order that their folders gave them.
void flatten_training_images(const std::string& data, const std::filesystem::path& flat) {
  std::filesystem::create_directories(flat);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data + "/train"))
    if (entry.is_regular_file()) {
      const std::filesystem::path& path = entry.path();
      std::filesystem::copy_file(path,
                                 flat / (path.parent_path().filename().string() + "_" + path.filename().string()));
    }
}

/// The masters of a checkpoint under torchvision's names, as another program would have saved them, inside of a
/// wrapper with `prefix`.
void save_foreign(const std::string& checkpoint, const std::string& out, const std::string& prefix = "") {
  const nibble::SafetensorsFile held = nibble::SafetensorsFile::open(checkpoint);
  nibble::SafetensorsWriter writer;
  for (const nibble::TensorEntry& e : held.entries())
    if (e.name.find("momentum.") != 0 && e.name.find(".input.") == std::string::npos)
      writer.add(prefix + e.name, held.tensor_f32(e.name));
  writer.write(out);
}

}  // namespace

TEST_CASE("quantize: a bf16 run becomes a model of 8 and of 4 bits without training, of nearly its accuracy") {
  if (no_program()) return;
  const TemporaryFolder folder("quantize");
  const std::string data = synthetic_data(folder, {.train = 40, .val = 10, .size = 40});
  const std::string run = trained_in_bf16(folder, data), trained = run + "/latest";
  const nlohmann::json before = evaluation_of(trained, data);
  REQUIRE(before.at("top1") > 40);  // of ten classes

  // As it is: no image is asked for.
  const std::string same = folder / "bf16.safetensors";
  const nlohmann::json kept = json_of(run_program("quantize " + trained + " --precision bf16 --json --out " + same));
  CHECK(kept.at("images") == 0);
  CHECK(kept.at("norms") == "model");
  CHECK(evaluation_of(same, data).at("logits_sha256") == before.at("logits_sha256"));

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
    const nlohmann::json after = evaluation_of(file, data);
    CHECK(after.at("calibrated") == true);
    CHECK(std::abs(after.at("top1").get<double>() - before.at("top1").get<double>()) <= 15);
    CHECK(after.at("loss").get<double>() <= before.at("loss").get<double>() + 0.3);
    // Once more, on another number of threads: the same file.
    const std::string again = folder / "again.safetensors";
    run_well("quantize " + trained + " --threads 3 --precision " + precision + with_images + again);
    CHECK(read_text(again) == read_text(file));
    const nibble::SafetensorsFile written = nibble::SafetensorsFile::open(file);
    const nlohmann::json notes = nlohmann::json::parse(written.metadata_value("nibble.notes"));
    CHECK(notes.at("post_training") == "96 images in batches of 32, norms of the images");
    CHECK(notes.at("steps") == "144");
    CHECK(nlohmann::json::parse(written.metadata_value("nibble.classes")).size() == 10);
    const nlohmann::json inspected = json_of(run_program("inspect " + file + " --json"));
    CHECK(inspected.at("quant_scheme") == "nearest");
    CHECK(inspected.at("layers").at(3).contains("code_counts"));
  }

  // Images need no labels: any folder of images, and a split without classes.
  const std::string from_folder = folder / "from-folder.safetensors", from_flat = folder / "from-flat.safetensors";
  flatten_training_images(data, folder / "frames");
  flatten_training_images(data, folder / "unlabelled/train");
  const auto quantize_by = [&](const std::string& images, const std::string& out) {
    return run_well("quantize " + trained + " --precision w4a4-fl8 --images 100 --data " + images + " --out " + out);
  };
  const Result by_class_folders = quantize_by(data + "/train", from_folder);
  CHECK(has(by_class_folders.err, "images 96 of " + data + "/train,"));
  CHECK(has(by_class_folders.out, "--data DIR"));
  CHECK(evaluation_of(from_folder, data).at("loss").get<double>() <= before.at("loss").get<double>() + 0.3);
  quantize_by(folder / "frames", from_flat);
  CHECK(read_text(from_flat) == read_text(from_folder));
  CHECK(has(quantize_by(folder / "unlabelled", from_flat).err, "images 96 of " + (folder / "unlabelled/train") + ","));
  CHECK(read_text(from_flat) == read_text(from_folder));
  CHECK(has(quantize_by(data, from_flat).out, "--data " + data));

  // Without a training split nothing is taken silently from the images that an accuracy is measured on.
  std::filesystem::create_directories(folder / "val-alone");
  std::filesystem::create_directory_symlink(data + "/val", folder / "val-alone/val");
  check_refused("quantize " + trained + " --data " + (folder / "val-alone") + " --out " + (folder / "n"), 3,
                "holds the split val alone; name it with --split val");
  CHECK(
      has(run_well("quantize " + trained + " --data " + (folder / "val-alone") + " --split val --out " + from_flat).err,
          "warning: 96 images are few"));

  // Which layer to keep finer: the gain of one is that of a file with it, and nothing is written.
  const std::string sensitivity = "quantize " + trained + " --precision w4a4 --images 64 --data " + data;
  const nlohmann::json sensitive = json_of(run_program(sensitivity + " --json --sensitivity w8a8"));
  REQUIRE(sensitive.at("layers").size() == 30);
  for (size_t i = 1; i < 30; ++i)
    CHECK(sensitive.at("layers")[i - 1].at("sqnr_db") >= sensitive.at("layers")[i].at("sqnr_db"));
  const std::string most = sensitive.at("layers")[0].at("name"),
                    with_most = folder.write("most.toml", "[layers.\"" + most + "\"]\nprecision = \"w8a8\"\n");
  CHECK(json_of(run_program(sensitivity + " --json --sensitivity bf16 --config " + with_most)).at("sqnr_db") ==
        sensitive.at("layers")[0].at("sqnr_db"));
  check_refused("quantize " + trained + " --precision bf16 --data " + data + " --sensitivity w8a8", 2,
                "of which no layer is quantized", "NIBBLE_LOG=quiet");

  // A file of another program says nothing about its network; its classes are those of the data.
  const std::string foreign = folder / "foreign.safetensors", of_foreign = folder / "of-foreign.safetensors";
  save_foreign(trained, foreign);
  const std::string quantize_foreign =
      "quantize " + foreign + " --arch resnet26 --width 0.15 --image-size 32" + with_images;
  CHECK(has(run_well(quantize_foreign + of_foreign).err,
            "names  of the classes are those of the folders, in their order from 'checked_cross' to 'striped_disk'"));
  CHECK(evaluation_of(of_foreign, data).at("logits_sha256") ==
        evaluation_of(folder / "w8a8.safetensors", data).at("logits_sha256"));
  // Named by no images, it is still evaluated on as many classes.
  const std::string nameless = folder / "nameless.safetensors", few = synthetic_data_of(folder, 3);
  run_well("quantize " + foreign + " --arch resnet26 --width 0.15 --image-size 32 --precision bf16 --out " + nameless);
  CHECK(evaluation_of(nameless, data).at("logits_sha256") == before.at("logits_sha256"));
  check_refused("eval " + nameless + " --data " + few, 3, "has 3 classes, the model");
  check_refused("eval " + nameless + " --data " + data + " --classes 3", 2, "leaves fewer classes than the 10");
  const Result by_few = run_well("quantize " + foreign + " --arch resnet26 --width 0.15 --image-size 32 --data " + few +
                                 " --norms model --out " + nameless);
  CHECK(has(by_few.err, "10 classes without names"));
  CHECK(has(by_few.out, "12 images seen"));
  CHECK(evaluation_of(nameless, data).at("images") == 100);
  const std::string list = folder.write("list.txt", "zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n");
  const Result named = run_well("quantize " + foreign + " --arch resnet26 --width 0.15 --image-size 32 --data " + data +
                                " --class-names " + list + " --out " + nameless);
  CHECK_FALSE(has(named.err, "without names"));
  CHECK_FALSE(has(named.err, "names  of the classes"));
  CHECK(nlohmann::json::parse(nibble::SafetensorsFile::open(nameless).metadata_value("nibble.classes")).at(9) ==
        "nine");
  check_refused("quantize " + foreign +
                    " --arch resnet26 --width 0.15 --image-size 32 --precision bf16 --class-names " +
                    folder.write("short.txt", "zero\n") + " --out " + (folder / "n"),
                2, "short.txt has 1 names, the model 10 classes");
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
                "take batches of 2 or more", "NIBBLE_LOG=quiet");
  check_refused("quantize " + trained + " --data " + data + " --out " + data, 2, "is a folder");
  check_refused("quantize " + trained + " --data " + data + " --out " + trained, 2, "exists and is not a served model");
  CHECK_FALSE(std::filesystem::exists(folder / "n"));
  const std::string bad = data + "/train/striped_disk/00000.jpg";
  write_text(bad, "not an image");
  const Result skipped = run_program("quantize " + trained + " --data " + data + " --images 400 --json --out " + same);
  CHECK(json_of(skipped).at("skipped") == 1);
  CHECK(has(skipped.err, "skipped " + bad));
  check_refused("quantize " + trained + " --data " + data + " --images 400 --strict-data --out " + same, 3, bad,
                "NIBBLE_LOG=quiet");
}

TEST_CASE("quantize: of a trained quantized network its form is kept, its bounds and precision are not") {
  if (no_program()) return;
  const TemporaryFolder folder("quantize-again");
  const std::string data = folder / "data", run = folder / "run", file = folder / "again.safetensors";
  train_tiny_run(data, run, 4,
                 "--per-channel-by shift+fold --same-padding --signed-block-input --bf16-weights --precision w4a4");
  const std::string quantize = "quantize " + run + "/latest --data " + data + " --batch-size 8 --out " + file;
  const auto made = [&](const std::string& options) {
    run_well(quantize + options);
    return json_of(run_program("inspect " + file + " --json"));
  };
  nlohmann::json j = made("");
  CHECK(j.at("precision") == "w8a8");
  CHECK(j.at("width") == 0.1);
  CHECK(j.at("quant_scheme") == "paper");
  CHECK(j.at("per_channel_by") == "shift+fold");
  for (const char* quirk : {"same_padding", "signed_block_input", "bf16_weights"}) CHECK(j.at(quirk) == true);
  // The command line and a config go before the checkpoint; a config may say that classes are those of the data.
  const std::string config = folder.write("layers.toml",
                                          "classes = 0\nquant-scheme = \"nearest\"\ngranularity = \"per_tensor\"\n"
                                          "[layers.\"layer3.0.conv2\"]\nprecision = \"w4a4\"\n");
  j = made(" --config " + config + " --quant-scheme paper --no-bf16-weights");
  CHECK(j.at("quant_scheme") == "paper");
  CHECK(j.at("granularity") == "per_tensor");
  CHECK(j.at("bf16_weights") == false);
  CHECK(j.at("classes") == 10);
  CHECK(j.at("overrides") == "layer3.0.conv2 w4a4");
  CHECK_FALSE(has(run_program(quantize + " --config " + config).err, "ImageNet"));

  const std::string fake = folder / "fake";
  run_well("train --data " + data + " --out " + fake +
           " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --quiet "
           "--quant-mode fake");
  run_well("quantize " + fake + "/latest --data " + data + " --batch-size 8 --precision w4a8 --out " + file);
  CHECK(json_of(run_program("inspect " + file + " --json")).at("quant_mode") == "integer");
  check_refused(
      "quantize " + run + "/latest --data " + data + " --config " + fake + "/config.resolved.toml --out " + file, 2,
      "use --quant-mode integer");
}

TEST_CASE("quantize: a model of other pixels keeps them in its file, and eval and predict prepare images by it") {
  if (no_program()) return;
  const TemporaryFolder folder("quantize-pixels");
  const std::string data = folder / "data", run = folder / "run", foreign = folder / "foreign.safetensors";
  train_tiny_run(data, run, 4, "--precision bf16 --pixel-mean 0.5 --pixel-std 0.25 --crop-share 0.75");
  save_foreign(run + "/latest", foreign);
  const auto made = [&](const std::string& from, const std::string& options) {
    const std::string file = folder / "file.safetensors";
    run_well("quantize " + from + " --precision bf16 --out " + file + options);
    const nlohmann::json info = json_of(run_program("inspect " + file + " --json"));
    return std::pair(info, json_of(run_well("eval " + file + " --data " + data + " --json")).at("logits_sha256"));
  };
  const auto [kept, logits] = made(run + "/latest", "");
  CHECK(kept.at("pixel_mean") == std::vector<double>{0.5, 0.5, 0.5});
  CHECK(kept.at("pixel_std") == std::vector<double>{0.25, 0.25, 0.25});
  CHECK(kept.at("crop_share") == 0.75);
  CHECK(json_of(run_well("eval " + run + "/latest --by modules --data " + data + " --json")).at("logits_sha256") ==
        logits);
  // Other programs' weights say nothing of it, so it is asked for; each of the three counts.
  const std::string as = " --arch resnet26 --width 0.1 --image-size 32";
  const std::string mean = " --pixel-mean 0.5,0.5,0.5", std = " --pixel-std 0.25", crop = " --crop-share 0.75";
  CHECK(made(foreign, as + mean + std + crop).second == logits);
  CHECK(made(foreign, as + std + crop).second != logits);
  CHECK(made(foreign, as + mean + crop).second != logits);
  CHECK(made(foreign, as + mean + std).second != logits);
  CHECK(made(foreign, as).first.at("crop_share") == 0.875);
  const std::string image = data + "/val/striped_disk/00000.jpg";
  const auto top = [&](const std::string& file) { return json_of(run_well("predict " + file + " --json " + image)); };
  made(run + "/latest", "");
  const nlohmann::json own = top(folder / "file.safetensors");
  made(foreign, as + mean + std);
  CHECK(top(folder / "file.safetensors").at("top") != own.at("top"));
}

TEST_CASE("upright: photos that EXIF says are stored turned are turned by a model made so, and otherwise named") {
  if (no_program()) return;
  const TemporaryFolder folder("upright");
  const std::string data = folder / "data", run = folder / "run", turning = folder / "turning.safetensors",
                    plain = folder / "plain.safetensors", photo = folder / "photo.jpg";
  train_tiny_run(data, run, 2, "--precision bf16");
  run_well("quantize " + run + "/latest --precision bf16 --out " + plain);
  run_well("quantize " + run + "/latest --precision bf16 --upright --out " + turning);
  CHECK(json_of(run_well("inspect --json " + turning)).at("upright") == true);
  CHECK(has(run_well("inspect " + turning).out, "images turned upright"));
  // Behind the start of a JPEG, an APP1 segment that says orientation 6.
  const std::string as_stored = data + "/val/striped_disk/00000.jpg";
  std::string bytes = read_text(as_stored);
  bytes.insert(2, std::string("\xff\xe1\x00\x22"
                              "Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
                              36));
  write_text(photo, bytes);
  const auto seen = [](const std::string& model, const std::string& image) {
    return run_well("predict " + model + " --json --logits " + image);
  };
  const auto logits = [](const Result& r) { return json_of(r).at("logits"); };
  const Result stored = seen(plain, photo), turned = seen(turning, photo);
  CHECK(logits(stored) == logits(seen(plain, as_stored)));
  CHECK(logits(turned) != logits(stored));
  CHECK(logits(seen(turning, as_stored)) == logits(stored));
  CHECK(has(stored.err, photo + " is stored turned, says its EXIF orientation"));
  CHECK(turned.err.empty());
  // In training and evaluation, too.
  std::filesystem::copy_file(photo, data + "/val/striped_disk/00000.jpg",
                             std::filesystem::copy_options::overwrite_existing);
  CHECK(has(run_well("eval " + plain + " --data " + data).err, "00000.jpg is stored turned"));
  CHECK_FALSE(has(run_well("eval " + turning + " --data " + data).err, "stored turned"));
}

TEST_CASE("quantize and train: of a wrapped file the network is found, or chosen by prefix and key") {
  if (no_program()) return;
  const TemporaryFolder folder("wrapped");
  const std::string data = folder / "data", run = folder / "run", out = folder / "q.safetensors";
  train_tiny_run(data, run, 2, "--precision bf16");
  const std::string plain = folder / "plain.safetensors", wrapped = folder / "wrapped.safetensors";
  save_foreign(run + "/latest", plain);
  save_foreign(run + "/latest", wrapped, "model.");
  const std::string options = " --precision bf16 --arch resnet26 --width 0.1 --image-size 32 --out " + out;
  run_well("quantize " + plain + options);
  const std::string expected = read_text(out);
  const Result found = run_well("quantize " + wrapped + options);
  CHECK(has(found.err, "tensors of " + wrapped + ": names without 'model.'"));
  CHECK(read_text(out) == expected);
  run_well("quantize " + wrapped + " --weights-prefix model." + options);
  CHECK(read_text(out) == expected);
  check_refused("quantize " + wrapped + " --weights-prefix net." + options, 4, "whose name begins with 'net.'");
  check_refused("quantize " + wrapped + " --weights-key ema" + options, 4, "is no checkpoint of torch.save");
  check_refused("quantize " + run + "/latest --weights-prefix model." + options, 4, "was written by nibble");
  const std::string train = "train --dry-run --data " + data +
                            " --precision bf16 --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 "
                            "--steps 2 --weights " +
                            wrapped;
  const Result begun = run_well(train);
  CHECK(has(begun.err, ": names without 'model.'"));
  CHECK(has(begun.err, "--lr is 0.05, the rate for training from nothing"));
  CHECK_FALSE(has(run_well(train + " --weights-prefix model. --lr 0.005").err, "from nothing"));
  check_refused("train --data " + data + " --out " + run + "-2 --weights-key ema", 2,
                "choose from the file of --weights");
}

TEST_CASE("quantize: options that make no sense are refused before anything is read") {
  if (no_program()) return;
  for (const auto& [options, part] :
       std::vector<std::pair<std::string, std::string>>{{"--images 0", "--images is 0; use 1 to 10000000"},
                                                        {"--batch-size 0", "--batch-size is 0; use 1 to 256"},
                                                        {"--norms all", "--norms is 'all'; use auto, model or images"},
                                                        {"--decoder none", "none"},
                                                        {"--loader-threads 0", "--loader-threads is 0; use 1 to 64"},
                                                        {"--sensitivity w8a8", "name either the served file"}})
    check_refused("quantize /nonexistent --data /nonexistent --out n " + options, 2, part);
  check_refused("quantize /nonexistent --data /nonexistent", 2, "name either the served file");
  check_refused("quantize /nonexistent --sensitivity w4a4-fl8", 2, "use the precision of one layer, such as w8a8");
  check_refused("quantize /nonexistent --sensitivity 8", 2, "the precision is '8'; use bf16");
  check_refused("quantize /nonexistent --data /nonexistent --out n", 4, "'/nonexistent' does not exist");
  check_refused("quantize /nonexistent --out m.onnx", 2, "asks for a format that nibble does not write");
}
