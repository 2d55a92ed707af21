// The memory of a training, forecast, and what is then taken.
#include "apps/memory_forecast.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "engine/sanitizer.hpp"
#include "tests/apps/whole_run.hpp"

namespace nibble::testing {
namespace {

TEST_CASE("memory forecast: what a bench of the same training then takes, with one shard at a time, too") {
  if (no_program()) return;
  if (kSanitized) {
    MESSAGE("skipped: a sanitizer's memory is not the program's");
    return;
  }
  const std::string network = " --arch resnet26 --image-size 64 --precision w8a8 ";
  for (const char* batch :
       {"--threads 2 --width 0.5 --batch-size 64 --shard 32", "--threads 1 --width 1 --batch-size 32 --shard 8"}) {
    CAPTURE(std::string(batch));
    const nlohmann::json forecast = json_of(run_program("doctor --json " + std::string(batch) + network));
    const Result bench = run_program("bench train --json --repeats 1 " + std::string(batch) + network);
    REQUIRE(bench.code == 0);
    const double expected = forecast.at("estimate").at("peak_memory_bytes"),
                 taken = json_lines(bench.out).front().at("peak_memory_bytes");
    CHECK(expected > 0.75 * taken);
    CHECK(expected < 1.35 * taken);
  }
}

TEST_CASE("memory forecast: it grows with images, and a run that does not fit is told what to do") {
  TrainOptions o;
  o.network.arch = "resnet26";
  o.network.width = 0.25;
  o.network.image_size = 32;
  o.network.classes = 10;
  o.batch_size = o.shard = 16;
  const int64_t small = apps::forecast_memory(o);
  o.batch_size = o.shard = 64;
  const int64_t large = apps::forecast_memory(o);
  CHECK(large > small);
  // Along a line from smaller steps: what the whole step takes.
  const double line = static_cast<double>(apps::forecast_memory(o, 0));
  CHECK(line > 0.8 * static_cast<double>(large));
  CHECK(line < 1.4 * static_cast<double>(large));
  CHECK(apps::available_memory() > 0);
  CHECK(apps::memory_text(int64_t{531} << 20) == "531 MiB");
  CHECK(apps::memory_text(int64_t{2750} << 20) == "2.69 GiB");
  CHECK(apps::describe_memory(int64_t{1} << 30, int64_t{4} << 30, o) ==
        "memory about 1.00 GiB (forecast); 4.00 GiB are available");
  const std::string doubt = apps::describe_memory(int64_t{1} << 40, int64_t{4} << 30, o);
  CHECK(has(doubt, "the system may kill the run; use --low-memory (about "));
  CHECK(has(doubt, "lower --shard, --image-size or --width"));
  o.low_memory = true;
  CHECK_FALSE(has(apps::describe_memory(int64_t{1} << 40, int64_t{4} << 30, o), "--low-memory"));
}

}  // namespace
}  // namespace nibble::testing
