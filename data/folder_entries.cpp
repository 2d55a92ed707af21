#include "data/folder_entries.hpp"

#include <fmt/format.h>

#include <system_error>

#include "data/label_list.hpp"
#include "engine/error.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

void require_known(const fs::directory_entry& entry, const std::error_code& error) {
  if (!error) return;
  if (error == std::errc::no_such_file_or_directory || error == std::errc::too_many_symbolic_link_levels)
    throw DataError("{} is a link that leads nowhere, or was removed meanwhile; repair or remove it",
                    entry.path().string());
  throw_disk_error("look at", entry.path(), error.value());
}

}  // namespace

void require_folder(const fs::path& root, const std::string& expected) {
  std::error_code error;
  const fs::file_status status = fs::status(root, error);
  if (error && status.type() != fs::file_type::not_found) throw_disk_error("look at the folder", root, error.value());
  if (!fs::is_directory(status)) throw DataError("there is no folder {}: {}", root.string(), expected);
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

std::string LeftOut::text(const std::string& where) const {
  if (count == 0) return "";
  const std::string what = count == 1
                               ? "1 entry that is not a .jpg, .jpeg or .png file:"
                               : fmt::format("{} entries that are not .jpg, .jpeg or .png files, such as", count);
  return fmt::format("{}: left out {} {}", where, what, first);
}

}  // namespace nibble
