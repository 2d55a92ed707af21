#include "engine/storage.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace nibble {

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t round_up(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}
}  // namespace

Storage::Storage(size_t bytes) : bytes_(bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  if (bytes > SIZE_MAX - kHugePage) throw std::bad_alloc();
  // One line of slack: vector kernels may read up to 63 bytes past the last element.
  const size_t padded = round_up(bytes + kAlignment, alignment);
  data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, padded));
  if (data_ == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) madvise(data_, padded, MADV_HUGEPAGE);  // advice only: failure changes nothing
}

Storage::~Storage() {
  std::free(data_);
}

}  // namespace nibble
