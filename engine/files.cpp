#include "engine/files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "engine/error.hpp"

namespace nibble {

int FileDescriptor::close() noexcept {
  if (fd_ < 0) return 0;
  const int before = errno;
  const int error_number = ::close(std::exchange(fd_, -1)) == 0 ? 0 : errno;
  errno = before;
  return error_number;
}

DiskCalls& disk_calls() {
  static DiskCalls calls = {::write, ::fsync, std::rename, ::symlink};
  return calls;
}

std::string disk_reason(int error_number) {
  switch (error_number) {
    case ENOSPC:
      return "no space is left on the device; free some and run again";
    case EDQUOT:
      return "the disk quota is used up; free some space and run again";
    case EFBIG:
      return "the file would exceed the size limit of this process or file system; raise it (ulimit -f) and run again";
    case EROFS:
      return "the file system is read-only; choose another place";
    case EACCES:
    case EPERM:
      return "permission is denied; change the permissions or choose another place";
    case ENOENT:
      return "the file or its directory does not exist; check the path";
    case ENOTDIR:
      return "a part of the path is a file, not a directory; check the path";
    case EISDIR:
      return "a directory of that name is in the way; choose another name";
    case EIO:
      return "the device reports an input/output error; check the disk";
    default:
      return std::generic_category().message(error_number) + "; check the disk and the path";
  }
}

void throw_disk_error(std::string_view doing, const std::filesystem::path& path, int error_number) {
  throw DiskError("cannot {} '{}': {}", doing, path.string(), disk_reason(error_number));
}

void make_folders(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && !std::filesystem::is_directory(folder, error) && !error)
    error = std::make_error_code(std::errc::not_a_directory);
  if (error) throw_disk_error("make the folder", folder, error.value());
}

void make_folders_above(const std::filesystem::path& file) {
  if (const std::filesystem::path folder = file.parent_path(); !folder.empty()) make_folders(folder);
}

std::vector<std::filesystem::directory_entry> list_folder(const std::filesystem::path& folder) {
  std::vector<std::filesystem::directory_entry> entries;
  std::error_code error;
  // Not a range-for, whose ++ throws std::filesystem_error.
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    entries.push_back(*it);
  if (error) throw_disk_error("list the folder", folder, error.value());
  return entries;
}

FileDescriptor open_to_read(const std::filesystem::path& path) {
  return FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

namespace {
// Linux moves at most 2 GiB - 4 KiB per call; 1 GiB keeps the return value clear of every limit.
constexpr size_t kMostPerCall = size_t{1} << 30;
}  // namespace

ReadResult read_all(int fd, std::span<std::byte> to) {
  ReadResult result;
  while (result.bytes < to.size()) {
    const ssize_t got = ::read(fd, to.data() + result.bytes, std::min(to.size() - result.bytes, kMostPerCall));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) result.error_number = errno;
    if (got <= 0) break;
    result.bytes += static_cast<size_t>(got);
  }
  return result;
}

int write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = disk_calls().write(fd, bytes.data(), std::min(bytes.size(), kMostPerCall));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    if (written == 0) return EIO;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return 0;
}

}  // namespace nibble
