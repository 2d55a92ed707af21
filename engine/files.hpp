// Files as the system has them: descriptors that close themselves, reads and writes that finish, reasons in words.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble {

/// Closes what it holds. Constructed from another one it leaves that with nothing; assigned, they swap.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { close(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  bool open() const { return fd_ >= 0; }
  int get() const { return fd_; }
  /// 0 or the errno. errno itself stays as it was.
  int close() noexcept;

 private:
  int fd_ = -1;
};

/// The system calls through which this library changes the disk, so that tests can make any one of them fail, write
/// short, or be the last one before the process dies.
struct DiskCalls {
  ssize_t (*write)(int fd, const void* data, size_t bytes);
  int (*fsync)(int fd);
  int (*rename)(const char* from, const char* to);
  int (*symlink)(const char* target, const char* path);
};

/// The calls in use; the system's own unless a test replaced them. Not for concurrent change.
DiskCalls& disk_calls();

/// "no space is left on the device; free some and run again": the reason of a failed disk call and what to do.
std::string disk_reason(int error_number);

/// DiskError "cannot <doing> '<path>': <reason>". `error_number` may be errno itself.
[[noreturn]] void throw_disk_error(std::string_view doing, const std::filesystem::path& path, int error_number);

/// Makes the folder and those above it that are missing. DiskError.
void make_folders(const std::filesystem::path& folder);
/// Makes the folders that `file` is to lie in. DiskError.
void make_folders_above(const std::filesystem::path& file);

/// What the folder holds, in no order. DiskError when it cannot be listed to its end.
std::vector<std::filesystem::directory_entry> list_folder(const std::filesystem::path& folder);

/// Opens a file, or a pipe without waiting for its writer. Not open, with errno, when that fails.
FileDescriptor open_to_read(const std::filesystem::path& path);

struct ReadResult {
  size_t bytes = 0;      // fewer than asked for at the end of the file
  int error_number = 0;  // of the call that failed
};
/// Reads until `to` is full or the file ends, over short reads and interrupted calls.
ReadResult read_all(int fd, std::span<std::byte> to);

/// Writes all of `bytes`, over short writes and interrupted calls; 0 or the errno.
int write_all(int fd, std::span<const std::byte> bytes);

}  // namespace nibble
