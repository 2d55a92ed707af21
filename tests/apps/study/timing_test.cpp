// Which networks a study has to time, from the configurations that its points carry.
#include "apps/study/timing.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>

#include "apps/inference_probe.hpp"
#include "apps/train_arguments.hpp"
#include "engine/error.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::has;

PointResult untimed_point(const std::string& precision, double width, uint64_t seed, const std::string& more = "") {
  TrainArguments arguments;
  TrainOptions& o = arguments.options;
  o.network.arch = "resnet26";
  o.network.precision = precision;
  o.network.width = width;
  o.network.image_size = 32;
  o.seed = seed;
  PointResult p;
  p.name = fmt::format("{}-x{}-s{}", precision, width, seed);
  p.arch = o.network.arch;
  p.precision = precision;
  p.width = width;
  p.seed = seed;
  p.image_size = 32;
  p.classes = 7;
  p.provenance.config = arguments.config_text() + more;
  return p;
}

std::string refusal(const PointResult& p) {
  try {
    networks_of({p});
  } catch (const DataError& e) {
    return e.what();
  }
  return "accepted";
}

TEST_CASE("study timing: seeds share a network; precision, width and layers make another; fake arithmetic has none") {
  const std::string layer = "\n[layers.\"layer3.0.conv2\"]\nprecision = \"w8a8\"\n";
  PointResult fake = untimed_point("w8a8", 0.1, 0);
  const std::string integer = "quant-mode = 'integer'";
  REQUIRE(has(fake.provenance.config, integer));
  fake.provenance.config.replace(fake.provenance.config.find(integer), integer.size(), "quant-mode = 'fake'");
  const std::vector<TimedNetwork> networks =
      networks_of({untimed_point("w4a4", 0.1, 0), untimed_point("bf16", 0.1, 0), untimed_point("w4a4", 0.1, 1), fake,
                   untimed_point("w4a4", 0.2, 0), untimed_point("w4a4", 0.1, 2, layer)});
  REQUIRE(networks.size() == 4);
  CHECK(networks[0].points == std::vector<std::string>{"w4a4-x0.1-s0", "w4a4-x0.1-s1"});
  CHECK(networks[0].options.classes == 7);
  CHECK(networks[1].points == std::vector<std::string>{"bf16-x0.1-s0"});
  CHECK(networks[2].options.width == 0.2);
  CHECK(networks[3].options.overrides.size() == 1);
}

TEST_CASE("study timing: a configuration that is damaged or another network's is refused with the point's name") {
  CHECK(refusal(untimed_point("w4a4", 0.1, 0)) == "accepted");
  CHECK(has(refusal(untimed_point("w4a4", 0.1, 0, "\nwidht = 3\n")), "did you mean 'width'?"));
  CHECK(has(refusal(untimed_point("w4a4", 0.1, 0, "\nwidht = 3\n")), "the result of w4a4-x0.1-s0"));
  CHECK(has(refusal(untimed_point("w4a4", 0.1, 0, "=")), "the configuration of w4a4-x0.1-s0:"));
  CHECK(has(refusal(untimed_point("w4a4", 0.1, 0, "\n[layers.nowhere]\nprecision = \"w8a8\"\n")),
            "the result of w4a4-x0.1-s0"));
  PointResult p = untimed_point("w4a4", 0.1, 0);
  p.classes = 1'000'000'000;
  CHECK(has(refusal(p), "the result of w4a4-x0.1-s0"));
  p.classes = 7;
  p.width = 0.2;
  CHECK(has(refusal(p), "is a resnet26 x0.2 w4a4 at 32 px, its configuration is of a resnet26 x0.1 w4a4 at 32 px"));
  p.provenance.config.clear();
  CHECK(has(refusal(p), "its configuration is of a"));
}

TEST_CASE("latency: milliseconds of a call with one image, and of one image among 32") {
  using Clock = std::chrono::steady_clock;
  const auto ms_of = [](auto&& work) {
    const auto began = Clock::now();
    work();
    return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
  };
  Executor executor(untrained_model(testing::small_options("w4a4-fl8")));
  LatencyProbe probe(executor, 32);
  const double visit_ms = ms_of([&] { probe.visit(0, 9); });
  const Latency found = probe.result();
  // Five of the nine calls of each kind take the median or longer.
  CHECK(5 * found.batch1_ms + 5 * 32 * found.batch32_ms_per_image <= visit_ms);
  // The fastest of as many calls here is about the fastest there; a wrong unit is wrong by 32 or 1000.
  for (int64_t images : {1, 32}) {
    CAPTURE(images);
    const Tensor noise = testing::random_images(images, 32);
    double fastest = ms_of([&] { executor.run(noise); });
    for (int i = 0; i < 9; ++i) fastest = std::min(fastest, ms_of([&] { executor.run(noise); }));
    const double median = images == 1 ? found.batch1_ms : 32 * found.batch32_ms_per_image;
    CHECK(median >= fastest / 10);
  }
}

TEST_CASE("study timing: every network is timed in one sitting") {
  std::vector<TimedNetwork> networks = networks_of({untimed_point("w4a4", 0.05, 0), untimed_point("bf16", 0.05, 0)});
  time_in_turn(networks, 1);
  for (const TimedNetwork& n : networks) {
    CHECK(n.latency.batch1_ms > 0);
    CHECK(n.latency.batch32_ms_per_image > 0);
    CHECK(n.latency.threads > 0);
    CHECK(n.latency.sitting.size() == std::string("2026-11-27T14:30:05Z").size());
    CHECK(n.latency.sitting == networks[0].latency.sitting);
  }
}

}  // namespace
}  // namespace nibble::apps
