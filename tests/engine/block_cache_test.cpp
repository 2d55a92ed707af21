// Block cache: reuse, alignment, the bound on what is kept, threads.
#include "engine/block_cache.hpp"

#include <doctest/doctest.h>

#include <algorithm>
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

bool keeps() {
  if (!kKeeps) MESSAGE("skipped: under the address sanitizer no block is kept");
  return kKeeps;
}

}  // namespace

TEST_CASE("a block that was given back is taken again by the next request of its size") {
  if (!keeps()) return;
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
  release_kept_blocks();  // new ones are aligned to huge pages
  for (size_t bytes : {kSmallestBlock, kSmallestBlock + 1, size_t{1'000'000}, 2 * kMiB - 1, 2 * kMiB, 33 * kMiB + 5}) {
    const Block b = take_block(bytes);
    CHECK(b.bytes >= bytes);
    CHECK(b.bytes <= bytes + bytes / 64 + 4096);
    CHECK(reinterpret_cast<uintptr_t>(b.data) % (b.bytes >= 2 * kMiB ? 2 * kMiB : 4096) == 0);
    std::memset(b.data, 0x5a, b.bytes);
    give_block(b);
    release_kept_blocks();
  }
}

TEST_CASE("requests share what a larger block left, and it is whole again when they are given back") {
  if (!keeps()) return;
  release_kept_blocks();
  const Block whole = take_block(8 * kMiB);
  give_block(whole);
  const size_t mapped = block_cache_stats().mapped;
  for (const bool first_goes_first : {true, false}) {
    const Block a = take_block(4 * kMiB), b = take_block(2 * kMiB), c = take_block(2 * kMiB);
    CHECK(a.data == whole.data);
    CHECK(b.data == whole.data + 4 * kMiB);
    CHECK(c.data == whole.data + 6 * kMiB);
    CHECK(block_cache_stats().kept_bytes == 0);
    give_block(first_goes_first ? a : c);
    give_block(first_goes_first ? c : a);
    give_block(b);
    CHECK(block_cache_stats().kept_bytes == 8 * kMiB);
    const Block again = take_block(8 * kMiB);
    CHECK(again.data == whole.data);
    give_block(again);
  }
  CHECK(block_cache_stats().mapped == mapped);
  // The smallest run that is large enough.
  const Block large = take_block(8 * kMiB), apart = take_block(kMiB), small = take_block(3 * kMiB);
  give_block(large);
  give_block(small);
  if (small.data + small.bytes != large.data && large.data + large.bytes != small.data) {
    const Block fits = take_block(3 * kMiB);
    CHECK(fits.data == small.data);
    give_block(fits);
  }
  give_block(apart);
  release_kept_blocks();
}

TEST_CASE(
    "what is kept and what is in use stay below the limit: an eighth above the most in use, a sixteenth and 32 MiB if "
    "less") {
  if (!keeps()) return;
  release_kept_blocks();
  const size_t base = block_cache_stats().used_bytes;
  std::vector<Block> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(take_block(4 * kMiB));
  for (const Block& b : blocks) give_block(b);
  CHECK(block_cache_stats().kept_bytes == 32 * kMiB);
  const Block large = take_block(35 * kMiB);  // a new one: 36 - 35
  CHECK(block_cache_stats().used_bytes == base + 35 * kMiB);
  CHECK(block_cache_stats().kept_bytes <= kMiB);  // of pieces that touch no others: what the limit leaves, or less
  CHECK(block_cache_stats().most_used_bytes == base + 35 * kMiB);
  give_block(large);
  release_kept_blocks();
  // These are never touched, so they take only addresses.
  const auto limit = [] {
    const size_t peak = block_cache_stats().most_used_bytes;
    return peak + peak / 16 + std::min(peak / 16, 32 * kMiB);
  };
  const Block most = take_block(1024 * kMiB), first = take_block(64 * kMiB);
  give_block(first);
  const Block second = take_block(90 * kMiB);
  CHECK(block_cache_stats().kept_bytes == 64 * kMiB);
  const size_t before = limit();
  const Block third = take_block(70 * kMiB);  // 1,184 + 64 are some 32 more than 1,114 + 69.6 + 32: whole huge pages go
  const size_t allowed = before - block_cache_stats().used_bytes, kept = block_cache_stats().kept_bytes;
  REQUIRE(allowed < 64 * kMiB);
  CHECK(kept == allowed / (2 * kMiB) * (2 * kMiB));
  const Block rest = take_block(kept);
  CHECK(rest.data == first.data);  // they went from its end
  for (const Block& b : {most, second, third, rest}) give_block(b);
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
