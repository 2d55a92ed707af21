// The command line as a user or a script meets it: exit codes, one sentence on stderr, results on stdout.
#include "tests/apps/program.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/synth.hpp"
#include "engine/cpu.hpp"
#include "engine/version.hpp"
#include "nn/checkpoint.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble::testing {
namespace {

constexpr const char* kCommands[] = {"train", "eval",  "export", "predict", "inspect", "report",
                                     "cost",  "bench", "synth",  "study",   "split",   "doctor"};

/// Names of the first `n` classes of `nibble synth`.
std::vector<std::string> first_classes(std::ptrdiff_t n) {
  const std::vector<std::string>& all = synthetic_class_names();
  return {all.begin(), all.begin() + n};
}

/// Writes a checkpoint of a calibrated but untrained model of these classes; returns `path`.
std::string untrained_model(const std::string& path, const std::vector<std::string>& classes) {
  NetworkOptions o = small_options("w4a4-fl8", 0.1);
  o.classes = std::ssize(classes);
  const Model model = calibrated_model(o);
  save_checkpoint(path, model, make_gradients(model), 1, "{}", classes);
  return path;
}

TEST_CASE("program: help is on stdout with exit 0, for the program and for every command with examples") {
  if (no_program()) return;
  const Result all = run_program("--help");
  CHECK(all.code == 0);
  CHECK(all.err.empty());
  for (const char* command : kCommands) {
    CAPTURE(command);
    CHECK(has(all.out, command));
    for (const char* flag : {" --help", " -h"}) {
      const Result r = run_program(command + std::string(flag));
      CHECK(r.code == 0);
      CHECK(r.err.empty());
      CHECK(has(r.out, "Examples:\n  nibble " + std::string(command)));
    }
  }
  CHECK(run_program("--version").code == 0);
  CHECK(run_program("--version").out == build_version() + "\n");
  CHECK(run_program("help").out == all.out);
  CHECK(run_program("help study run").out == run_program("study run --help").out);
  check_refused("help trian", 2, "did you mean train?");
}

TEST_CASE("program: without a command it shows the help and exits 2") {
  if (no_program()) return;
  const Result r = run_program("");
  CHECK(r.code == 2);
  CHECK(has(r.out, "train"));
}

TEST_CASE("program: unknown words name the nearest known one and exit 2; of a repeated option the last counts") {
  if (no_program()) return;
  check_refused("trian", 2, "unknown command 'trian' (did you mean train?)");
  check_refused("train --lrr 1", 2, "unknown option '--lrr' (did you mean --lr?)");
  check_refused("train --lrr=1", 2, "unknown option '--lrr' (did you mean --lr?)");
  check_refused("cost --widht 2", 2, "did you mean --width?");
  CHECK(run_program("cost --width 2 --width 1 --precision bf16").out == run_program("cost --precision bf16").out);
  check_refused("bench train --batch 2", 2, "unknown option '--batch' (did you mean --batch-size?)");
  check_refused("bench infer --shard 8", 2, "--shard is for training");
  check_refused("cost surplus", 2, "unknown argument 'surplus'");
  // The word next to what is missing may be what is missing.
  check_refused("synth --outt a", 2, "unknown option '--outt' (did you mean --out?)");
  check_refused("predict --josn", 2, "unknown option '--josn' (did you mean --json?)");
  check_refused("synth", 2, "--out is required; see nibble synth --help");
}

TEST_CASE("program: an option in front of its command is told its place") {
  if (no_program()) return;
  check_refused("--json cost", 2, "the option --json belongs after the command: nibble cost --json");
  check_refused("study --out=x run", 2, "the option --out belongs after the command: nibble study run --out");
  check_refused("--jsn cost", 2, "unknown option '--jsn' (did you mean --json?)");
  check_refused("--json cost -- --json", 2, "the option --json belongs after the command: nibble cost --json");
}

TEST_CASE("program: a word after -- is an argument, whatever it looks like, and gets no advice about options") {
  if (no_program()) return;
  check_refused("cost -- --json", 2, "'--json' stands after '--' and so is an argument, which nibble cost does not");
  check_refused("synth -- --out=x", 2, "'--out=x' stands after '--' and so is an argument, which nibble synth does");
  check_refused("study -- run", 2, "'run' stands after '--' and so is an argument, which nibble study does not take");
  check_refused("-- --json", 2, "'--json' stands after '--' and so is an argument, which nibble does not take");
  check_refused("eval /nonexistent/a --data x -- --json", 2, "which nibble eval does not take; see nibble eval --help");
  check_refused("cost x -- --json", 2, "unknown argument 'x'");
  check_refused("predict /nonexistent/model -- --json", 4, "/nonexistent/model");  // an image of that name
}

TEST_CASE("program: bench refuses what it cannot measure before it measures anything") {
  if (no_program()) return;
  check_refused("bench sleep --profile", 2, "nibble bench measures train or infer, not 'sleep'");
  check_refused("bench infer --profile --repeats 0", 2, "--repeats is 0");
  check_refused("bench infer --profile --batch-size 0", 2, "--batch-size is 0");
  check_refused("bench train --profile --batch-size 0", 2, "--batch-size is 0");
  check_refused("bench infer --trace /nonexistent/trace.json", 7, "/nonexistent/trace.json");
}

TEST_CASE("program: a command's name as a surplus word is unknown, and neither command runs") {
  if (no_program()) return;
  const TemporaryFolder folder("surplus");
  const std::string out = folder / "out";
  check_refused("synth --out " + out + " --train 1 --val 1 doctor", 2, "unknown argument 'doctor'");
  CHECK_FALSE(std::filesystem::exists(out));
  check_refused("cost doctor", 2, "unknown argument 'doctor'");
  check_refused("study run --out " + out + " pick " + out + " --max-linear 1", 2, "unknown argument 'pick'");
  check_refused("study doctor", 2, "unknown command 'doctor'");
}

TEST_CASE("program: an empty value, as from a variable that is not set, is refused and does not mean the default") {
  if (no_program()) return;
  for (const char* line : {"synth --out ''", "train --config ''", "train --weights ''", "train --resume ''",
                           "eval model --data ''", "cost --width ''", "study run --precisions '' --out x"}) {
    const std::string arguments = line;
    const size_t at = arguments.find(" --") + 1;
    check_refused(arguments, 2, arguments.substr(at, arguments.find(" ''") - at) + " is empty, as from a variable");
  }
  check_refused("predict model ''", 2, "IMAGE is empty");
  check_refused("export '' --out x", 2, "CHECKPOINT is empty");
  check_refused("export runs/a --out m.ONNX", 2, "asks for a format that nibble does not write");
  check_refused("export runs/a --out m.onnx", 2, "--out m.onnx asks for a format that nibble does not write");
  check_refused("cost --config= --width 1", 2, "--config is empty");
}

TEST_CASE("program: what the parser refuses is said in words, with the option and the text that was given") {
  if (no_program()) return;
  check_refused("cost --width abc", 2, "--width is 'abc'; use a number");
  check_refused("cost --width 1e999", 2, "--width is 1e999; use a number that");
  check_refused("cost --classes 1.5", 2, "--classes is '1.5'; use a whole number");
  check_refused("cost --classes 99999999999999999999", 2, "--classes is 99999999999999999999; use a whole number from");
  check_refused("synth --out x --seed 99999999999999999999", 2, "99999999999999999999 is not a whole number from 0 to");
  check_refused("eval model --data", 2, "--data has no value");
  check_refused("synth --out a --out b", 2, "--out is given twice");
  check_refused("cost --json=maybe", 2, "--json is a switch and takes no value such as 'maybe'");
}

TEST_CASE("program: help says what inspect's columns are, and names a switch and its opposite in one word") {
  if (no_program()) return;
  const Result inspect = run_program("inspect --help");
  for (const char* column : {"clipped is", "codes how", "zero and top", "product is"}) CHECK(has(inspect.out, column));
  const Result train = run_program("train --help");
  CHECK(has(train.out, "--[no-]nesterov "));
  CHECK_FALSE(has(train.out, "{false}"));
  CHECK(has(run_program("cost --help").out, "in steps of 0.01"));
}

TEST_CASE("program: a kernel level that does not exist or cannot run here is a wrong NIBBLE_ISA") {
  if (no_program()) return;
  check_refused("cost", 2, "NIBBLE_ISA is 'avx3'", "NIBBLE_ISA=avx3");
  for (int i = 0; i < kIsaCount; ++i) {
    const std::string name(name_of(static_cast<Isa>(i)));
    if (!runnable(static_cast<Isa>(i)))
      check_refused("doctor", 2, "NIBBLE_ISA: kernel level " + name + " cannot run", "NIBBLE_ISA=" + name);
  }
}

TEST_CASE("program: values that do not fit are refused with exit 2") {
  if (no_program()) return;
  check_refused("cost --width wide", 2, "--width");
  check_refused("cost --width 9", 2, "--width is 9");
  check_refused("cost --width nan", 2, "--width is nan");
  check_refused("cost --image-size 16", 2, "--image-size is 16");
  check_refused("cost --precision w5a5", 2, "'w5a5'");
  check_refused("cost --arch resnet18", 2, "resnet50");
  check_refused("cost --granularity per_pixel", 2, "per_pixel");
  check_refused("cost --max-linear 0", 2, "--max-linear is 0");
  check_refused("cost --max-linear -1", 2, "--max-linear is -1");
  check_refused("cost --max-linear nan", 2, "--max-linear is nan, not a finite number");
  check_refused("cost --max-linear inf", 2, "--max-linear is inf, not a finite number");
  check_refused("cost --max-linear 0.5 --width 1", 2, "leave out --width or --max-linear");
  check_refused("cost --threads -1", 2, "--threads is -1");
  check_refused("cost --width", 2, "--width has no value");
  check_refused("train", 2, "--data is missing");
  check_refused("train --data x --batch-size 48", 2, "not a multiple of --shard");
  check_refused("train --data x --seed -1", 2, "--seed: -1 is not a whole number from 0");
  check_refused("synth --out /nonexistent/images --seed -1", 2, "--seed: -1 is not a whole number from 0");
  check_refused("train --resume x --out y", 2, "--resume");
  check_refused("train --resume /nonexistent/run", 2, "/nonexistent/run");
  check_refused("bench walk", 2, "'walk'");
  for (const std::string batch : {"0", "65537", "4611686018427387904"})
    for (const std::string what : {"train --shard 1", "infer"})
      check_refused("bench " + what + " --batch-size " + batch, 2, "--batch-size is " + batch + "; use 1 to 65536");
  check_refused("doctor", 2, "NIBBLE_THREADS is 'many'", "NIBBLE_THREADS=many");
  check_refused("doctor", 2, "NIBBLE_THREADS is '-3'", "NIBBLE_THREADS=-3");
  check_refused("doctor", 2, "NIBBLE_THREADS is '1025'", "NIBBLE_THREADS=1025");
  // The command line wins, and commands that need no threads do not mind.
  check_refused("train --threads 1", 2, "--data is missing", "NIBBLE_THREADS=many");
  check_refused("train --nonesuch", 2, "--nonesuch", "NIBBLE_THREADS=many");
  check_refused("cost", 2, "NIBBLE_LOG", "NIBBLE_LOG=loud");
  check_refused("doctor --threads -1", 2, "--threads is -1");
  check_refused("doctor --threads -9223372036854775808", 2, "--threads is -9223372036854775808");
  check_refused("doctor --threads -9223372036854775808", 2, "--threads is -9223372036854775808", "NIBBLE_THREADS=2");
}

TEST_CASE("program: NIBBLE_LOG=debug puts the time before every line of stderr, says more, and changes no result") {
  if (no_program()) return;
  const std::string command =
      "bench infer --json --batch-size 1 --repeats 1 --arch resnet26 --width 0.1 --image-size 32";
  CHECK(run_program(command).err == "");
  const Result r = run_program(command, "NIBBLE_LOG=debug");
  CHECK(r.code == 0);
  CHECK(nlohmann::json::parse(r.out).contains("images_per_second"));
  std::istringstream lines(r.err);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    CAPTURE(line);
    CHECK(line.size() > 21);
    CHECK(line.substr(10, 1) == "T");
    CHECK(line.substr(19, 2) == "Z ");
  }
  CHECK(count >= 2);
  for (const std::string& word :
       {"debug  nibble " + std::string(version()), std::string("kernels "), std::string(" thread")})
    CHECK_MESSAGE(has(r.err, word), r.err);
}

TEST_CASE("program: a missing data set is exit 3 and a missing model exit 4, each named") {
  if (no_program()) return;
  check_refused("train --data /nonexistent/images --out /nonexistent/run", 3, "/nonexistent/images");
  check_refused("eval /nonexistent/model --data /tmp", 4, "/nonexistent/model");
  check_refused("inspect /nonexistent/model", 4, "/nonexistent/model");
  check_refused("predict /nonexistent/model image.jpg", 4, "/nonexistent/model");
}

TEST_CASE("program: a result that cannot be written is exit 7, and so is a file over the limit of the process") {
  if (no_program()) return;
  const TemporaryFolder folder("unwritable");
  const std::string data = folder / "data", run = folder / "run";
  train_tiny_run(data, run);
  const std::string image = data + "/val/striped_disk/00000.jpg";
  for (const std::string& arguments : {std::string("cost"), "predict " + run + " " + image, "inspect " + run}) {
    CAPTURE(arguments);
    const std::string errors = folder / "errors";
    CHECK(run_program(arguments + " >/dev/full 2>" + errors + " #").code == 7);
    CHECK(has(read_text(errors), "standard output"));
  }
  for (const char* asked : {"--help", "cost --help", "--version"}) {
    CAPTURE(asked);
    CHECK(run_program(std::string(asked) + " >/dev/full 2>/dev/null #").code == 7);
  }
  const std::string profile = "NIBBLE_PROFILE=" + (folder / "none/trace.json");
  const Result profiled = run_program("cost", profile);
  CHECK(profiled.code == 7);
  CHECK(has(profiled.err, "none/trace.json"));
  CHECK(run_program("cost --width 9", profile).code == 2);  // what failed first
  const std::string notes = folder.write("notes.txt", "mine");
  check_refused("cost", 2, "notes.txt exists and is not a Chrome trace", "NIBBLE_PROFILE=" + notes);
  CHECK(read_text(notes) == "mine");
  const Result limited = run_program("export " + run + " --out " + (folder / "served"), "ulimit -f 40;");
  CHECK(limited.code == 7);
  CHECK(has(limited.err, "ulimit"));
  CHECK_FALSE(std::filesystem::exists(folder / "served"));
}

TEST_CASE("program: the table of nibble inspect has one value under each heading") {
  if (no_program()) return;
  const TemporaryFolder folder("inspect");
  const std::string data = folder / "data", run = folder / "run";
  train_tiny_run(data, run);
  const Result r = run_program("inspect " + run);
  REQUIRE(r.code == 0);
  // The last column is aligned to the right: lines of one length have the same columns.
  std::istringstream lines(r.out);
  std::string heading, line;
  REQUIRE(std::getline(lines, heading));
  CHECK(heading.ends_with("product"));
  int layers = 0;
  while (std::getline(lines, line) && !line.starts_with("resnet26 x0.1 w4a4-fl8")) {
    ++layers;
    CHECK(line.size() == heading.size());
  }
  CHECK(layers == 30);
}

TEST_CASE(
    "program: eval refuses a data set of other classes by the first that differs, and class numbers out of range") {
  if (no_program()) return;
  check_refused("eval model --data images --classes -1", 2, "--classes is -1; use 0 (all) to 100000");
  check_refused("eval model --data images --classes 4294967306", 2, "--classes is 4294967306; use 0");
  const TemporaryFolder folder("classes");
  const std::string data = folder / "data", run = folder / "run", val = data + "/val/";
  train_tiny_run(data, run);
  std::vector<std::string> classes;
  for (const auto& entry : std::filesystem::directory_iterator(val))
    classes.push_back(entry.path().filename().string());
  std::sort(classes.begin(), classes.end());
  const std::string last = classes.back(), eval = "eval " + run + " --data " + data;
  check_refused(eval + " --classes 9", 2, "--classes 9 leaves fewer classes than the 10 that the model");
  std::filesystem::rename(val + last, folder / "last");
  CHECK(run_well(eval + " --json", "NIBBLE_LOG=quiet").err == data + " has 9 of the 10 classes of the model\n");
  std::filesystem::rename(folder / "last", val + last);
  std::filesystem::rename(val + last, val + last + "s");
  check_refused(eval, 3, "class '" + last + "s' of " + data + " (10 classes) is none of the 10 of the model ");
}

TEST_CASE("program: eval of a model of the folder's first classes says which --classes it needs") {
  if (no_program()) return;
  const TemporaryFolder folder("first-classes");
  const std::string data = folder / "data", model = untrained_model(folder / "model", first_classes(3));
  REQUIRE(run_program("synth --out " + data + " --train 1 --val 1 --size 32").code == 0);
  const std::string eval = "eval " + model + " --data " + data;
  check_refused(eval, 3,
                data + " has 10 classes, of which the model " + model + " was trained on the first 3; add --classes 3");
  check_refused(eval + " --classes 4", 3,
                " has 4 classes, of which the model " + model + " was trained on the first 3; use --classes 3");
  CHECK(nlohmann::json::parse(run_program(eval + " --classes 3 --json").out).at("images") == 3);
  std::vector<std::string> others = first_classes(4);
  others.erase(others.begin());
  untrained_model(model, others);
  check_refused(eval, 3, "class '" + first_classes(1).front() + "' of ");
}

TEST_CASE("program: predict says of a folder without images that it has none") {
  if (no_program()) return;
  const TemporaryFolder folder("folders");
  const std::string model = untrained_model(folder / "model", first_classes(3)), images = folder / "my images";
  std::filesystem::create_directories(images);
  const std::string predict = "predict " + model + " '" + images + "'";
  check_refused(predict, 3, images + " holds no .jpg, .jpeg or .png file, nor do the folders in it");
  const Result r = run_program(predict + " --json");
  CHECK(r.code == 3);
  CHECK(has(nlohmann::json::parse(r.out).at("error").get<std::string>(), "name a folder of images"));
}

TEST_CASE("program: doctor measures decoding without --data, too, and says on what") {
  if (no_program()) return;
  const std::string text = run_well("doctor").out, line = "\ndecoder  ";
  CHECK(has(text, " images/s per thread (procedural JPEGs of 224x224 px"));
  REQUIRE(has(text, line));
  CHECK(std::stod(text.substr(text.find(", ", text.find(line)) + 2)) > 0);
  CHECK_FALSE(has(text, "\nloader "));
}

TEST_CASE("program: a run whose checkpoint holds another network is not resumed; never quantizing is said") {
  if (no_program()) return;
  const TemporaryFolder folder("other");
  const std::string data = folder / "data", one = folder / "one", two = folder / "two";
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 1 --size 32").code == 0);
  const std::string network = " --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 2 --quiet";
  REQUIRE(run_program("train --arch resnet26 --data " + data + " --out " + one + network + " --calibrate-at 1").code ==
          0);
  const Result late =
      run_program("train --arch resnet29 --data " + data + " --out " + two + network + " --calibrate-at 9");
  CHECK(late.code == 0);
  CHECK(has(late.err, "never quantized"));
  const std::string checkpoint = "/checkpoints/step-000002.safetensors";
  std::filesystem::copy_file(two + checkpoint, one + checkpoint, std::filesystem::copy_options::overwrite_existing);
  check_refused("train --quiet --resume " + one, 4, "holds another network (resnet29 x0.1 w4a4-fl8, 10 classes)");
}

TEST_CASE(
    "program: names from the command line reach the terminal as printable text in one line; exports keep checkpoints") {
  if (no_program()) return;
  const TemporaryFolder folder("names");
  check_refused("eval \"$(printf 'no\\033[31m\\nerror: forged')\" --data .", 4, "no\\x1b[31m\\nerror: forged");
  const std::string data = folder / "data", run = folder / "run",
                    checkpoint = run + "/checkpoints/step-000002.safetensors";
  train_tiny_run(data, run);
  const std::string bytes = read_text(checkpoint);
  check_refused("export " + run + " --out " + checkpoint, 2, "is the checkpoint itself");
  for (const char* other : {"/config.resolved.toml", "/metrics.jsonl"}) {
    const std::string before = read_text(run + other);
    check_refused("export " + run + " --out " + run + other, 2, "exists and is not a served model");
    CHECK(read_text(run + other) == before);
  }
  CHECK(read_text(checkpoint) == bytes);
  const Result r = run_program("export " + run + " --json --out '" + (folder / "caf\xe9") + "'");
  CHECK(r.code == 0);
  CHECK(has(nlohmann::json::parse(r.out).at("file").get<std::string>(), "caf\xef\xbf\xbd"));  // U+FFFD
}

TEST_CASE("program: nibble report replaces a page and an empty file, and nothing else") {
  if (no_program()) return;
  const TemporaryFolder folder("replace");
  const std::string run = folder / "run", page = folder.write("page.html", "");
  train_tiny_run(folder / "data", run);
  for (const char* name : {"/config.resolved.toml", "/metrics.jsonl", "/latest"}) {
    const std::string before = read_text(run + name);
    check_refused("report " + run + " --out " + run + name, 2, std::string(name) + " exists and is not an HTML page");
    CHECK(read_text(run + name) == before);
  }
  for (int i = 0; i < 2; ++i) CHECK(run_program("report " + run + " --out " + page).code == 0);
  write_text(page, "<!doctype HTML>\nan earlier page");
  CHECK(run_program("report " + run + " --out " + page).code == 0);
  CHECK_FALSE(has(read_text(page), "an earlier page"));
}

TEST_CASE("program: predict prints a line per image whatever the names hold, and says which image is damaged") {
  if (no_program()) return;
  const TemporaryFolder folder("lines");
  const std::string data = folder / "data", run = folder / "run", image = folder / "line\nend\x7f.jpg";
  REQUIRE(run_program("synth --out " + data + " --train 2 --val 1 --size 32").code == 0);
  for (const char* split : {"/train/", "/val/"})
    std::filesystem::rename(data + split + "striped_disk", data + split + "striped\ndisk");
  REQUIRE(
      run_program(
          "train --data " + data + " --out " + run +
          " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --quiet")
          .code == 0);
  const std::string bytes = read_text(data + "/val/striped\ndisk/00000.jpg");
  const std::string predict = "predict " + run + " --top 10 '" + image + "'";
  write_text(image, bytes);
  const Result good = run_program(predict);
  CHECK(good.code == 0);
  CHECK(std::count(good.out.begin(), good.out.end(), '\n') == 1);
  CHECK(has(good.out, "line\\nend\\x7f.jpg:"));
  CHECK(has(good.out, "  striped\\ndisk "));
  CHECK(good.err.empty());
  const nlohmann::json parsed = nlohmann::json::parse(run_program(predict + " --json").out);
  CHECK_FALSE(parsed.contains("warning"));
  CHECK(parsed.at("image") == image);
  write_text(image, bytes.substr(0, bytes.size() * 3 / 4));
  const Result damaged = run_program(predict + " --json");
  CHECK(damaged.code == 0);
  const std::string warning = nlohmann::json::parse(damaged.out).at("warning").get<std::string>();
  CHECK_FALSE(warning.empty());
  CHECK(std::count(damaged.err.begin(), damaged.err.end(), '\n') == 1);
  CHECK(has(damaged.err, "line\\nend\\x7f.jpg is used although damaged: "));
}

TEST_CASE("program: weights that are refused leave no run folder behind") {
  if (no_program()) return;
  const TemporaryFolder folder("weights");
  const std::string data = folder / "data", run = folder / "run";
  REQUIRE(run_program("synth --train 4 --val 2 --size 32 --out " + data).code == 0);
  const Result r = run_program("train --data " + data + " --out " + run +
                               " --arch resnet26 --width 0.125 --image-size 32 --batch-size 32 --steps 1 --weights " +
                               data + "/none.safetensors");
  CAPTURE(r.err);
  CHECK(r.code == 4);
  CHECK(has(r.err, "none.safetensors"));
  CHECK_FALSE(std::filesystem::exists(run));
}

TEST_CASE("program: nibble cost --measure says how large the served file is and how long an image takes") {
  if (no_program()) return;
  const std::string network = " --arch resnet26 --width 0.1 --image-size 32 --classes 10";
  int64_t bytes[2];
  for (const bool small : {false, true}) {
    const Result r = run_program("cost --measure --json" + network + " --precision " + (small ? "w4a4" : "w8a8"));
    REQUIRE(r.code == 0);
    const nlohmann::json j = nlohmann::json::parse(r.out).at("measured");
    bytes[small] = j.at("served_bytes").get<int64_t>();
    CHECK(j.at("batch1_ms").get<double>() > 0);
    CHECK(j.at("batch32_ms_per_image").get<double>() > 0);
  }
  CHECK(bytes[1] < bytes[0]);
  // Each 8-bit weight is a byte of the file.
  const Result models = run_program("cost --json" + network + " --precision w8a8");
  CHECK(bytes[0] > nlohmann::json::parse(models.out).at("weights").get<int64_t>());
  CHECK(has(run_program("cost --measure" + network).out, "served file "));
  CHECK_FALSE(nlohmann::json::parse(models.out).contains("measured"));
  check_refused("cost --measure --quant-mode fake" + network, 2, "a network of --quant-mode fake does not have");
  CHECK(run_program("cost --measure --quant-mode fake --precision bf16" + network).code == 0);
  CHECK(run_program("cost --measure" + network, "TMPDIR=/nonexistent").code == 0);  // no file is written for it
}

TEST_CASE("program: nibble cost prints the published figures, as a table and as one JSON object") {
  if (no_program()) return;
  const Result table = run_program("cost --precision w4a4-fl8");
  CHECK(table.code == 0);
  CHECK(table.err.empty());
  CHECK(has(table.out, "71,189,921,792"));
  CHECK(has(table.out, "16,836,984,832"));
  CHECK(has(table.out, "110,241,280"));
  const Result r = run_program("cost --precision w4a4-fl8 --json");
  CHECK(r.code == 0);
  CHECK(std::count(r.out.begin(), r.out.end(), '\n') == 1);
  const nlohmann::json j = nlohmann::json::parse(r.out);
  CHECK(j.at("macs") == 4'089'184'256);
  CHECK(j.at("weights") == 25'502'912);
  CHECK(j.at("linear") == 16'836'984'832);
  CHECK(j.at("quadratic") == 71'189'921'792);
  CHECK(j.at("memory_bits") == 110'241'280);
  CHECK(j.at("ratio").at("linear").get<double>() == doctest::Approx(0.257340).epsilon(1e-5));
  CHECK(j.at("ratio").at("quadratic").get<double>() == doctest::Approx(0.068005).epsilon(1e-5));
  CHECK(j.at("ratio").at("memory").get<double>() == doctest::Approx(0.270168).epsilon(1e-5));
  CHECK(j.at("layers").size() == 54);
  const nlohmann::json fits =
      nlohmann::json::parse(run_program("cost --precision w4a4-fl8 --max-linear 0.15 --json").out);
  CHECK(fits.at("ratio").at("linear").get<double>() <= 0.15);
  CHECK(fits.at("width").get<double>() > 0.7);
  CHECK(has(run_program("cost --precision w4a4-fl8 --max-linear 0.15").out,
            fmt::format("--max-linear 0.15: the widest that fits is --width {}\n", fits.at("width").get<double>())));
}

TEST_CASE("program: doctor estimates the speed of a network and the time of its run, and training does before a step") {
  if (no_program()) return;
  const TemporaryFolder folder("estimate");
  const std::string data = " --data '" + (folder / "images") + "'",
                    net = " --arch resnet26 --width 0.1 --image-size 32";
  REQUIRE(run_program("synth --out '" + (folder / "images") + "' --train 2 --val 1 --size 32").code == 0);
  const Result r = run_program("doctor --json --precision w4a4-fl8 --batch-size 6 --shard 3 --epochs 3" + data + net);
  REQUIRE(r.code == 0);
  CHECK(nlohmann::json::parse(r.out).at("decode_images_per_second_per_thread").get<double>() > 0);
  for (const char* size : {"64", "128", "224"})
    CHECK(nlohmann::json::parse(r.out).at("loader_images_per_second_per_thread").at(size).get<double>() > 0);
  const nlohmann::json e = nlohmann::json::parse(r.out).at("estimate");
  CHECK(e.at("steps") == 9);  // 3 epochs of 20 images in batches of 6
  CHECK(e.at("images_per_second_before_calibration").get<double>() > 0);
  CHECK(e.at("images_per_second_after_calibration").get<double>() > 0);
  CHECK(e.at("inference_batch1_ms").get<double>() > 0);
  CHECK(e.at("inference_images_per_second").get<double>() > 0);
  const double slow = 54 / e.at("images_per_second_before_calibration").get<double>();
  const double fast = 54 / e.at("images_per_second_after_calibration").get<double>();
  CHECK(e.at("seconds").get<double>() >= std::min(slow, fast) * 0.999);
  const double loading = 54 * e.at("loading_seconds_per_image").get<double>();
  CHECK(loading > 0);
  CHECK(e.at("seconds").get<double>() <= std::max(slow, fast) * 1.001 + loading);
  check_refused("doctor --batch-size 0", 2, "--batch-size is 0");
  check_refused("doctor --batch-size 6", 2, "--batch-size 6 is not a multiple of --shard");
  check_refused("doctor --epochs 3", 2, "--epochs needs --data");
  CHECK(has(run_well("doctor --epochs 2" + data + net).err, "fewer than one batch"));
  const Result small = run_program("doctor --json --precision w4a4-fl8 --batch-size 32" + data + net);
  CHECK(small.code == 0);
  CHECK(has(small.err, "has 20 training images, fewer than one batch of 32"));
  CHECK(nlohmann::json::parse(small.out).at("estimate").at("images_per_second_after_calibration").get<double>() > 0);
  CHECK_FALSE(nlohmann::json::parse(small.out).at("estimate").contains("seconds"));

  const std::string train =
      "train --batch-size 4 --shard 4 --steps 40 --out '" + (folder / "my run") + "'" + data + net;
  const Result run = run_program(train);
  CHECK(run.code == 0);
  CHECK(has(run.out, "next: nibble export '" + (folder / "my run/latest") + "' --out model.safetensors"));  // pastes
  CHECK(has(run.err, "speed  about "));
  CHECK(has(run.err, " for 40 steps (probed;"));
  CHECK(run.err.find("speed  about ") < run.err.find("loss "));
}

TEST_CASE("program: nothing that redraws or colours goes to a file") {
  if (no_program()) return;
  const TemporaryFolder folder("synth");
  for (const std::string& arguments :
       {"synth --out '" + (folder / "images") + "' --train 2 --val 1 --size 32", std::string("cost"),
        "train --dry-run --image-size 32 --batch-size 4 --shard 4 --data '" + (folder / "images") + "'"}) {
    CAPTURE(arguments);
    const Result r = run_program(arguments, "TERM=xterm-256color");
    CHECK(r.code == 0);
    for (const std::string* text : {&r.out, &r.err}) {
      CHECK_FALSE(has(*text, "\x1b"));
      CHECK_FALSE(has(*text, "\r"));
    }
  }
}

TEST_CASE("program: nibble synth and the plan of a dry run give their documented keys") {
  if (no_program()) return;
  const TemporaryFolder folder("plan");
  const std::string images = folder / "images";
  const Result synth = run_program("synth --json --out '" + images + "' --train 3 --val 2 --size 32");
  REQUIRE(synth.code == 0);
  const nlohmann::json made = nlohmann::json::parse(synth.out);
  CHECK(made.at("train") == 30);
  CHECK(made.at("val") == 20);
  CHECK(made.at("classes") == 10);
  // It refuses to replace an image by another one, so these are the same.
  CHECK(run_program("synth --threads 1 --out '" + images + "' --train 3 --val 2 --size 32").code == 0);
  check_refused("synth --threads 2000 --out '" + images + "' --train 3 --val 2 --size 32", 2, "--threads is 2000");
  const std::string train = "train --image-size 32 --batch-size 8 --shard 4 --epochs 5 --data '" + images + "'";
  const nlohmann::json plan = nlohmann::json::parse(run_program(train + " --dry-run --json").out);
  CHECK(plan.at("train_images") == 30);
  CHECK(plan.at("val_images") == 20);
  CHECK(plan.at("classes") == 10);
  CHECK(plan.at("steps_per_epoch") == 3);  // the last partial batch is dropped
  CHECK(plan.at("steps") == 15);
  CHECK(plan.at("quantized_from") == 3);  // 0.2 of 15
  CHECK(plan.at("parameters") == 25'557'032 - 990 * 2048 - 990);
  check_refused(train, 2, "--out is missing");
  check_refused(train + " --batch-size 64 --shard 32 --dry-run", 2, "30 images, fewer than one batch");
}

}  // namespace
}  // namespace nibble::testing
