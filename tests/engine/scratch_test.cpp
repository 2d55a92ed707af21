// Scratch: alignment, disjointness, reuse, growth.
#include "engine/scratch.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/storage.hpp"

using namespace nibble;

TEST_CASE("scratch blocks are aligned, disjoint, and readable 64 bytes past their end") {
  Scratch scratch;
  struct Block {
    unsigned char* data;
    size_t size;
  };
  std::vector<Block> blocks;
  unsigned char fill = 0;
  for (size_t size : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{100000}, size_t{6} << 20}) {
    Block b{scratch.get<unsigned char>(size), size};
    CHECK(reinterpret_cast<uintptr_t>(b.data) % kAlignment == 0);
    // Written here, though callers only read the 64 bytes: were they another block's, the check below would fail.
    std::memset(b.data, ++fill, size);
    blocks.push_back(b);
  }
  fill = 0;
  int wrong = 0;
  for (const Block& b : blocks) {
    ++fill;
    for (size_t i = 0; i < b.size; ++i) wrong += b.data[i] != fill;
    volatile unsigned char last = b.data[b.size + 63];
    static_cast<void>(last);  // an address sanitizer run sees a read past the chunk
  }
  CHECK(wrong == 0);
}

TEST_CASE("scratch gives the same memory again when a scope has ended") {
  Scratch outer;
  outer.get<int>(10);
  int* first = nullptr;
  {
    Scratch inner;
    first = inner.get<int>(100);
  }
  {
    Scratch inner;
    CHECK(inner.get<int>(100) == first);
  }
}

TEST_CASE("scratch that outgrew its first chunk does not move what was handed out") {
  Scratch scratch;
  int* kept = scratch.get<int>(1000);
  for (int i = 0; i < 1000; ++i) kept[i] = i;
  {
    Scratch inner;
    char* large = inner.get<char>(size_t{40} << 20);
    std::memset(large, 1, size_t{40} << 20);
  }
  int wrong = 0;
  for (int i = 0; i < 1000; ++i) wrong += kept[i] != i;
  CHECK(wrong == 0);
  // After the scope the small chunk is in use again.
  int* next = scratch.get<int>(1);
  CHECK(next > kept);
  CHECK(reinterpret_cast<char*>(next) - reinterpret_cast<char*>(kept) < (4 << 20));
}
