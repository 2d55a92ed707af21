// Files of torch.save: the state_dict in one, as named tensors. Nothing in a file is called or imported.
#pragma once
#include <cstddef>
#include <span>
#include <string>

#include "nn/safetensors.hpp"

namespace nibble {

/// Whether a file that begins with these bytes (16 are enough) is one of torch.save: a zip archive, since PyTorch 1.6,
/// or the pickles before that.
bool is_torch_file(std::span<const std::byte> first);

/// The tensors of the state_dict in a file, dense and in its order, under their names without what DataParallel
/// ("module.") and torch.compile ("_orig_mod.") put before all of them. The file may be a checkpoint that has it as
/// "state_dict", "model_state_dict" or "model"; whatever else it has is left out. A tensor may be a part of its
/// storage, in any order of dimensions. (Formats: PyTorch's torch/serialization.py and torch/_utils.py.)
/// ModelError naming `source`, and the tensor: damage, a big-endian file, no state_dict in it (a whole model, which is
/// code), a tensor beyond its storage or of a type that has no place in safetensors.
/// Memory: the tensors once more.
SafetensorsFile read_torch_file(std::span<const std::byte> file, const std::string& source);

}  // namespace nibble
