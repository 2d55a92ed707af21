// Block cache: reuse, alignment, the bound on what is kept, threads.
#include "engine/block_cache.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "engine/sanitizer.hpp"
#include "engine/storage.hpp"

using namespace nibble;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

constexpr bool kKeeps = !kAddressSanitizer;  // see engine/block_cache.cpp

}  // namespace

TEST_CASE("a block that was given back is taken again by the next request of its size") {
  if (!kKeeps) return;
  release_kept_blocks();
  const Block first = take_block(5 * kMiB);
  give_block(first);
  const size_t mapped = block_cache_stats().mapped;
  const Block again = take_block(5 * kMiB - 100);
  CHECK(again.data == first.data);
  CHECK(block_cache_stats().mapped == mapped);
  const Block other = take_block(5 * kMiB);  // the first is in use
  CHECK(other.data != again.data);
  give_block(again);
  give_block(other);
}

TEST_CASE("a block is writable to its last byte and at most a 64th or a page larger than asked") {
  for (size_t bytes : {kSmallestBlock, kSmallestBlock + 1, size_t{1'000'000}, 2 * kMiB - 1, 2 * kMiB, 33 * kMiB + 5}) {
    const Block b = take_block(bytes);
    CHECK(b.bytes >= bytes);
    CHECK(b.bytes <= bytes + bytes / 64 + 4096);
    CHECK(reinterpret_cast<uintptr_t>(b.data) % (b.bytes >= 2 * kMiB ? 2 * kMiB : 4096) == 0);
    std::memset(b.data, 0x5a, b.bytes);
    give_block(b);
  }
}

TEST_CASE(
    "what is kept and what is in use stay below the limit: an eighth above the most in use, a sixteenth and 32 MiB if "
    "less") {
  if (!kKeeps) return;
  release_kept_blocks();
  const size_t base = block_cache_stats().used_bytes;
  std::vector<Block> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(take_block(4 * kMiB));
  for (const Block& b : blocks) give_block(b);
  CHECK(block_cache_stats().kept_bytes == 32 * kMiB);
  const Block large = take_block(16 * kMiB);  // 16 in use: 36 - 16 = 20, so five blocks of 4
  CHECK(block_cache_stats().used_bytes == base + 16 * kMiB);
  CHECK(block_cache_stats().kept_bytes == 20 * kMiB);
  CHECK(block_cache_stats().most_used_bytes == base + 32 * kMiB);
  give_block(large);
  release_kept_blocks();
  // Nobody touches these, so they take addresses alone. The limit is 1,024 + 64 + 32.
  give_block(take_block(1024 * kMiB));
  const Block beside = take_block(90 * kMiB);
  CHECK(block_cache_stats().kept_bytes == 1024 * kMiB);
  give_block(beside);
  const Block third = take_block(20 * kMiB);  // 1,114 + 20 are more, without the 32 they would be less
  CHECK(block_cache_stats().kept_bytes == 90 * kMiB);
  give_block(third);
  release_kept_blocks();
  CHECK(block_cache_stats().kept_bytes == 0);
}

TEST_CASE("more memory than an address can hold is refused") {
  CHECK_THROWS_AS(take_block(SIZE_MAX - 5), std::bad_alloc);
  CHECK_THROWS_AS(take_block(size_t{1} << 62), std::bad_alloc);
  CHECK_THROWS_AS(Storage(SIZE_MAX), std::bad_alloc);
}

TEST_CASE("threads never hold the same block") {
  std::vector<std::thread> threads;
  std::vector<int> torn(4);
  for (size_t t = 0; t < torn.size(); ++t)
    threads.emplace_back([t, &torn] {
      for (int round = 0; round < 200; ++round) {
        const Block b = take_block(kSmallestBlock + static_cast<size_t>(round % 3) * kSmallestBlock);
        std::memset(b.data, static_cast<int>(t), b.bytes);
        std::this_thread::yield();
        for (size_t i = 0; i < b.bytes; i += 1024) torn[t] += b.data[i] != static_cast<std::byte>(t);
        give_block(b);
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(torn == std::vector<int>(4));
}
