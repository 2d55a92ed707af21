#include "data/image_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <system_error>

#include "data/folder_entries.hpp"
#include "data/label_list.hpp"
#include "engine/error.hpp"
#include "engine/files.hpp"
#include "engine/utf8.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr const char* kImages = "images";  // Tiny ImageNet's folder inside a class folder, or instead of them

bool has_folder(const fs::path& folder) {
  std::error_code ignored;  // a broken link without an image's name is left out, as it is elsewhere
  return fs::is_directory(folder, ignored);
}

// The images of a class folder, or those of its images/: where they lie, and what else lies there.
struct ClassFolder {
  fs::path folder;
  std::vector<std::string> files;
  std::vector<std::string> others;
};

ClassFolder read_class_folder(const fs::path& root, const std::string& name) {
  ClassFolder result{.folder = root / name, .files = {}, .others = {}};
  const auto look = [&](const std::string& below) {
    result.files = names_in(root / below, [&](const fs::directory_entry& entry) {
      if (is_image(entry)) return true;
      result.others.push_back(below + "/" + entry.path().filename().string());
      return false;
    });
  };
  look(name);
  if (!result.files.empty()) return result;
  if (has_folder(result.folder / kImages)) {
    // Next to images/ lie the boxes of its objects, which are not needed.
    std::erase_if(result.others, [&](const std::string& other) {
      return other == name + "/" + kImages || other == name + "/" + name + "_boxes.txt";
    });
    result.folder /= kImages;
    look(name + "/" + kImages);
  }
  if (!result.files.empty()) return result;
  const std::vector<std::string> inner =
      names_in(result.folder, [](const fs::directory_entry& entry) { return has_folder(entry.path()); });
  if (!inner.empty())
    throw DataError(
        "class folder {} holds no .jpg, .jpeg or .png file, and its folder {} is not looked into: move its images up "
        "into the class folder",
        result.folder.string(), inner.front());
  throw DataError("class folder {} holds no .jpg, .jpeg or .png file: add images or remove the folder",
                  result.folder.string());
}

bool is_flat(const std::vector<std::string>& folders) {
  return folders.empty() || folders == std::vector<std::string>{kImages};
}

}  // namespace

bool has_labels(const fs::path& root) {
  return !is_flat(names_in(root, is_folder)) || label_list_of(root);
}

ImageFolder::ImageFolder(const ImageFolderArgs& args)
    : root_(args.split.empty() ? args.dir : args.dir / args.split), decoder_(resolve(args.decoder)) {
  require_folder(root_, fmt::format("images are expected in {}/<class>/*.JPEG", root_.string()));
  classes_ = names_in(root_, is_folder);
  const bool flat = is_flat(classes_);
  if (const auto labels = flat ? label_list_of(root_) : std::nullopt) {
    read_list(*labels);
  } else {
    if (flat && !classes_.empty())
      throw DataError("{} holds the folder {} alone, and no list of the classes of its images: put one into {}",
                      root_.string(), kImages, label_list_names(root_));
    if (flat)
      throw DataError(
          "{} holds no class folder: images are expected in {}/<class>/*.JPEG, or in one folder and their classes in "
          "{}",
          root_.string(), root_.string(), label_list_names(root_));
    read_class_folders();
  }
  sort();
}

void ImageFolder::read_class_folders() {
  LeftOut others;
  for (size_t k = 0; k < classes_.size(); ++k) {
    if (!is_utf8(classes_[k]))  // models keep the names as JSON, which has no other bytes
      throw DataError("the name of the class folder {} is not UTF-8; rename the folder",
                      (root_ / classes_[k]).string());
    ClassFolder found = read_class_folder(root_, classes_[k]);
    for (const std::string& other : found.others) others.add(other);
    folders_.push_back(std::move(found.folder));
    for (std::string& file : found.files) images_.push_back({.file = std::move(file), .label = static_cast<int>(k)});
  }
  left_out_ = others.text(root_.string() + "/<class>/");
}

void ImageFolder::read_list(const fs::path& source) {
  const fs::path folder = classes_.empty() ? root_ : root_ / kImages;
  const std::vector<uint8_t> bytes = read_file(source);
  const std::vector<std::string> files = names_in(folder, is_image);
  std::vector<LabelledFile> labelled =
      parse_label_list({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, source.string(),
                       2 * files.size() + 1000);  // so that a list of other images is refused by the name of one
  if (labelled.empty())
    throw DataError("{} names no image of {}; write a line 'file class' for each", source.string(), folder.string());
  std::stable_sort(labelled.begin(), labelled.end(),
                   [](const LabelledFile& a, const LabelledFile& b) { return a.file < b.file; });
  classes_.clear();
  for (const LabelledFile& l : labelled) classes_.push_back(l.class_name);
  std::sort(classes_.begin(), classes_.end());
  classes_.erase(std::unique(classes_.begin(), classes_.end()), classes_.end());
  folders_.assign(classes_.size(), folder);

  LeftOut others;
  auto file = files.begin();
  for (size_t i = 0; i < labelled.size(); ++i) {
    LabelledFile& l = labelled[i];
    if (i > 0 && l.file == images_.back().file)
      throw DataError("{} line {} names {} a second time; remove one of the two lines", source.string(), l.line,
                      l.file);
    for (; file != files.end() && *file < l.file; ++file) others.add(*file);
    if (file == files.end() || *file != l.file)
      throw DataError("{} line {} names {}, which is not an image in {}; put it there or remove the line",
                      source.string(), l.line, l.file, folder.string());
    ++file;
    const auto name = std::lower_bound(classes_.begin(), classes_.end(), l.class_name);
    images_.push_back({.file = std::move(l.file), .label = static_cast<int>(name - classes_.begin())});
  }
  for (; file != files.end(); ++file) others.add(*file);
  if (others.count > 0)
    left_out_ = fmt::format("{}: left out {} that {} does not name{} {}", folder.string(),
                            others.count == 1 ? "1 image" : fmt::format("{} images", others.count), source.string(),
                            others.count == 1 ? ":" : ", such as", others.first);
}

/// Not the order of (class, file): "a-b/x" comes before "a/x", because '-' is below '/'.
void ImageFolder::sort() {
  std::vector<std::string> keys;
  for (const std::string& name : classes_) keys.push_back(name + "/");
  std::vector<int> rank(classes_.size());
  std::vector<int> order(classes_.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = static_cast<int>(k);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)]; });
  for (size_t k = 0; k < order.size(); ++k) rank[static_cast<size_t>(order[k])] = static_cast<int>(k);
  std::sort(images_.begin(), images_.end(), [&](const Entry& a, const Entry& b) {
    const int x = rank[static_cast<size_t>(a.label)], y = rank[static_cast<size_t>(b.label)];
    return x != y ? x < y : a.file < b.file;
  });
}

fs::path ImageFolder::full_path(int64_t index) const {
  const Entry& image = images_[static_cast<size_t>(index)];
  return folders_[static_cast<size_t>(image.label)] / image.file;
}

}  // namespace nibble
