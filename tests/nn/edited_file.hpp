// A copy of a good model file with something changed in it, for the refusals of its reader.
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/error.hpp"
#include "nn/safetensors.hpp"

namespace nibble::testing {

struct Edited {
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;
};

/// Writes the edited copy next to `good`, its checksums new, and gives what `load` says about it, or "accepted".
inline std::string error_after(const std::filesystem::path& good, const std::function<void(Edited&)>& edit,
                               const std::function<void(const std::filesystem::path&)>& load) {
  const SafetensorsFile file = SafetensorsFile::open(good);
  Edited e{file.metadata(), {}};
  for (const TensorEntry& t : file.entries()) e.tensors[t.name] = file.tensor(t.name);
  edit(e);
  SafetensorsWriter writer;
  for (const auto& [key, value] : e.metadata) writer.set_metadata(key, value);
  for (const auto& [name, tensor] : e.tensors) writer.add(name, tensor);
  const std::filesystem::path edited = good.parent_path() / "edited.safetensors";
  writer.write(edited);
  try {
    load(edited);
  } catch (const ModelError& error) {
    CHECK(std::string(error.what()).find("edited.safetensors") != std::string::npos);
    return error.what();
  }
  return "accepted";
}

inline Tensor vector_of(const std::vector<float>& v) {
  const Tensor t(DType::f32, {static_cast<int64_t>(v.size())});
  std::copy(v.begin(), v.end(), t.data<float>());
  return t;
}

}  // namespace nibble::testing
