#include "data/unsorted_images.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "data/folder_entries.hpp"
#include "data/label_list.hpp"
#include "engine/error.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// The images below root/`below`, which is empty or ends in '/'.
void collect(const fs::path& root, const std::string& below, std::vector<std::string>& files, LeftOut& others) {
  for (const fs::directory_entry& entry : list_folder(root / below)) {
    const std::string name = entry.path().filename().string();
    if (name.front() == '.') continue;
    std::error_code ignored;
    if (!entry.is_symlink(ignored) && entry.is_directory(ignored))
      collect(root, below + name + "/", files, others);
    else if (is_image_name(name) && !entry.is_directory(ignored))
      files.push_back(below + name);  // what it is shows when it is read
    else
      others.add(below + name);
  }
}

}  // namespace

UnsortedImages::UnsortedImages(const fs::path& dir, Decoder decoder) : root_(dir), decoder_(resolve(decoder)) {
  require_folder(root_, "name one with images in it");
  LeftOut others;
  collect(root_, "", files_, others);
  if (files_.empty())
    throw DataError("{} holds no .jpg, .jpeg or .png file, nor do the folders in it{}; name a folder of images",
                    root_.string(), others.count > 0 ? fmt::format(" (but {}, for one)", others.first) : "");
  left_out_ = others.text(root_.string());
  std::sort(files_.begin(), files_.end());
}

Image UnsortedImages::read(int64_t index) const {
  const fs::path path = full_path(index);
  std::error_code error;
  if (!fs::is_regular_file(path, error) &&
      (!error || error == std::errc::no_such_file_or_directory || error == std::errc::too_many_symbolic_link_levels))
    throw DataError("{} is no file, or a link that leads nowhere; repair or remove it", path.string());
  return load_image(path, decoder_);
}

}  // namespace nibble
