// The right to write one folder, held by one process at a time.
#pragma once
#include <filesystem>

#include "engine/files.hpp"

namespace nibble {

/// flock on FOLDER/.lock from construction to destruction; the kernel frees it however the process ends. The file is
/// never removed: another process could then lock a new one alongside us.
class FolderLock {
 public:
  /// `busy`: what the other process is doing in the folder, for the sentence "another process is <busy> '<folder>'".
  /// UsageError when another process holds the lock, DiskError when it cannot be taken.
  FolderLock(const std::filesystem::path& folder, const char* busy);

 private:
  FileDescriptor fd_;
};

}  // namespace nibble
