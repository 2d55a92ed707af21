// Weights from anywhere: a safetensors file, or one of torch.save.
#pragma once
#include <filesystem>
#include <string>

#include "nn/safetensors.hpp"

namespace nibble {

/// Which tensors of a file are the model's weights, where it leaves a choice.
struct WeightsChoice {
  std::string key;     // in a checkpoint of torch.save (read_torch_file); empty: as it is found
  std::string prefix;  // of their names, the other tensors being left out; empty: all tensors
};

struct Weights {
  SafetensorsFile file;  // under torchvision's names (with_torchvision_names)
  std::string note;      // which were taken, and how they are called, for people; empty: there is nothing to say
};

/// The named tensors of a file, whose content, not its name, says which kind it is. Errors: those of
/// SafetensorsFile::open, read_torch_file and with_torchvision_names; ModelError for a key of a file without keys.
Weights open_weights(const std::filesystem::path& path, const WeightsChoice& choice = {});

}  // namespace nibble
