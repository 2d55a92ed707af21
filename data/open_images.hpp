// Opens a split of a data set in whichever layout it has.
#pragma once
#include <filesystem>
#include <string>

#include "data/dataset.hpp"

namespace nibble {

/// DIR as an ImageFolder, or where DIR/<split> is not there and DIR is CIFAR, as that; `split` empty: the images of
/// `dir` itself. Errors: those of ImageFolder and Cifar.
DatasetPtr open_images(const std::filesystem::path& dir, const std::string& split, Decoder decoder);

}  // namespace nibble
