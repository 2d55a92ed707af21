// Weights from anywhere: a safetensors file, or one of torch.save.
#pragma once
#include <filesystem>

#include "nn/safetensors.hpp"

namespace nibble {

/// The named tensors of a file, whose content, not its name, says which kind it is. Errors: those of
/// SafetensorsFile::open and read_torch_file.
SafetensorsFile open_weights(const std::filesystem::path& path);

}  // namespace nibble
