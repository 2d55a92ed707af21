// What of a folder counts: images, sub-folders, in an order that every machine repeats.
#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/files.hpp"

namespace nibble {

/// DataError "there is no folder ROOT: <expected>"; DiskError when it cannot be looked at.
void require_folder(const std::filesystem::path& root, const std::string& expected);

/// Whether the entry is a folder, or a link to one. DataError when it is a link that leads nowhere: a name that would
/// count must not be left out just because its kind cannot be told, since with other images it would be another data
/// set. DiskError when it cannot be looked at.
bool is_folder(const std::filesystem::directory_entry& entry);

/// Whether the entry has an image's name (label_list.hpp) and is a file, or a link to one. Errors as above, for entries
/// of such names alone.
bool is_image(const std::filesystem::directory_entry& entry);

/// What lies between images and is none: how many entries, and the first in bytewise order.
struct LeftOut {
  int64_t count = 0;
  std::string first;

  void add(const std::string& name) {
    if (count++ == 0 || name < first) first = name;
  }
  /// "/photos: left out 2 entries that are not .jpg, .jpeg or .png files, such as a.heic"; empty where there are none.
  std::string text(const std::string& where) const;
};

/// The names in `folder` that satisfy `wanted`, in bytewise order; those that begin with a dot are left out. DiskError.
template <typename Wanted>
std::vector<std::string> names_in(const std::filesystem::path& folder, const Wanted& wanted) {
  std::vector<std::string> names;
  for (const std::filesystem::directory_entry& entry : list_folder(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.front() != '.' && wanted(entry)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace nibble
