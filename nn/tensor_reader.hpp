// Named tensors of a model file: what both kinds of file share in reading and writing them.
#pragma once
#include <string>
#include <unordered_set>
#include <vector>

#include "nn/safetensors.hpp"

namespace nibble {

/// f32 [n].
Tensor vector_tensor(const std::vector<float>& v);

/// Reads the tensors of one file and knows at the end which of them belong to nothing. ModelErrors name file and
/// tensor.
class TensorReader {
 public:
  explicit TensorReader(const SafetensorsFile& file) : file_(file) {}

  /// Finite values of shape [n], of whatever float type.
  Tensor vector(const std::string& name, int64_t n);
  std::vector<float> floats(const std::string& name, int64_t n);
  void mark(const std::string& name) { seen_.insert(name); }
  bool has_seen(const std::string& name) const { return seen_.contains(name); }
  int64_t seen() const { return static_cast<int64_t>(seen_.size()); }
  void require_all_seen() const;
  const SafetensorsFile& file() const { return file_; }

 private:
  const SafetensorsFile& file_;
  std::unordered_set<std::string> seen_;
};

}  // namespace nibble
