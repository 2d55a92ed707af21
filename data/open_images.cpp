#include "data/open_images.hpp"

#include <system_error>

#include "data/cifar.hpp"
#include "data/image_folder.hpp"

namespace nibble {

DatasetPtr open_images(const std::filesystem::path& dir, const std::string& split, Decoder decoder) {
  std::error_code ignored;  // ImageFolder refuses what cannot be looked at, with its reason
  if (!split.empty() && !std::filesystem::exists(dir / split, ignored) && is_cifar(dir))
    return std::make_shared<Cifar>(dir, split);
  return std::make_shared<ImageFolder>(ImageFolderArgs{.dir = dir, .split = split, .decoder = decoder});
}

}  // namespace nibble
