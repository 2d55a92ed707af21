// Files of torch.save: the archive against any bytes, and, since its checksums stop most changes, the pickle in one.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "engine/error.hpp"
#include "nn/import/torch_file.hpp"
#include "tests/fuzz/target.hpp"
#include "tests/nn/import/zip_writer.hpp"

namespace nibble::testing {
namespace {

bool check_file(std::span<const std::byte> bytes) {
  try {
    const SafetensorsFile file = read_torch_file(bytes, "fuzzed").file;
    uint64_t total = 0;
    for (const TensorEntry& t : file.entries()) {
      if (file.data(t.name).size() != t.bytes()) throw std::logic_error("a tensor's bytes are not its size");
      total += t.bytes();
    }
    if (total / 2 > bytes.size()) throw std::logic_error("a file became more than twice its size");
    return true;
  } catch (const ModelError&) {
    return false;
  }
}

bool check_torch(std::span<const uint8_t> input) {
  if (check_file(std::as_bytes(input))) return true;
  const std::string storage(64, '\x3f');
  const std::string file = zip_of({{"a/data.pkl", text_of(input)},
                                   {"a/byteorder", "little"},
                                   {"a/data/0", storage},
                                   {"a/data/1", storage},
                                   {"a/data/2", storage}});
  return check_file(std::as_bytes(std::span(file)));
}

std::vector<FuzzInput> torch_seeds() {
  std::vector<FuzzInput> seeds;
  const std::filesystem::path folder = std::filesystem::path(NIBBLE_SOURCE_ROOT) / "tests/nn/import/fixtures";
  for (const char* name : {"state", "state-old", "types-old", "views", "views-old", "checkpoint", "checkpoint-old"}) {
    std::ifstream in(folder / (std::string(name) + ".pth"), std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  seeds.push_back(
      bytes_of(std::string("\x80\x02}(U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n"
                           "FloatStorage\nU\x01"
                           "0U\x03"
                           "cpuK\x10tQK\x00(K\x04K\x04t(K\x01K\x04t\x89NtRu.",
                           103)));
  return seeds;
}

}  // namespace

const FuzzTarget kTorchTarget = {"torch", check_torch, torch_seeds};

}  // namespace nibble::testing
