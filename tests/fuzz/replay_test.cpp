// Every target on its seeds, on the inputs kept in corpus/ (a choice of those that reached new code, and what ever
// failed), and on changed copies of both: builds without a fuzzer still try some damage.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/rng.hpp"
#include "tests/fuzz/target.hpp"

namespace nibble::testing {
namespace {

constexpr uint32_t kRounds = 300;  // per target: half a second in a release build, some seconds under sanitizers

std::vector<FuzzInput> kept_inputs(const char* target) {
  const std::filesystem::path corpus = std::filesystem::path(NIBBLE_SOURCE_ROOT) / "tests/fuzz/corpus";
  REQUIRE(std::filesystem::is_directory(corpus));
  const std::filesystem::path folder = corpus / target;
  if (!std::filesystem::exists(folder)) return {};  // models are too large to keep: their seeds are made
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<FuzzInput> inputs;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return inputs;
}

/// One change of one kind. Positions are often near the start, where headers are.
void damage(FuzzInput& input, const FuzzInput& other, Rng& rng) {
  const auto position = [&] {
    const auto size = static_cast<uint32_t>(input.size());
    return rng.below(2) == 0 ? rng.below(size) : rng.below(std::min<uint32_t>(size, 1000));
  };
  if (input.empty()) return;
  const uint32_t at = position();
  const auto here = input.begin() + at;
  const uint32_t most = std::min<uint32_t>(static_cast<uint32_t>(input.size()) - at, 64);
  switch (rng.below(7)) {
    case 0:
      *here = static_cast<uint8_t>(*here ^ 1u << rng.below(8));
      break;
    case 1: {
      constexpr uint8_t kExtremes[] = {0x00, 0x01, 0x7F, 0x80, 0xFF, '"', '-', '9', '[', '}'};
      *here = kExtremes[rng.below(std::size(kExtremes))];
      break;
    }
    case 2:
      input.resize(at);
      break;
    case 3:
      input.erase(here, here + 1 + rng.below(most));
      break;
    case 4: {  // the same again
      const FuzzInput part(here, here + 1 + rng.below(most));
      input.insert(here, part.begin(), part.end());
      break;
    }
    case 5: {  // a number that is too large
      constexpr const char* kNumbers[] = {"18446744073709551616", "-1", "1e999", "9223372036854775807", "0.5", "NaN"};
      const std::string number = kNumbers[rng.below(std::size(kNumbers))];
      input.erase(here, here + std::min<uint32_t>(most, rng.below(4)));
      input.insert(input.begin() + at, number.begin(), number.end());
      break;
    }
    default: {  // a part of another input
      if (other.empty()) break;
      const uint32_t from = rng.below(static_cast<uint32_t>(other.size()));
      const uint32_t n = std::min<uint32_t>(static_cast<uint32_t>(other.size()) - from, 1 + rng.below(64));
      input.insert(here, other.begin() + from, other.begin() + from + n);
    }
  }
}

void replay(const FuzzTarget& target) {
  CAPTURE(target.name);
  std::vector<FuzzInput> inputs = target.seeds();
  for (FuzzInput& kept : kept_inputs(target.name)) inputs.push_back(std::move(kept));
  REQUIRE_FALSE(inputs.empty());
  const size_t seeds = target.seeds().size();
  for (size_t i = 0; i < inputs.size(); ++i) {
    CAPTURE(i);
    bool accepted = false;
    CHECK_NOTHROW(accepted = target.check(inputs[i]));
    if (i < seeds) CHECK(accepted);
  }
  uint32_t accepted = 0;
  for (uint32_t round = 0; round < kRounds; ++round) {
    CAPTURE(round);
    Rng rng(1, rng_purpose::kTest, round);
    const auto any = [&]() -> const FuzzInput& { return inputs[rng.below(static_cast<uint32_t>(inputs.size()))]; };
    FuzzInput input = any();
    for (uint32_t changes = 1 + rng.below(3); changes > 0; --changes) damage(input, any(), rng);
    CHECK_NOTHROW(accepted += target.check(input));
  }
  CHECK(accepted > 0);
  CHECK(accepted < kRounds);
}

TEST_CASE("damaged images are refused or decoded") {
  replay(kImageTarget);
}

TEST_CASE("damaged safetensors files are refused or read as they are") {
  replay(kSafetensorsTarget);
}

TEST_CASE("damaged models that carry valid checksums are refused or run") {
  replay(kModelTarget);
}

TEST_CASE("damaged configs are refused or read back as they were written") {
  replay(kConfigTarget);
}

TEST_CASE("damaged results, plans and logs are refused or make whole pages") {
  replay(kStudyTarget);
}

TEST_CASE("damaged files of torch.save are refused or give tensors no larger than twice the file") {
  replay(kTorchTarget);
}

TEST_CASE("damaged label lists are refused or give names") {
  replay(kLabelsTarget);
}

}  // namespace
}  // namespace nibble::testing
