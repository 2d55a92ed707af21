#include "data/open_images.hpp"

#include <system_error>

#include "data/cifar.hpp"
#include "data/image_folder.hpp"
#include "data/unsorted_images.hpp"

namespace nibble {
namespace {

bool is_folder_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

}  // namespace

DatasetPtr open_images(const std::filesystem::path& dir, const std::string& split, Decoder decoder) {
  std::error_code ignored;  // ImageFolder refuses what cannot be looked at, with its reason
  if (!split.empty() && !std::filesystem::is_directory(dir / split, ignored)) {
    if (is_cifar(dir)) return std::make_shared<Cifar>(dir, split);
    refuse_other_cifar(dir);
  }
  return std::make_shared<ImageFolder>(ImageFolderArgs{.dir = dir, .split = split, .decoder = decoder});
}

bool has_splits(const std::filesystem::path& dir) {
  return is_folder_there(dir / "train") || is_folder_there(dir / "val") || is_cifar(dir);
}

DatasetPtr open_images_to_look_at(const std::filesystem::path& dir, const std::string& split, Decoder decoder) {
  if (split.empty()) refuse_other_cifar(dir);
  const std::filesystem::path root = split.empty() ? dir : dir / split;
  if (split.empty() || (is_folder_there(root) && !has_labels(root)))
    return std::make_shared<UnsortedImages>(root, decoder);
  return open_images(dir, split, decoder);
}

}  // namespace nibble
