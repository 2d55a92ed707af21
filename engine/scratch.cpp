#include "engine/scratch.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/storage.hpp"

namespace nibble {

namespace {
struct Arena {
  std::vector<std::unique_ptr<Storage>> chunks;
  size_t chunk = 0;  // index of the chunk in use
  size_t used = 0;   // bytes of it in use
};
thread_local Arena arena;
constexpr size_t kFirstChunk = size_t{4} << 20;
}  // namespace

Scratch::Scratch() : chunk_(arena.chunk), used_(arena.used) {}

Scratch::~Scratch() {
  arena.chunk = chunk_;
  arena.used = used_;
}

void* Scratch::allocate(size_t bytes) {
  const size_t need = (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment;
  while (arena.chunk < arena.chunks.size() && arena.chunks[arena.chunk]->bytes() - arena.used < need) {
    ++arena.chunk;
    arena.used = 0;
  }
  if (arena.chunk == arena.chunks.size()) {
    const size_t grown = arena.chunks.empty() ? kFirstChunk : 2 * arena.chunks.back()->bytes();
    arena.chunks.push_back(std::make_unique<Storage>(std::max(need, grown)));
    arena.used = 0;
  }
  void* p = arena.chunks[arena.chunk]->data() + arena.used;
  arena.used += need;
  return p;
}

}  // namespace nibble
