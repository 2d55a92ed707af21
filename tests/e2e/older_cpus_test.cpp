// CPUs that this machine is not, by emulation: no instruction that they lack, and the same bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "engine/sanitizer.hpp"
#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;

constexpr const char* kRun =
    " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 3 --calibrate-at 1 --quiet "
    "--threads 2";

}  // namespace

TEST_CASE(
    "older CPUs: a first x86-64, Nehalem and Haswell take their level, train its bytes and serve the same logits") {
  if (no_program()) return;
  if (nibble::kSanitized || !thorough()) {
    MESSAGE("skipped: it is the same on every kernel level, and sanitizers do not run under emulation");
    return;
  }
  const bool emulator = std::system("qemu-x86_64 -cpu Haswell /bin/true >/dev/null 2>&1") == 0;
  std::string levels;
  if (emulator) {
    const Result haswell = run_program("doctor --json", "env -u NIBBLE_ISA qemu-x86_64 -cpu Haswell");
    CAPTURE(haswell.err);
    REQUIRE(haswell.code == 0);
    levels = haswell.out;
  }
  if (!has(levels, "\"isa_runnable\":[\"scalar\",\"avx2\"")) {
    MESSAGE("skipped: there is no qemu-x86_64 of version 7.2 or newer (Debian: qemu-user), or no level avx2");
    return;
  }
  const TemporaryFolder folder("cpus");
  const std::string data = synthetic_data(folder), run = folder / "run", served = folder / "model.safetensors";
  train_run(data, run, kRun);
  run_well("export " + run + "/latest --out " + served);
  const nlohmann::json here = evaluation_of(served, data);
  for (const auto& row : {std::pair{"qemu64", "scalar"}, {"Nehalem", "scalar"}, {"Haswell", "avx2"}}) {
    const std::string cpu = row.first, level = row.second;
    CAPTURE(cpu);
    const std::vector<nibble::Isa> built = nibble::runnable_isas();
    if (std::find(built.begin(), built.end(), nibble::isa_from_name(level)) == built.end()) continue;
    const std::string emulated = "env -u NIBBLE_ISA qemu-x86_64 -cpu " + cpu;
    const nlohmann::json there = json_of(run_program("eval " + served + " --data " + data + " --json", emulated));
    CHECK(there.at("isa") == level);
    CHECK(there.at("logits_sha256") == here.at("logits_sha256"));
    CHECK(run_program("inspect --check " + served, emulated).code == 0);
    const std::string native = folder / ("native-" + cpu), other = folder / ("emulated-" + cpu);
    const std::string train = "train --data " + data + kRun + " --out ";
    REQUIRE(run_program(train + native, "NIBBLE_ISA=" + level).code == 0);
    REQUIRE(run_program(train + other, emulated).code == 0);
    CHECK((read_text(other + "/latest") == read_text(native + "/latest")));
  }
}
