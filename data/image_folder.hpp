// Images in folders: DIR/<split>/<class>/<image>, the layout torchvision made usual, and the two it is made from.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

struct ImageFolderArgs {
  std::filesystem::path dir;
  std::string split;  // "train", "val"; empty: what is looked for lies in `dir` itself
  Decoder decoder = Decoder::auto_;
};

/// Whether the folder DIR/<split> has class folders, or a list of its images' classes. Errors: DataError, DiskError.
bool has_labels(const std::filesystem::path& root);

/// Classes are the sub-folders in bytewise order of their names; images the regular files in them (links followed)
/// whose names end in .jpg, .jpeg or .png, in any case; names starting with a dot are ignored, and anything else in the
/// class folders is left out and counted. A class folder without images of its own has those of its images/, as in
/// Tiny ImageNet.
/// Images of a split without class folders lie in DIR/<split> or DIR/<split>/images, and a list (label_list.hpp) names
/// their classes; what it does not name is left out and counted.
/// Images are in bytewise order of "class/file", which every machine and language setting repeats: the same images in
/// another of these layouts are the same data set.
/// Errors   DataError: no such folder, no class folder and no list, a class folder without images, a list that names
///          an image twice or one that is not there, or a link, where a class folder or an image may be, that leads
///          nowhere; DiskError: not readable.
/// Cost     one stat per file at construction, about 1 s for 100,000 files.
class ImageFolder : public Dataset {
 public:
  explicit ImageFolder(const ImageFolderArgs& args);

  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t index) const override { return images_[static_cast<size_t>(index)].label; }
  std::string path(int64_t index) const override { return full_path(index).string(); }
  Image read(int64_t index) const override { return load_image(full_path(index), decoder_); }
  std::string left_out() const override { return left_out_; }
  /// The JPEG decoder in use, never auto_.
  Decoder decoder() const { return decoder_; }

 private:
  struct Entry {
    std::string file;
    int label = 0;
  };
  void read_class_folders();
  void read_list(const std::filesystem::path& list);
  void sort();
  std::filesystem::path full_path(int64_t index) const;

  std::filesystem::path root_;
  Decoder decoder_;
  std::vector<std::string> classes_;
  std::vector<std::filesystem::path> folders_;  // where the images of each class lie
  std::vector<Entry> images_;
  std::string left_out_;
};

}  // namespace nibble
