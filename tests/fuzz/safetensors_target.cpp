// Safetensors files: the reader against any bytes, and what it accepts against the writer.
#include <algorithm>
#include <optional>
#include <stdexcept>

#include "engine/error.hpp"
#include "nn/safetensors.hpp"
#include "tests/fuzz/target.hpp"

namespace nibble::testing {
namespace {

/// What was read, written again and read again, is the same tensors.
void check_round_trip(const SafetensorsFile& file) {
  SafetensorsWriter writer;
  for (const auto& [key, value] : file.metadata()) writer.set_metadata(key, value);
  for (const TensorEntry& t : file.entries()) {
    const std::span<const std::byte> data = file.data(t.name);
    if (data.size() != t.bytes()) throw std::logic_error("a tensor's bytes are not its size");
    writer.add_raw({t.name, t.dtype, t.shape, {data.begin(), data.end()}});
  }
  const std::vector<std::byte> written = writer.serialize();
  const SafetensorsFile again = SafetensorsFile::parse(written, "rewritten", {.require_integrity = true});
  if (again.metadata() != file.metadata()) throw std::logic_error("rewriting changed the metadata");
  if (again.entries().size() != file.entries().size()) throw std::logic_error("rewriting lost a tensor");
  for (const TensorEntry& t : file.entries()) {
    const TensorEntry& other = again.entry(t.name);
    const auto before = file.data(t.name), after = again.data(t.name);
    if (other.dtype != t.dtype || other.shape != t.shape || !std::ranges::equal(before, after))
      throw std::logic_error("rewriting changed a tensor");
  }
}

bool check_safetensors(std::span<const uint8_t> input) {
  std::optional<SafetensorsFile> file;
  try {
    file = SafetensorsFile::parse(std::as_bytes(input), "fuzzed");
  } catch (const ModelError&) {
    return false;
  }
  check_round_trip(*file);
  for (const TensorEntry& t : file->entries()) {
    try {
      (void)file->tensor_f32(t.name);
      (void)file->tensor(t.name);
    } catch (const ModelError&) {  // a type that we have no tensor of
    }
  }
  return true;
}

std::vector<FuzzInput> safetensors_seeds() {
  SafetensorsWriter writer;
  writer.add_raw({"a", "F32", {2, 3}, std::vector<std::byte>(24, std::byte{1})});
  writer.add_raw({"b", "I64", {}, std::vector<std::byte>(8, std::byte{2})});
  writer.add_raw({"c.weight", "BF16", {0, 7}, {}});
  writer.add_raw({"d", "F16", {3}, std::vector<std::byte>(6, std::byte{0x3C})});
  writer.set_metadata("made", "by hand");
  const std::vector<std::byte> sealed = writer.serialize();
  const auto* bytes = reinterpret_cast<const uint8_t*>(sealed.data());
  std::string foreign =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F64","shape":[1,200],"data_offsets":[0,1600]},)"
      R"("v":{"dtype":"BOOL","shape":[3],"data_offsets":[1600,1603]}})";
  foreign.resize((foreign.size() + 7) / 8 * 8, ' ');
  FuzzInput plain(8, 0);
  plain[0] = static_cast<uint8_t>(foreign.size());
  plain.insert(plain.end(), foreign.begin(), foreign.end());
  plain.insert(plain.end(), 1603, 1);
  return {FuzzInput(bytes, bytes + sealed.size()), plain};
}

}  // namespace

const FuzzTarget kSafetensorsTarget = {"safetensors", check_safetensors, safetensors_seeds};

}  // namespace nibble::testing
