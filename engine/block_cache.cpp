#include "engine/block_cache.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <list>
#include <mutex>
#include <new>

#include "engine/integers.hpp"
#include "engine/sanitizer.hpp"

namespace nibble {

namespace {

constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;

/// What may be kept beyond a sixteenth, up to another one. Small steps have as many sizes of blocks as large ones: with
/// an eighth, training at 64 px, batch 64, x0.75, one thread, had 92,000 page faults in a run of 24 steps instead of
/// 147,000 and took 0.95 and 0.97 of the time of a step (Zen 5). At 224 px and x1 an eighth keeps 145 MiB more and wins
/// nothing that can be measured.
constexpr size_t kMoreKept = size_t{32} << 20;

constexpr bool kKeep = !kAddressSanitizer;  // a kept block would hide a use after free

/// Sizes in steps of a 64th of their power of two, so that nearly equal requests share blocks. Whole huge pages would
/// be simpler, but take 260 of the 1,500 MiB of a ResNet-50 step (112 px, batch 64): the last pages are small ones.
size_t block_size(size_t bytes) {
  const size_t step = std::max(std::bit_floor(bytes) / 64, kPage);
  return round_up(bytes, step);
}

std::byte* map(size_t bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : kPage, slack = alignment - kPage;
  void* const mapped = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const size_t skip = (alignment - reinterpret_cast<uintptr_t>(begin) % alignment) % alignment;
  if (skip > 0) munmap(begin, skip);
  if (slack > skip) munmap(begin + skip + bytes, slack - skip);
  if (alignment == kHugePage) madvise(begin + skip, bytes, MADV_HUGEPAGE);  // advice only: failure changes nothing
  return begin + skip;
}

class BlockCache {
 public:
  Block take(size_t bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    Block block{nullptr, block_size(bytes)};
    const std::lock_guard lock(mutex_);
    const auto kept = std::find_if(kept_.begin(), kept_.end(), [&](const Block& b) { return b.bytes == block.bytes; });
    if (kept != kept_.end()) {
      block = *kept;
      kept_.erase(kept);
      stats_.kept_bytes -= block.bytes;
      ++stats_.reused;
    } else {
      shrink(block.bytes);
      block.data = map(block.bytes);
      if (block.data == nullptr) {  // what is kept may be what is missing
        release(0);
        block.data = map(block.bytes);
      }
      if (block.data == nullptr) throw std::bad_alloc();
      ++stats_.mapped;
    }
    stats_.used_bytes += block.bytes;
    stats_.most_used_bytes = std::max(stats_.most_used_bytes, stats_.used_bytes);
    return block;
  }

  void give(Block block) noexcept {
    const std::lock_guard lock(mutex_);
    stats_.used_bytes -= block.bytes;
    try {
      kept_.push_front(block);
      stats_.kept_bytes += block.bytes;
    } catch (const std::bad_alloc&) {
      munmap(block.data, block.bytes);
    }
    kKeep ? shrink(0) : release(0);
  }

  void release_all() noexcept {
    const std::lock_guard lock(mutex_);
    release(0);
    stats_.most_used_bytes = stats_.used_bytes;
  }

  BlockCacheStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  /// Keeps at most what leaves `wanted` more bytes below the limit.
  void shrink(size_t wanted) noexcept {
    const size_t part = stats_.most_used_bytes / 16, used = stats_.used_bytes + wanted;
    const size_t limit = stats_.most_used_bytes + part + std::min(part, kMoreKept);
    release(limit > used ? limit - used : 0);
  }
  void release(size_t keep) noexcept {
    while (stats_.kept_bytes > keep) {
      const Block oldest = kept_.back();
      kept_.pop_back();
      stats_.kept_bytes -= oldest.bytes;
      munmap(oldest.data, oldest.bytes);
    }
  }

  std::mutex mutex_;
  std::list<Block> kept_;  // last given first
  BlockCacheStats stats_;
};

/// Never destroyed: storage of static and thread lifetime is given back after every destructor of this file.
BlockCache& cache() {
  static BlockCache& instance = *new BlockCache;
  return instance;
}

}  // namespace

Block take_block(size_t bytes) {
  return cache().take(bytes);
}

void give_block(Block block) noexcept {
  cache().give(block);
}

void release_kept_blocks() noexcept {
  cache().release_all();
}

BlockCacheStats block_cache_stats() {
  return cache().stats();
}

}  // namespace nibble
