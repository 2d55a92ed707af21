// Images set aside for validation, of a data set that has none, and a folder that has them apart.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

struct ValidationShare {
  double share = 0.1;  // of the images of each class, about
  uint64_t seed = 0;
};

/// Whether each image is set aside. Each is drawn by itself, from the seed and the names of its class and file alone:
/// images that come later move no other one to the other side, unless a class has none on one side, where the next by
/// draw is taken. UsageError for a share outside (0, 1); DataError for a class of one image.
std::vector<bool> set_aside(const Dataset& images, const ValidationShare& of);

enum class SplitFiles { kLinks, kCopies };

/// Makes `out` with train/<class>/FILE and val/<class>/FILE: links to the images' own absolute paths, or copies. Until
/// all are there it is called `out`.part. UsageError when one of both exists; DiskError.
void write_split(const Dataset& images, const std::vector<bool>& validation, const std::filesystem::path& out,
                 SplitFiles files);

}  // namespace nibble
