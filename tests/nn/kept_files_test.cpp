// Files that an earlier build wrote are read and give the numbers that they gave then. They are kept, never remade: all
// other tests read what the same build has written, and would follow it anywhere.
#include <doctest/doctest.h>

#include <filesystem>

#include "engine/cpu.hpp"
#include "nn/checkpoint.hpp"
#include "nn/evaluate_modules.hpp"
#include "nn/noise_images.hpp"
#include "nn/runtime/evaluation.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/served_file.hpp"
#include "nn/sha256.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

std::filesystem::path kept(const char* name) {
  return std::filesystem::path(NIBBLE_SOURCE_ROOT) / "tests/nn/files" / name;
}

std::string hash_of(const Tensor& logits) {
  return to_hex(sha256({logits.raw(), logits.bytes()}));
}

/// resnet26 x0.05, w4a4-fl8, 32 px, ten procedural classes, 160 steps; logits of four noise images.
const std::string kLogits = "05b402e5940f665a3fc6ba05e9aa042822fa47db3ceaad44602f8df92e899709";

TEST_CASE("a checkpoint and a served file of format version 1 are read, and give the logits that they gave") {
  const Checkpoint checkpoint = load_checkpoint(kept("version1.checkpoint.safetensors"));
  CHECK(checkpoint.steps_done == 160);
  CHECK(checkpoint.class_names.size() == 10);
  CHECK(checkpoint.model.calibrated());
  CHECK(checkpoint.model.usage.size() == checkpoint.model.network.quantizers.size());
  const Tensor images = noise_images(4, 32);
  const testing::RestoreExecution restore;
  for (const Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    Executor executor(load_served(kept("version1.served.safetensors")));
    CHECK(hash_of(executor.run(images)) == kLogits);
    CHECK(hash_of(Executor(make_served(checkpoint.model)).run(images)) == kLogits);
    const StepWeights weights = prepare_weights(checkpoint.model, Passes::kForward);
    CHECK(hash_of(evaluate_modules(checkpoint.model, weights, images)) == kLogits);
  }
}

}  // namespace
}  // namespace nibble
