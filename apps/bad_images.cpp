#include "apps/bad_images.hpp"

#include "apps/console.hpp"

namespace nibble::apps {

void BadImageNames::name_unreadable(std::string_view fate, const std::vector<ImageNote>& images) {
  for (const ImageNote& image : images)
    if (named_.insert(image.path).second) warn(fmt::format("{} {}: {}", fate, image.path, image.reason));
}

void BadImageNames::name_damaged(const std::vector<ImageNote>& images) {
  for (const ImageNote& image : images)
    if (named_.insert(image.path).second)
      warn(fmt::format("{} is used although damaged: {}", image.path, image.reason));
}

void BadImageNames::name_turned(const std::vector<ImageNote>& images) {
  if (images.empty() || turned_named_) return;
  turned_named_ = true;
  warn(
      fmt::format("{} is stored turned, says its EXIF orientation; such images are read as stored, as in torchvision "
                  "(models made with --upright turn them)",
                  images.front().path));
}

}  // namespace nibble::apps
