#include "nn/folder_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "engine/error.hpp"

namespace nibble {

FolderLock::FolderLock(const std::filesystem::path& folder, const char* busy) {
  const std::filesystem::path path = folder / ".lock";
  fd_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  int error_number = fd_.open() ? 0 : errno;
  if (error_number == 0 && ::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) error_number = errno;
  if (error_number == 0) return;
  if (error_number == EWOULDBLOCK)
    throw UsageError("another process is {} '{}'; wait until it ends or choose another folder", busy, folder.string());
  throw_disk_error("lock", path, error_number);
}

}  // namespace nibble
