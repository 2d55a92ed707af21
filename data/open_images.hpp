// Opens a split of a data set in whichever layout it has.
#pragma once
#include <filesystem>
#include <string>

#include "data/dataset.hpp"

namespace nibble {

/// DIR as an ImageFolder, or where DIR/<split> is not there and DIR is CIFAR, as that; `split` empty: the images of
/// `dir` itself. Errors: those of ImageFolder and Cifar.
DatasetPtr open_images(const std::filesystem::path& dir, const std::string& split, Decoder decoder);

/// Whether DIR is a data set with splits: it has a folder `train` or `val`, or is CIFAR.
bool has_splits(const std::filesystem::path& dir);

/// open_images for work that needs no labels: where DIR/<split> has none, or `split` is empty, all images below it, as
/// UnsortedImages. Errors: those of open_images and UnsortedImages, of refuse_other_cifar.
DatasetPtr open_images_to_look_at(const std::filesystem::path& dir, const std::string& split, Decoder decoder);

}  // namespace nibble
