#include "engine/storage.hpp"

#include <cstdlib>
#include <new>

#include "engine/block_cache.hpp"

namespace nibble {

Storage::Storage(size_t bytes) : bytes_(bytes) {
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  // One line of slack: vector kernels may read up to 63 bytes past the last element.
  const size_t padded = (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment;
  if (padded >= kSmallestBlock) {
    const Block block = take_block(padded);
    data_ = block.data;
    block_bytes_ = block.bytes;
    return;
  }
  data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, padded));
  if (data_ == nullptr) throw std::bad_alloc();
}

Storage::~Storage() {
  if (block_bytes_ > 0)
    give_block({data_, block_bytes_});
  else
    std::free(data_);
}

}  // namespace nibble
