#include "data/image_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "engine/error.hpp"
#include "engine/files.hpp"
#include "engine/utf8.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

bool is_image_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot == 0) return false;
  std::string extension = name.substr(dot + 1);
  for (char& c : extension)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return extension == "jpg" || extension == "jpeg" || extension == "png";
}

// Names in `folder` that satisfy `wanted`, in bytewise order; hidden ones are left out.
template <typename Wanted>
std::vector<std::string> list(const fs::path& folder, const Wanted& wanted) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : list_folder(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.front() != '.' && wanted(entry)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A name that would count is not left out because nobody can say what it is: other images would be another data set.
void require_known(const fs::directory_entry& entry, const std::error_code& error) {
  if (!error) return;
  if (error == std::errc::no_such_file_or_directory || error == std::errc::too_many_symbolic_link_levels)
    throw DataError("{} is a link that leads nowhere, or was removed meanwhile; repair or remove it",
                    entry.path().string());
  throw_disk_error("look at", entry.path(), error.value());
}

bool is_folder(const fs::directory_entry& entry) {
  std::error_code error;
  const bool result = entry.is_directory(error);
  require_known(entry, error);
  return result;
}

bool is_image(const fs::directory_entry& entry) {
  if (!is_image_name(entry.path().filename().string())) return false;
  std::error_code error;
  const bool result = entry.is_regular_file(error);
  require_known(entry, error);
  return result;
}

[[noreturn]] void refuse_without_images(const fs::path& folder) {
  const std::vector<std::string> inner = list(folder, [](const fs::directory_entry& entry) {
    std::error_code ignored;  // a broken link without an image's name is left out, as it is elsewhere
    return entry.is_directory(ignored);
  });
  if (!inner.empty())  // Tiny ImageNet's images/
    throw DataError(
        "class folder {} holds no .jpg, .jpeg or .png file, and its folder {} is not looked into: move its "
        "images up into the class folder",
        folder.string(), inner.front());
  throw DataError("class folder {} holds no .jpg, .jpeg or .png file: add images or remove the folder",
                  folder.string());
}

}  // namespace

ImageFolder::ImageFolder(const ImageFolderArgs& args)
    : root_(args.split.empty() ? args.dir : args.dir / args.split), decoder_(resolve(args.decoder)) {
  std::error_code error;
  const fs::file_status root = fs::status(root_, error);
  if (error && root.type() != fs::file_type::not_found) throw_disk_error("look at the folder", root_, error.value());
  if (!fs::is_directory(root))
    throw DataError("there is no folder {}: images are expected in {}/<class>/*.JPEG", root_.string(), root_.string());
  classes_ = list(root_, is_folder);
  if (classes_.empty())
    throw DataError("{} holds no class folder: images are expected in {}/<class>/*.JPEG", root_.string(),
                    root_.string());
  for (size_t k = 0; k < classes_.size(); ++k) {
    if (!is_utf8(classes_[k]))  // models keep the names as JSON, which has no other bytes
      throw DataError("the name of the class folder {} is not UTF-8; rename the folder",
                      (root_ / classes_[k]).string());
    const auto is_image_else_count = [&](const fs::directory_entry& entry) {
      if (is_image(entry)) return true;
      const std::string name = classes_[k] + "/" + entry.path().filename().string();
      if (others_++ == 0 || name < other_) other_ = name;
      return false;
    };
    const std::vector<std::string> files = list(root_ / classes_[k], is_image_else_count);
    if (files.empty()) refuse_without_images(root_ / classes_[k]);
    for (const std::string& file : files)
      images_.push_back({.name = classes_[k] + "/" + file, .label = static_cast<int>(k)});
  }
  // Not the order of (class, file): "a-b/x" comes before "a/x", because '-' is below '/'.
  std::sort(images_.begin(), images_.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
}

std::string ImageFolder::left_out() const {
  if (others_ == 0) return "";
  const std::string what = others_ == 1
                               ? "1 entry that is no .jpg, .jpeg or .png file:"
                               : fmt::format("{} entries that are no .jpg, .jpeg or .png files, such as", others_);
  return fmt::format("{}/<class>/: left out {} {}", root_.string(), what, other_);
}

}  // namespace nibble
