// The scripts that people run: the quickstart from packages to prediction, and the long comparison of logits.
#include <doctest/doctest.h>

#include <sstream>
#include <string>

#include "engine/cpu.hpp"
#include "ops/kernels/table.hpp"
#include "tests/apps/program.hpp"

namespace nibble::testing {
namespace {

const std::string kRoot = NIBBLE_SOURCE_ROOT;

bool lacks(const std::string& tool) {
  if (std::system(("command -v " + tool + " >/dev/null 2>&1").c_str()) == 0) return false;
  MESSAGE("skipped: there is no ", tool);
  return true;
}

Result run_shell(const TemporaryFolder& folder, const std::string& command) {
  const int status =
      std::system((command + " </dev/null >'" + (folder / "out") + "' 2>'" + (folder / "err") + "'").c_str());
  return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
          .out = read_text(folder / "out"),
          .err = read_text(folder / "err")};
}

std::string write_script(const TemporaryFolder& folder, const std::string& name, const std::string& text) {
  const std::string path = folder.write(name, "#!/bin/sh\n" + text);
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

/// The program on a small scale: few images, few steps of a small network.
constexpr const char* kSmall = R"(case "$1" in
  doctor) exit 0 ;;
  synth) set -- "$@" --train 2 --val 1 --size 32 ;;
  train) set -- "$@" --arch resnet26 --width 0.1 --batch-size 8 --shard 8 --steps 2 --calibrate-at 1 --quiet ;;
esac
exec "$NIBBLE_PROGRAM" "$@"
)";
/// A program that only says that the served model's logits differ from the checkpoint's.
constexpr const char* kServesOtherLogits = R"(case "$1 $2" in
  "synth --out") mkdir -p "$3/val" && touch "$3/val/0.jpg" ;;
  "eval "*model.safetensors) echo '{"images":3,"logits_sha256":"b"}' ;;
  eval*) echo '{"images":3,"logits_sha256":"a"}' ;;
esac
)";

/// A tree that holds only the quickstart, in which building and installing are only noted; building puts `program`
/// into place.
class Quickstart {
 public:
  Quickstart(const TemporaryFolder& folder, const std::string& program) : folder_(folder) {
    std::filesystem::create_directories(folder / "tree/apps");
    std::filesystem::create_directories(folder / "bin");
    std::filesystem::copy_file(kRoot + "/apps/quickstart.sh", folder / "tree/apps/quickstart.sh");
    write_script(folder, "tree/apps/install_packages.sh", "echo install \"$@\" >>steps\n");
    write_script(folder, "program", program);
    write_script(folder, "bin/meson",
                 "echo meson \"$@\" >>steps\n[ \"$1\" = compile ] || exit 0\n"
                 "mkdir -p build/release\ntouch build/release/build.ninja\ncp ../program build/release/nibble\n");
  }
  Result run(const std::string& out) const {
    std::string settings = "PATH='" + (folder_ / "bin") + "':\"$PATH\" ";
    if (program())  // the script works in another folder
      settings += "NIBBLE_PROGRAM='" + std::filesystem::absolute(*program()).string() + "' ";
    return run_shell(folder_, settings + "bash '" + (folder_ / "tree/apps/quickstart.sh") + "' '" + out + "'");
  }
  std::string steps() const { return read_text(folder_ / "tree/steps"); }

 private:
  const TemporaryFolder& folder_;
};

TEST_CASE("scripts: the shell can read all of them") {
  if (lacks("bash")) return;
  const TemporaryFolder folder("syntax");
  for (const char* script : {"/apps/quickstart.sh", "/apps/install_packages.sh", "/tests/run.sh"}) {
    const Result r = run_shell(folder, "bash -n '" + kRoot + script + "'");
    CAPTURE(script);
    CAPTURE(r.err);
    CHECK(r.code == 0);
  }
}

TEST_CASE("quickstart: it builds, trains, evaluates, exports, finds the same logits and predicts, on small data") {
  if (no_program() || lacks("bash") || lacks("python3")) return;
  const TemporaryFolder folder("quickstart");
  const Quickstart quickstart(folder, kSmall);
  const std::string out = folder / "run of mine";
  const Result r = quickstart.run(out);
  CAPTURE(r.out);
  CAPTURE(r.err);
  REQUIRE(r.code == 0);
  CHECK(r.out.find("train and served logits are identical on 10 images") != std::string::npos);
  CHECK(r.out.find("== done in ") != std::string::npos);
  const std::string pasted = folder / "run\\ of\\ mine", model = pasted + "/model.safetensors";
  CHECK(r.err.find("$ build/release/nibble predict " + model + " " + pasted +
                   "/images/val/checked_cross/00000.jpg\n") != std::string::npos);
  CHECK(r.out.ends_with("; try: build/release/nibble inspect " + model + "\n"));
  for (const char* made : {"/images/train", "/run/latest", "/model.safetensors"})
    CHECK(std::filesystem::exists(out + made));
  const std::string first = quickstart.steps();
  CHECK(first.starts_with("install g++ meson "));
  CHECK(first.find("\nmeson setup build/release --buildtype=release ") != std::string::npos);
  CHECK(first.ends_with("\nmeson compile -C build/release\n"));

  std::filesystem::create_directories(folder / "foreign");
  const Result refused = quickstart.run(folder / "foreign");
  CHECK(refused.code == 2);
  CHECK(refused.err.find("is not of an earlier quickstart") != std::string::npos);
  CHECK(std::filesystem::is_empty(folder / "foreign"));
  CHECK(quickstart.steps().find("\nmeson setup --reconfigure build/release\n") != std::string::npos);
}

TEST_CASE("quickstart: served logits that differ from the trained model's end it with code 5") {
  if (lacks("bash") || lacks("python3")) return;
  const TemporaryFolder folder("differs");
  const Result r = Quickstart(folder, kServesOtherLogits).run(folder / "run");
  CAPTURE(r.out);
  CHECK(r.code == 5);
  CHECK(r.err.find("quickstart: the served logits differ from the trained model's") != std::string::npos);
  CHECK(r.out.find("identical") == std::string::npos);
}

Result same_logits(const TemporaryFolder& folder, const std::string& program, const std::string& arguments) {
  return run_shell(folder, "python3 -B '" + kRoot + "/tests/same_logits.py' --program '" + program + "' " + arguments);
}

TEST_CASE("same_logits: a small model has one value for both files, two levels, threads and batch sizes") {
  if (no_program() || lacks("python3")) return;
  const TemporaryFolder folder("same-logits");
  const std::string data = folder / "data", run = folder / "run";
  train_tiny_run(data, run);
  kernels::active();  // probes the levels
  const std::string best(name_of(runnable_isas().back()));
  const bool two = best != "scalar";
  const Result r = same_logits(folder, program().value(),
                               "--data " + data + " --limit 5 --threads 1,2 --batches 1,3 --levels scalar" +
                                   (two ? "," + best : "") + " " + run);
  CAPTURE(r.out);
  CAPTURE(r.err);
  CHECK(r.code == 0);
  CHECK(r.out.find(two ? "1 value(s) in 18 evaluations of 5 images" : "1 value(s) in 9 evaluations of 5 images") !=
        std::string::npos);
}

/// Answers like the program; one of all evaluations has different logits.
constexpr const char* kOneDiffers = R"(case "$NIBBLE_ISA $*" in
  *" doctor --json") echo '{"isa_runnable":["scalar","avx2"]}' ;;
  *" train "*) mkdir -p "$5" && touch "$5/latest" ;;
  "avx2 eval "*exported.safetensors*" --threads 3 --batch-size 7 "*) echo '{"images":3,"logits_sha256":"b"}' ;;
  *" eval "*) echo '{"images":3,"logits_sha256":"a"}' ;;
esac
)";

TEST_CASE("same_logits: one evaluation of 38 with other logits is found and named") {
  if (lacks("python3")) return;
  const TemporaryFolder folder("one-differs");
  const std::string program = write_script(folder, "program", kOneDiffers);
  const Result r = same_logits(folder, program, "--data D MODEL");
  CAPTURE(r.err);
  CHECK(r.code == 1);
  CHECK(r.out.find("2 value(s) in 38 evaluations of 3 images") != std::string::npos);
  CHECK(r.out.find(" b exported/avx2/3/7\n") != std::string::npos);
  CHECK(same_logits(folder, program, "--data D --batches 1,32 MODEL").code == 0);
}

TEST_CASE(
    "same_logits: without a model it trains eight, and an evaluation that fails ends it with the program's words") {
  if (lacks("python3")) return;
  const TemporaryFolder folder("eight");
  const std::string options = "--data D --levels scalar --threads 1 --batches 1";
  const Result r = same_logits(folder, write_script(folder, "program", kOneDiffers), options);
  CAPTURE(r.out);
  CAPTURE(r.err);
  CHECK(r.code == 0);
  std::istringstream lines(r.out);
  int models = 0;
  for (std::string line; std::getline(lines, line);)
    models += line.find("1 value(s) in 3 evaluations") != std::string::npos;
  CHECK(models == 8);

  const std::string failing = write_script(folder, "failing", "echo 'error: no such model' >&2\nexit 4\n");
  const Result failed = same_logits(folder, failing, options + " MODEL");
  CHECK(failed.code == 1);
  CHECK(failed.err.find("exit 4: error: no such model") != std::string::npos);
}

}  // namespace
}  // namespace nibble::testing
