// CIFAR-10 and CIFAR-100 in their binary form (cs.toronto.edu/~kriz/cifar.html): records of a label, or a coarse and a
// fine one, and 32 x 32 red, then green, then blue bytes.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "engine/files.hpp"

namespace nibble {

/// Whether `dir` holds a file by which the data set is recognised: data_batch_1.bin or test_batch.bin, train.bin or
/// test.bin.
bool is_cifar(const std::filesystem::path& dir);

/// DataError where `dir` is CIFAR as it cannot be read, or one folder above it: the version for Python, the folder that
/// the archive makes.
void refuse_other_cifar(const std::filesystem::path& dir);

/// A split, "train" or "val" (their test images; "test" is the same), in the order of the files; classes in the order
/// of batches.meta.txt or fine_label_names.txt.
/// Errors   UsageError for another split; DataError: a file is missing or does not have a whole number of records, a
///          label without a name; DiskError.
/// Cost     20 ms to read 50,000 labels; an image is one read of 3,072 bytes, 1 to 2 us from the page cache.
class Cifar : public Dataset {
 public:
  Cifar(const std::filesystem::path& dir, const std::string& split);

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t index) const override { return labels_[static_cast<size_t>(index)]; }
  /// "DIR/data_batch_1.bin:17"
  std::string path(int64_t index) const override;
  Image read(int64_t index) const override;
  uint64_t content_mark(int64_t index) const override;

 private:
  struct File {
    std::filesystem::path path;
    FileDescriptor descriptor;
    int64_t end = 0;  // index past its last image
  };
  void open(const std::filesystem::path& path);
  /// The file of an image, and the number of its record there.
  std::pair<const File*, int64_t> find(int64_t index) const;

  int64_t label_bytes_ = 1;
  std::vector<std::string> classes_;
  std::vector<File> files_;
  std::vector<uint8_t> labels_;
};

}  // namespace nibble
