// What a model says of every image of an evaluation, as a file of JSON lines.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/batch.hpp"
#include "data/dataset.hpp"
#include "engine/tensor.hpp"
#include "nn/atomic_file.hpp"

namespace nibble::apps {

/// A line per image: {"image": path, "label": {"index", "name"}, "top": [{"index", "name", "p"}, ...]}, the five
/// likeliest classes. The file is complete or not there (AtomicFile). DiskError; UsageError where
/// another file has that name.
class PredictionsFile {
 public:
  /// `names` of the classes; with fewer of them their numbers are their names.
  PredictionsFile(const std::filesystem::path& path, DatasetPtr dataset, std::vector<std::string> names);
  /// logits f32 [n, classes] of the batch.
  void add(const Batch& batch, const Tensor& logits);
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
  DatasetPtr dataset_;
  std::vector<std::string> names_;
};

}  // namespace nibble::apps
