// Block cache: large memory blocks kept between uses, so that a training step does not fault its pages in again.
//
// A step frees and allocates the same sizes again and again. Given back to the system, every block costs a clearing on
// the next touch: 11 % of a ResNet-50 step at 64 px on AVX2, more where the arithmetic is faster.
#pragma once
#include <cstddef>

namespace nibble {

struct Block {
  std::byte* data = nullptr;
  size_t bytes = 0;  // what the block really holds: at least what was asked for
};

/// From this size on Storage takes blocks; smaller memory comes from the heap, which keeps it by itself.
inline constexpr size_t kSmallestBlock = size_t{64} << 10;

/// A block of at least `bytes` (uninitialised; what an earlier user wrote may still be there), aligned to a page; a new
/// one from 2 MiB on to 2 MiB. Huge pages are advised. At most a 64th and a page larger than asked. Throws
/// std::bad_alloc. Thread-safe.  Cost: logarithmic in the number of runs of kept memory, a few hundred.
Block take_block(size_t bytes);

/// Gives a block back, whole. It is kept, one with the kept memory that it touches, as long as what is in use and kept
/// stays below 17/16 of the most that was ever in use at once plus another sixteenth, at most 32 MiB; beyond that the
/// memory unused for longest goes back to the system. Thread-safe.
void give_block(Block block) noexcept;

/// Gives all kept blocks back to the system and forgets how much was in use. Thread-safe.
void release_kept_blocks() noexcept;

struct BlockCacheStats {
  size_t used_bytes = 0, kept_bytes = 0, most_used_bytes = 0;
  size_t mapped = 0, reused = 0;  // blocks taken from the system and from what is kept
};
BlockCacheStats block_cache_stats();

}  // namespace nibble
