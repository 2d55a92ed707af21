// Training configs: TOML of any content, and what is accepted against what is written.
#include <stdexcept>

#include "apps/train_arguments.hpp"
#include "engine/error.hpp"
#include "tests/fuzz/target.hpp"

namespace nibble::testing {
namespace {

bool check_config(std::span<const uint8_t> input) {
  std::string written;
  try {
    apps::TrainArguments arguments;
    arguments.read_text(text_of(input), "fuzzed.toml");
    arguments.resolve();
    written = arguments.config_text();
    NetworkOptions network = arguments.options.network;
    if (network.classes == 0) network.classes = 10;  // as many as the data set has
    (void)build_resnet(network);
  } catch (const UsageError&) {
    return false;
  }
  apps::TrainArguments again;
  again.read_text(written, "written.toml");
  again.resolve();
  if (again.config_text() != written) throw std::logic_error("a config is not read back as it was written");
  return true;
}

std::vector<FuzzInput> config_seeds() {
  std::vector<FuzzInput> all = {bytes_of(apps::TrainArguments().config_text())};
  all.push_back(
      bytes_of("# a comment\n"
               "arch = 'resnet26'\nwidth = 0.5\nprecision = \"w8a8\"\nclasses = 12\nimage-size = 64\n"
               "granularity = \"per_tensor\"\nquant-mode = \"fake\"\nquant-scheme = 'nearest'\nbf16-weights = true\nlr "
               "= 1e-2\nnesterov = false\n"
               "seed = 18_446\noptimizer = 'lars'\nschedule = \"step\"\ndata = \"a/b\\u00e9\"\n"
               "[layers.\"layer1.0.conv2\"]\nprecision = \"w8a8\"\n[layers]\nfc = { precision = \"bf16\" }\n"));
  return all;
}

}  // namespace

const FuzzTarget kConfigTarget = {"config", check_config, config_seeds};

}  // namespace nibble::testing
