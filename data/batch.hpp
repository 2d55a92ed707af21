// What the data room passes on: a batch of pixels and labels, and the record of images that could not be used.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.hpp"

namespace nibble {

struct Batch {
  Tensor images;                 // u8 [n, size, size, 3], dense
  std::vector<int32_t> labels;   // n
  std::vector<int64_t> indices;  // n: which images of the data set these are
  int64_t epoch = 0;
  int64_t position = 0;  // of the batch within its epoch
  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

/// An image that was left out, or used although damaged, and the sentence that says why.
struct ImageNote {
  std::string path;
  std::string reason;
};

}  // namespace nibble
