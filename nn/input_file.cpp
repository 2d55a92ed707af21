#include "nn/input_file.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <new>

#include "engine/error.hpp"

namespace nibble {

InputFile::InputFile(const std::filesystem::path& path) : source_(path.string()), fd_(open_to_read(path)) {
  if (!fd_.open() && (errno == ENOENT || errno == ENOTDIR))
    throw ModelError("'{}' does not exist; check the path of the model or checkpoint", source_);
  if (!fd_.open()) throw_disk_error("open", path, errno);
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0) throw_disk_error("look at", path, errno);
  if (!S_ISREG(info.st_mode))
    throw ModelError("'{}' is not a regular file; give the path of a .safetensors file", source_);
  bytes_ = static_cast<uint64_t>(info.st_size);
}

void InputFile::read(std::span<std::byte> to) {
  const ReadResult got = read_all(fd_.get(), to);
  if (got.error_number != 0) throw_disk_error("read", source_, got.error_number);
  if (got.bytes < to.size())
    throw ModelError("'{}' became shorter while it was read; wait until it is complete", source_);
}

void require_model_size(uint64_t bytes, const std::string& source, uint64_t most) {
  if (bytes > most)
    throw ModelError("'{}' has {} bytes, above the limit of {}; it is not a model of ours", source, bytes, most);
}

std::shared_ptr<Storage> allocate_for_file(uint64_t bytes, const std::string& source) {
  try {
    return std::make_shared<Storage>(bytes);
  } catch (const std::bad_alloc&) {  // no ModelError: the file is not at fault, and a resumed run must not pass it over
    throw UnsupportedError("'{}' needs {} bytes of memory, more than there are; use a machine with more", source,
                           bytes);
  }
}

}  // namespace nibble
