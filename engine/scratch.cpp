#include "engine/scratch.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/storage.hpp"

namespace nibble {

namespace {
struct ScratchArena {
  std::vector<std::unique_ptr<Storage>> chunks;
  size_t chunk = 0;  // index of the chunk in use
  size_t used = 0;   // bytes of it in use
};
thread_local ScratchArena scratch_arena;
constexpr size_t kFirstChunk = size_t{4} << 20;
}  // namespace

Scratch::Scratch() : chunk_(scratch_arena.chunk), used_(scratch_arena.used) {}

Scratch::~Scratch() {
  scratch_arena.chunk = chunk_;
  scratch_arena.used = used_;
}

void* Scratch::allocate(size_t bytes) {
  const size_t need = (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment;
  while (scratch_arena.chunk < scratch_arena.chunks.size() &&
         scratch_arena.chunks[scratch_arena.chunk]->bytes() - scratch_arena.used < need) {
    ++scratch_arena.chunk;
    scratch_arena.used = 0;
  }
  if (scratch_arena.chunk == scratch_arena.chunks.size()) {
    const size_t grown = scratch_arena.chunks.empty() ? kFirstChunk : 2 * scratch_arena.chunks.back()->bytes();
    scratch_arena.chunks.push_back(std::make_unique<Storage>(std::max(need, grown)));
    scratch_arena.used = 0;
  }
  void* p = scratch_arena.chunks[scratch_arena.chunk]->data() + scratch_arena.used;
  scratch_arena.used += need;
  return p;
}

}  // namespace nibble
