// A model's file open for reading; every failure is a sentence.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "engine/files.hpp"
#include "engine/storage.hpp"

namespace nibble {

class InputFile {
 public:
  /// ModelError when there is none or it is no regular file; DiskError.
  explicit InputFile(const std::filesystem::path& path);

  uint64_t bytes() const { return bytes_; }
  /// The next bytes. ModelError when the file has become shorter; DiskError.
  void read(std::span<std::byte> to);

 private:
  std::string source_;
  FileDescriptor fd_;
  uint64_t bytes_ = 0;
};

/// ModelError naming `source` above `most` bytes.
void require_model_size(uint64_t bytes, const std::string& source, uint64_t most);
/// Memory for a file, or a part of it. UnsupportedError naming `source` when there is none.
std::shared_ptr<Storage> allocate_for_file(uint64_t bytes, const std::string& source);

}  // namespace nibble
