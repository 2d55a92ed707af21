// Files of torch.save: the state_dict in one, as named tensors. Nothing in a file is called or imported.
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "nn/safetensors.hpp"

namespace nibble {

/// Whether a file that begins with these bytes (16 are enough) is one of torch.save: a zip archive, since PyTorch 1.6,
/// or the pickles before that.
bool is_torch_file(std::span<const std::byte> first);

struct TorchWeights {
  SafetensorsFile file;
  std::string key;                  // of the state_dict in a checkpoint; empty: the file is one
  std::vector<std::string> others;  // keys of the checkpoint under which there are tensors, too
};

/// The tensors of the state_dict in a file, dense and in its order. The file may be a checkpoint: then the state_dict
/// is what it has under `key` ("a/b": b of what it has under a) or, with none, as "state_dict", "model_state_dict" or
/// "model", or else under the one key with tensors. A tensor may be a part of its storage, in any order of dimensions.
/// (Formats: PyTorch's torch/serialization.py and torch/_utils.py.)
/// ModelError naming `source`, and the tensor: damage, a big-endian file, no state_dict in it (a whole model, which is
/// code) or not under `key`, a tensor beyond its storage or of a type that has no place in safetensors.
/// Memory: the tensors once more.
TorchWeights read_torch_file(std::span<const std::byte> file, const std::string& source, const std::string& key = "");

}  // namespace nibble
