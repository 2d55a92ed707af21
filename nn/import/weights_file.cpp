#include "nn/import/weights_file.hpp"

#include <algorithm>
#include <array>

#include "engine/error.hpp"
#include "engine/storage.hpp"
#include "nn/import/torch_file.hpp"
#include "nn/import/weight_names.hpp"
#include "nn/input_file.hpp"
#include "nn/safetensors_header.hpp"

namespace nibble {

namespace {

/// The tensors as the file has them, and which of a checkpoint's were taken.
Weights read_weights(const std::filesystem::path& path, const std::string& key) {
  InputFile input(path);
  std::array<std::byte, 16> first{};
  const size_t known = std::min<uint64_t>(first.size(), input.bytes());
  input.read({first.data(), known});
  if (!is_torch_file({first.data(), known})) {
    if (!key.empty())
      throw ModelError("'{}' is no checkpoint of torch.save, so there is nothing to choose with --weights-key",
                       path.string());
    return {SafetensorsFile::open(path), ""};
  }
  require_model_size(input.bytes(), path.string(), SafetensorsOpenArgs().max_bytes);
  const std::shared_ptr<Storage> file = allocate_for_file(input.bytes(), path.string());
  std::copy_n(first.begin(), known, file->data());
  input.read({file->data() + known, input.bytes() - known});
  TorchWeights found = read_torch_file({file->data(), input.bytes()}, path.string(), key);
  std::string note = found.key.empty() ? "" : quote_name(found.key) + " of it";
  if (!found.others.empty()) note += fmt::format(" (--weights-key also finds {})", quote_names(found.others));
  return {std::move(found.file), note};
}

}  // namespace

Weights open_weights(const std::filesystem::path& path, const WeightsChoice& choice) {
  const Weights read = read_weights(path, choice.key);
  NamedWeights named = with_torchvision_names(read.file, choice.prefix);
  return {std::move(named.file), read.note + (read.note.empty() || named.note.empty() ? "" : ", ") + named.note};
}

}  // namespace nibble
