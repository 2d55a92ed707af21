#include "nn/import/weights_file.hpp"

#include <algorithm>
#include <array>

#include "engine/storage.hpp"
#include "nn/import/torch_file.hpp"
#include "nn/input_file.hpp"

namespace nibble {

SafetensorsFile open_weights(const std::filesystem::path& path) {
  InputFile input(path);
  std::array<std::byte, 16> first{};
  const size_t known = std::min<uint64_t>(first.size(), input.bytes());
  input.read({first.data(), known});
  if (!is_torch_file({first.data(), known})) return SafetensorsFile::open(path);
  require_model_size(input.bytes(), path.string(), SafetensorsOpenArgs().max_bytes);
  const std::shared_ptr<Storage> file = allocate_for_file(input.bytes(), path.string());
  std::copy_n(first.begin(), known, file->data());
  input.read({file->data() + known, input.bytes() - known});
  return read_torch_file({file->data(), input.bytes()}, path.string());
}

}  // namespace nibble
