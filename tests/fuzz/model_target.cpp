// Checkpoints and served files: the input is sealed with checksums of its own first, or no change would get past them.
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/error.hpp"
#include "nn/checkpoint.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/served_file.hpp"
#include "tests/fuzz/target.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"

namespace nibble::testing {
namespace {

// Ten times the seeds': a network may be valid and still claim images of 1,024 pixels per side.
constexpr int64_t kMostMacs = 20'000'000;

std::optional<SafetensorsFile> sealed(std::span<const uint8_t> input) {
  try {
    const SafetensorsFile file = SafetensorsFile::parse(std::as_bytes(input), "fuzzed");
    SafetensorsWriter writer;
    for (const auto& [key, value] : file.metadata()) writer.set_metadata(key, value);
    for (const TensorEntry& t : file.entries()) {
      const std::span<const std::byte> data = file.data(t.name);
      writer.add_raw({t.name, t.dtype, t.shape, {data.begin(), data.end()}});
    }
    return SafetensorsFile::parse(writer.serialize(), "sealed", {.require_integrity = true});
  } catch (const ModelError&) {
    return std::nullopt;
  }
}

/// A model that was accepted can be run, whatever its numbers are.
void run(ServedModel model) {
  int64_t macs = 0;
  for (const UnitSpec& unit : model.network.units) macs += unit.macs();
  if (macs > kMostMacs) return;
  const int64_t size = model.network.options.image_size;
  (void)Executor(std::move(model)).run(random_images(1, size));
}

bool check_model(std::span<const uint8_t> input) {
  const std::optional<SafetensorsFile> file = sealed(input);
  if (!file) return false;
  try {
    switch (kind_of(*file)) {
      case ModelFileKind::kServed:
        run(load_served(*file));
        break;
      case ModelFileKind::kCheckpoint: {
        const Checkpoint checkpoint = load_checkpoint(*file);
        if (is_servable(checkpoint.model.network)) run(make_served(checkpoint.model));
        break;
      }
      case ModelFileKind::kForeign:
        return false;
    }
  } catch (const ModelError&) {
    return false;
  }
  return true;
}

/// A valid file that carries no checksums: flips in it reach the readers behind them.
FuzzInput without_checksums(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::string header = R"({"__metadata__":{)", data;
  for (const auto& [key, value] : file.metadata())
    header += nlohmann::json(key).dump() + ":" + nlohmann::json(value).dump() + ",";
  header.back() = '}';
  for (const TensorEntry& t : file.entries()) {
    const std::span<const std::byte> bytes = file.data(t.name);
    header += "," + nlohmann::json(t.name).dump() + R"(:{"dtype":")" + t.dtype + R"(","shape":)" +
              nlohmann::json(t.shape).dump() + R"(,"data_offsets":[)" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + bytes.size()) + "]}";
    data.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  header += "}";
  const uint64_t length = header.size();
  return bytes_of(std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + data);
}

std::vector<FuzzInput> model_seeds() {
  const TempDir dir;
  std::vector<FuzzInput> all;
  for (const char* precision : {"w4a4-fl8", "w8a8", "bf16"}) {
    NetworkOptions options = small_options(precision, 0.05);
    options.per_channel_by = PerChannelBy::kShiftFold;
    if (all.size() == 2) {
      options.overrides = {{"layer2.0.conv2", {4, 8}}};
      options.scheme = QuantScheme::kNearest;
      options.bf16_weights = options.signed_block_input = true;
    }
    const Model model = calibrated_model(options);
    save_served(dir / "served", make_served(model));
    all.push_back(without_checksums(dir / "served"));
    if (all.size() > 1) continue;
    Gradients momentum;
    momentum.units = model.units;
    save_checkpoint(dir / "checkpoint", model, momentum, 7, "{}", {"a", "b", "c", "d", "e"});
    all.push_back(without_checksums(dir / "checkpoint"));
  }
  return all;
}

}  // namespace

const FuzzTarget kModelTarget = {"model", check_model, model_seeds};

}  // namespace nibble::testing
