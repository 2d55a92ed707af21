// Names of tensors as other programs save them, made torchvision's.
#pragma once
#include <string>

#include "nn/safetensors.hpp"

namespace nibble {

struct NamedWeights {
  SafetensorsFile file;
  std::string note;  // what was done, for people: "names without 'module.', 'fc.1' as fc"; empty: nothing
};

/// Takes the wrapper's prefix ("module.", "model.", "_orig_mod.", ...) off names where all tensors have it, and calls
/// a head that is the one pair fc.N.weight, fc.N.bias (a Linear in a Sequential) fc. With a `prefix` the tensors that
/// begin with it are taken and the others left out. ModelError naming what to do: no tensor begins with `prefix`, some
/// lack the prefix that the network's tensors have, several networks are in the file. Files of nibble stay as they are.
NamedWeights with_torchvision_names(const SafetensorsFile& file, const std::string& prefix);

}  // namespace nibble
