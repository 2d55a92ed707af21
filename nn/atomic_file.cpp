#include "nn/atomic_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/error.hpp"

namespace nibble {

namespace fs = std::filesystem;

namespace {

// "<name>.nibble-tmp-<pid>-<n>": no other program makes such names, so clean-up removes nothing of the user's.
constexpr std::string_view kTemporaryMark = ".nibble-tmp-";

std::atomic<unsigned> temporary_counter{0};

/// Makes a temporary file or link by `make`, which says whether it could and leaves the reason in errno; returns its
/// name. A name that is taken is skipped: a killed process may have left it, and in containers all have the same
/// number. Empty, with errno, when it cannot be made.
template <typename Make>
fs::path make_temporary_beside(const fs::path& path, const Make& make) {
  constexpr int kAttempts = 1000;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    fs::path temporary = path;
    temporary += fmt::format("{}{}-{}", kTemporaryMark, ::getpid(), temporary_counter++);
    if (make(temporary)) return temporary;
    if (errno != EEXIST) break;
  }
  return {};
}

fs::path directory_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

/// Locks a new temporary file, which marks it as no leftover; false when it was taken for one before that and is gone.
/// A file system without locks costs only the lock.
bool claim(int fd, const fs::path& name) {
  // Waits only for remove_temporary_files, which holds the lock for the time of an unlink.
  while (::flock(fd, LOCK_EX) != 0 && errno == EINTR) {
  }
  struct stat info {};
  return ::lstat(name.c_str(), &info) == 0 || errno != ENOENT;
}

}  // namespace

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  // A rename puts a file in the place of anything: --out /dev/null would cost root the device.
  struct stat there {};
  if (::stat(path_.c_str(), &there) == 0 && !S_ISREG(there.st_mode))
    throw DiskError("cannot write '{}': {}", path_.string(),
                    S_ISDIR(there.st_mode) ? disk_reason(EISDIR)
                                           : "it is a device, a pipe or a socket, not a file; choose another name");
  temporary_ = make_temporary_beside(path_, [&](const fs::path& name) {
    fd_ = FileDescriptor(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!fd_.open() || claim(fd_.get(), name)) return fd_.open();
    fd_.close();
    errno = EEXIST;  // as good as taken: the next name
    return false;
  });
  if (!fd_.open()) throw_disk_error("create", path_, errno);
}

AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::discard() noexcept {
  fd_.close();
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::fail(std::string_view doing, int error_number) {
  discard();
  throw DiskError("cannot {} '{}' (an older file of that name is untouched): {}", doing, path_.string(),
                  disk_reason(error_number));
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  if (!fd_.open()) fail("write", EBADF);
  if (const int error_number = write_all(fd_.get(), bytes); error_number != 0) fail("write", error_number);
  bytes_ += bytes.size();
}

void AtomicFile::append(std::string_view text) {
  append(std::as_bytes(std::span(text.data(), text.size())));
}

void AtomicFile::commit() {
  if (!fd_.open()) fail("finish", EBADF);
  if (disk_calls().fsync(fd_.get()) != 0) fail("flush", errno);
  // Closed after the rename, so that the lock lasts until then; what closing could report, fsync has reported.
  if (disk_calls().rename(temporary_.c_str(), path_.c_str()) != 0) fail("put in place", errno);
  temporary_.clear();
  fd_.close();
  sync_directory(directory_of(path_));
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.append(text);
  file.commit();
}

void replace_symlink(const fs::path& target, const fs::path& link) {
  const fs::path temporary = make_temporary_beside(
      link, [&](const fs::path& name) { return disk_calls().symlink(target.c_str(), name.c_str()) == 0; });
  if (temporary.empty()) throw_disk_error("create the link", link, errno);
  if (disk_calls().rename(temporary.c_str(), link.c_str()) != 0) {
    const int error_number = errno;
    ::unlink(temporary.c_str());
    throw DiskError("cannot replace the link '{}' (it is untouched): {}", link.string(), disk_reason(error_number));
  }
  sync_directory(directory_of(link));
}

bool path_exists(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error && status.type() != fs::file_type::not_found)
    throw DiskError("cannot look at '{}': {}", path.string(), disk_reason(error.value()));
  return fs::exists(status);
}

void sync_directory(const fs::path& directory) {
  const FileDescriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // A directory that may be written but not read (mode 1733) cannot be opened, so not synced. Some file systems cannot
  // sync a directory and say EINVAL. In both, renames are as durable as they get.
  int error_number = !fd.open() && errno != EACCES ? errno : 0;
  if (fd.open() && disk_calls().fsync(fd.get()) != 0 && errno != EINVAL) error_number = errno;
  if (error_number != 0)
    throw DiskError("cannot make changes in the directory '{}' durable: {}", directory.string(),
                    disk_reason(error_number));
}

bool is_temporary_name(std::string_view file_name) {
  const size_t mark = file_name.rfind(kTemporaryMark);
  if (mark == std::string_view::npos || mark == 0) return false;
  const std::string_view numbers = file_name.substr(mark + kTemporaryMark.size());
  const size_t dash = numbers.find('-');
  const auto all_digits = [](std::string_view s) {
    return !s.empty() && s.find_first_not_of("0123456789") == std::string_view::npos;
  };
  return dash != std::string_view::npos && all_digits(numbers.substr(0, dash)) && all_digits(numbers.substr(dash + 1));
}

namespace {

/// False, and it stays, when an AtomicFile of any process or container holds it: it is about to be put in place.
bool remove_leftover(const fs::path& temporary) {
  // A link cannot be opened this way; no process holds one. For writing, where allowed: NFS locks no other descriptor.
  FileDescriptor fd(::open(temporary.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.open()) fd = FileDescriptor(::open(temporary.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (fd.open() && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT)
    throw_disk_error("remove the unfinished file", temporary, errno);
  return true;
}

}  // namespace

int remove_temporary_files(const fs::path& directory) {
  std::vector<fs::path> leftovers;
  for (const fs::directory_entry& entry : list_folder(directory)) {
    std::error_code ignored;
    const bool removable = !entry.is_directory(ignored) || entry.is_symlink(ignored);
    if (removable && is_temporary_name(entry.path().filename().native())) leftovers.push_back(entry.path());
  }
  return static_cast<int>(std::count_if(leftovers.begin(), leftovers.end(), remove_leftover));
}

std::string read_text_file(const fs::path& path, uint64_t max_bytes) {
  const FileDescriptor fd = open_to_read(path);
  if (!fd.open()) throw_disk_error("open", path, errno);
  std::string text;
  std::vector<std::byte> block(size_t{1} << 16);
  while (true) {
    const ReadResult got = read_all(fd.get(), block);
    if (got.error_number != 0) throw_disk_error("read", path, got.error_number);
    if (text.size() + got.bytes > max_bytes)
      throw DataError("'{}' is larger than the {} bytes such a file may have; move it away", path.string(), max_bytes);
    text.append(reinterpret_cast<const char*>(block.data()), got.bytes);
    if (got.bytes < block.size()) return text;
  }
}

}  // namespace nibble
