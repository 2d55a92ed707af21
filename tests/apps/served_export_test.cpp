// A served file takes its name only when it gives the logits of the checkpoint that it is made of.
#include "apps/served_export.hpp"

#include <doctest/doctest.h>

#include <filesystem>

#include "engine/error.hpp"
#include "nn/runtime/verify_served.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"

namespace nibble::apps {
namespace {

using testing::calibrated_model;
using testing::small_options;

TEST_CASE("export: the file is noted and gives the checkpoint's logits") {
  const testing::TempDir dir;
  Checkpoint c;
  c.model = calibrated_model(small_options("w4a4-fl8", 0.13));
  c.steps_done = 12;
  export_served(c, dir / "m.safetensors", {{"origin", "a test"}});
  const ServedModel served = load_served(dir / "m.safetensors");
  CHECK(served.notes.at("steps") == "12");
  CHECK(served.notes.at("origin") == "a test");
  CHECK(served.notes.at(kCheckNote) == check_note(check_logits(c.model)));
}

TEST_CASE("export: a file that would give other logits is not written") {
  const testing::TempDir dir;
  Checkpoint c;
  c.model = calibrated_model(small_options("w4a4-fl8", 0.13));
  for (float& scale : c.model.quantizers[2].scale) scale *= 2;  // not what the bounds, which the file has, say
  CHECK_THROWS_AS(export_served(c, dir / "m.safetensors"), VerificationError);
  CHECK(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace nibble::apps
