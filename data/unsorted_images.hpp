// Images that nobody has labelled, for work that only looks at them.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

/// All images of a folder and of the folders in it, at any depth; names that begin with a dot are ignored, links to
/// files followed, links to folders not (they may lead back); other files are left out and counted. One class, without
/// a name, is that of every image.
/// Order    bytewise of "folder/file", which for class folders is that of ImageFolder.
/// Errors   DataError: no such folder, no image in it; DiskError: it or a folder in it cannot be read. A link that
/// leads
///          nowhere is an image that cannot be read.
/// Cost     one stat per file at construction.
class UnsortedImages : public Dataset {
 public:
  UnsortedImages(const std::filesystem::path& dir, Decoder decoder);

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t) const override { return 0; }
  std::string path(int64_t index) const override { return full_path(index).string(); }
  Image read(int64_t index) const override;
  std::string left_out() const override { return left_out_; }

 private:
  std::filesystem::path full_path(int64_t index) const { return root_ / files_[static_cast<size_t>(index)]; }

  std::filesystem::path root_;
  Decoder decoder_;
  std::vector<std::string> classes_{""};
  std::vector<std::string> files_;
  std::string left_out_;
};

}  // namespace nibble
