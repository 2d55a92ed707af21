// Files that are either complete or not there: temporary name, write, fsync, rename, fsync of the directory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "engine/files.hpp"

namespace nibble {

/// Writes a file under a temporary name next to `path`; only commit() gives it the name. A process killed at any
/// instant leaves the older file as it was, or the new one complete, and at most one temporary file (see
/// remove_temporary_files). If the object dies without commit() the temporary file is removed.
/// Errors: DiskError (no space, I/O error, read-only or missing directory, a path that leads to something other than a
/// file); what was there is then untouched.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void append(std::span<const std::byte> bytes);
  void append(std::string_view text);
  /// fsync, rename, fsync of the directory; afterwards the file survives a power cut. A DiskError of the last of these
  /// leaves the new file in place, perhaps not durable.
  void commit();
  uint64_t bytes() const { return bytes_; }
  /// Where the bytes are until commit(), for a check of what was written.
  const std::filesystem::path& temporary() const { return temporary_; }

 private:
  [[noreturn]] void fail(std::string_view doing, int error_number);
  void discard() noexcept;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileDescriptor fd_;
  uint64_t bytes_ = 0;
};

/// A whole small file at once (resolved config, machine description).
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// Makes `link` a symbolic link to `target` (relative to the link's directory), replacing an older one by rename.
void replace_symlink(const std::filesystem::path& target, const std::filesystem::path& link);

/// Is there anything of that name (links followed)? DiskError when that cannot be told, which is not a no.
bool path_exists(const std::filesystem::path& path);

/// Makes renames and removals in `directory` durable, as far as this process and the file system can. DiskError when
/// the disk fails.
void sync_directory(const std::filesystem::path& directory);

/// True for the names that AtomicFile and replace_symlink use before their rename.
bool is_temporary_name(std::string_view file_name);

/// Removes what a killed process left in `directory` (not below it); returns how many files. What is being
/// written there (an export into the folder of a run) stays: it is locked.
int remove_temporary_files(const std::filesystem::path& directory);

/// A small text file (metrics, links, configs); throws DiskError when it cannot be read, DataError above `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes);

}  // namespace nibble
