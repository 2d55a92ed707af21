// ImageFolder: DIR/<split>/<class>/<image>, the layout torchvision made usual.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

struct ImageFolderArgs {
  std::filesystem::path dir;
  std::string split;  // "train", "val"; empty: the class folders lie in `dir` itself
  Decoder decoder = Decoder::auto_;
};

/// Classes are the sub-folders in bytewise order of their names; images the regular files below them (links followed)
/// whose names end in .jpg, .jpeg or .png, in any case; names starting with a dot are ignored, and what else lies in
/// the class folders is left out and counted.
/// Images are in bytewise order of "class/file", which every machine and language setting repeats.
/// Errors   DataError: no such folder, no class folder, a class folder without images, or a link, where a class folder
///          or an image may be, that leads nowhere; DiskError: not readable.
/// Cost     one stat per file at construction, about 1 s for 100,000 files.
class ImageFolder : public Dataset {
 public:
  explicit ImageFolder(const ImageFolderArgs& args);

  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t index) const override { return images_[static_cast<size_t>(index)].label; }
  std::string path(int64_t index) const override { return full_path(index).string(); }
  Image read(int64_t index) const override { return load_image(full_path(index), decoder_); }
  /// The JPEG decoder in use, never auto_.
  Decoder decoder() const { return decoder_; }
  /// A sentence about what lies in the class folders and is no image by its name (other files, folders): how many,
  /// where and one of them. Empty: nothing does.
  std::string left_out() const;

 private:
  struct Entry {
    std::string name;  // class/file
    int label = 0;
  };
  std::filesystem::path full_path(int64_t index) const { return root_ / images_[static_cast<size_t>(index)].name; }

  std::filesystem::path root_;
  Decoder decoder_;
  std::vector<std::string> classes_;
  std::vector<Entry> images_;
  int64_t others_ = 0;
  std::string other_;  // class/name of the first of them
};

}  // namespace nibble
