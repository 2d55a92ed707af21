// Data sets: labelled images by index. They compose by wrapping: a wrapper is a Dataset that holds another one.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/decode.hpp"

namespace nibble {

/// Immutable after construction; every method is safe to call concurrently.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual int64_t size() const = 0;
  /// Label k is the k-th name.
  virtual const std::vector<std::string>& class_names() const = 0;
  virtual int label(int64_t index) const = 0;
  /// What messages call this image; a file's path where there is one.
  virtual std::string path(int64_t index) const = 0;
  /// Throws DataError when this image cannot be decoded (callers may continue without it), DiskError when the storage
  /// fails (callers stop).
  virtual Image read(int64_t index) const = 0;
  /// A number that would hardly be the same for other content of this image: its file's size in bytes, for CIFAR a hash
  /// of its pixels. The largest one where it cannot be told, which shows when the image is read. Cost: one stat of a
  /// file, or a read of as many bytes as CIFAR has.
  virtual uint64_t content_mark(int64_t index) const;
  /// A sentence about what lies among the images and is not taken for one: how many, where and one of them. Empty:
  /// there is none.
  virtual std::string left_out() const { return ""; }

  int num_classes() const { return static_cast<int>(class_names().size()); }

 protected:
  Dataset() = default;
  Dataset(const Dataset&) = default;
  Dataset& operator=(const Dataset&) = default;
};

using DatasetPtr = std::shared_ptr<const Dataset>;

/// Throws DataError naming the first difference unless both have the same classes in the same order; `a` and `b` are
/// what the message calls them, for example "DIR/train" and "DIR/val".
void require_same_classes(const Dataset& a, const Dataset& b, const std::string& name_a, const std::string& name_b);

}  // namespace nibble
