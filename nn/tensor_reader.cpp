#include "nn/tensor_reader.hpp"

#include <algorithm>

#include "engine/error.hpp"
#include "nn/safetensors_header.hpp"

namespace nibble {

Tensor vector_tensor(const std::vector<float>& v) {
  const Tensor t(DType::f32, {static_cast<int64_t>(v.size())});
  std::copy(v.begin(), v.end(), t.data<float>());
  return t;
}

Tensor TensorReader::vector(const std::string& name, int64_t n) {
  const TensorEntry& e = file_.entry(name);
  if (e.shape != std::vector<int64_t>{n})
    throw ModelError("{}: tensor {} is {}, the network needs [{}]", file_.source(), name, e.shape_text(), n);
  mark(name);
  return file_.finite_tensor_f32(name);
}

std::vector<float> TensorReader::floats(const std::string& name, int64_t n) {
  const Tensor t = vector(name, n);
  return {t.data<float>(), t.data<float>() + n};
}

void TensorReader::require_all_seen() const {
  for (const TensorEntry& e : file_.entries())
    if (!seen_.contains(e.name))
      throw ModelError("{}: tensor {} belongs to no part of the network; the file was made by another version",
                       file_.source(), quote_name(e.name));
}

}  // namespace nibble
