// Storage: 64-byte aligned memory shared by tensors; large blocks ask for huge pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace nibble {

inline constexpr size_t kAlignment = 64;  // one cache line, one AVX-512 register, one AMX tile row

class Storage {
 public:
  /// Allocates `bytes` (uninitialised), aligned to 64; large ones from the block cache, on huge pages where the system
  /// has them. Throws std::bad_alloc.
  explicit Storage(size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  size_t block_bytes_ = 0;  // 0: from the heap
};

}  // namespace nibble
