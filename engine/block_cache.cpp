#include "engine/block_cache.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#include "engine/integers.hpp"
#include "engine/sanitizer.hpp"

namespace nibble {

namespace {

constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;

/// What may be kept beyond a sixteenth, up to another one, which small steps need: training at 64 px, batch 64, x0.75
/// took 0.95 and 0.97 of the time of a step with it (one thread, Zen 5, blocks still of one size each). At 224 px and
/// x1 an eighth keeps 145 MiB more and gains nothing that can be measured.
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
  // Smaller ones, too: joined with others they serve larger requests. Advice only: failure changes nothing.
  madvise(begin + skip, bytes, MADV_HUGEPAGE);
  return begin + skip;
}

/// Kept memory between two addresses.
struct Extent {
  size_t bytes = 0;
  uint64_t given = 0;  // number of the give that last added to it
};

/// Requests take the front of what is kept, and adjacent blocks are joined again when they are given back: the sizes of
/// a network's activations are each other's halves and quarters (fewer pixels, fewer bits), so what forward freed
/// serves backward. Blocks serving only requests of their own size were given back and mapped again in every step, and
/// cleared: 21,000 page faults per step of ResNet-50 at 224 px, batch 64, two threads, now a few hundred.
class BlockCache {
 public:
  Block take(size_t bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    Block block{nullptr, block_size(bytes)};
    const std::lock_guard lock(mutex_);
    const auto kept = best_fit(block.bytes);
    if (kept != kept_.end()) {
      block.data = kept->first;
      take_front(kept, block.bytes);
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
      keep(block);
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
  using Extents = std::map<std::byte*, Extent>;  // no two touch
  using Sizes = std::set<std::pair<size_t, std::byte*>>;

  /// The smallest extent that is large enough, the first in memory among several.
  Extents::iterator best_fit(size_t bytes) {
    const auto size = sizes_.lower_bound({bytes, nullptr});
    return size == sizes_.end() ? kept_.end() : kept_.find(size->second);
  }

  /// Its new place and size. Allocates nothing; the place stays between those of its neighbours.
  Extents::iterator change(Extents::iterator extent, std::byte* begin, size_t bytes) noexcept {
    auto size = sizes_.extract({extent->second.bytes, extent->first});
    size.value() = {bytes, begin};
    sizes_.insert(std::move(size));
    auto node = kept_.extract(extent);
    node.key() = begin;
    node.mapped().bytes = bytes;
    return kept_.insert(std::move(node)).position;
  }
  void forget(Extents::iterator extent) noexcept {
    sizes_.erase({extent->second.bytes, extent->first});
    kept_.erase(extent);
  }

  void take_front(Extents::iterator extent, size_t bytes) noexcept {
    stats_.kept_bytes -= bytes;
    if (extent->second.bytes == bytes)
      forget(extent);
    else
      change(extent, extent->first + bytes, extent->second.bytes - bytes);
  }

  void keep(const Block& block) {
    const auto size = sizes_.emplace(block.bytes, block.data).first;
    Extents::iterator here;
    try {
      here = kept_.emplace(block.data, Extent{block.bytes, 0}).first;
    } catch (const std::bad_alloc&) {
      sizes_.erase(size);
      throw;
    }
    stats_.kept_bytes += block.bytes;
    if (here != kept_.begin())
      if (const auto before = std::prev(here); before->first + before->second.bytes == here->first) {
        const size_t bytes = before->second.bytes + here->second.bytes;
        forget(here);
        here = change(before, before->first, bytes);
      }
    if (const auto behind = std::next(here);
        behind != kept_.end() && here->first + here->second.bytes == behind->first) {
      const size_t bytes = here->second.bytes + behind->second.bytes;
      forget(behind);
      here = change(here, here->first, bytes);
    }
    here->second.given = ++gives_;
  }

  /// Keeps at most what leaves `wanted` more bytes below the limit.
  void shrink(size_t wanted) noexcept {
    const size_t part = stats_.most_used_bytes / 16, used = stats_.used_bytes + wanted;
    const size_t limit = stats_.most_used_bytes + part + std::min(part, kMoreKept);
    release(limit > used ? limit - used : 0);
  }
  /// From the end of what was given longest ago (whole extents may be most of what is kept), in whole huge pages where
  /// it has some.
  void release(size_t keep) noexcept {
    while (stats_.kept_bytes > keep) {
      const auto oldest = std::min_element(
          kept_.begin(), kept_.end(), [](const auto& a, const auto& b) { return a.second.given < b.second.given; });
      std::byte* const begin = oldest->first;
      const size_t bytes = oldest->second.bytes, surplus = stats_.kept_bytes - keep;
      size_t left = surplus < bytes ? bytes - surplus : 0;  // down to a boundary of pages
      const size_t over = (reinterpret_cast<uintptr_t>(begin) + left) % (bytes >= kHugePage ? kHugePage : kPage);
      left = left > over + kSmallestBlock ? left - over : 0;
      munmap(begin + left, bytes - left);
      stats_.kept_bytes -= bytes - left;
      if (left == 0)
        forget(oldest);
      else
        change(oldest, begin, left);
    }
  }

  std::mutex mutex_;
  Extents kept_;
  Sizes sizes_;  // of the same
  uint64_t gives_ = 0;
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
