// The one translation unit with stb_image. It must be compiled with -fwrapv: on damaged data the library lets DC
// predictors and coefficients wrap round in signed arithmetic.
#include "data/stb_image.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace nibble::data_detail {
namespace {

// Live bytes of this thread's image; blocks carry their size in front. Blocks are zeroed, because damaged files leave
// parts unwritten and their pixels should not depend on what the memory held before.
thread_local int64_t bytes_left = 0;
thread_local bool machine_lacks_memory = false;  // an allocation within the budget failed
constexpr size_t kHeader = 16;

void* stb_malloc(size_t size) {
  if (size > static_cast<size_t>(std::max<int64_t>(0, bytes_left))) return nullptr;
  auto* block = static_cast<unsigned char*>(std::calloc(1, size + kHeader));
  if (block == nullptr) machine_lacks_memory = true;
  if (block == nullptr) return nullptr;
  bytes_left -= static_cast<int64_t>(size);
  std::memcpy(block, &size, sizeof size);
  return block + kHeader;
}

size_t size_of_block(const void* p) {
  size_t size = 0;
  std::memcpy(&size, static_cast<const unsigned char*>(p) - kHeader, sizeof size);
  return size;
}

void free_block(const void* p) {
  std::free(const_cast<unsigned char*>(static_cast<const unsigned char*>(p)) - kHeader);
}

void stb_free(void* p) {
  if (p == nullptr) return;
  bytes_left += static_cast<int64_t>(size_of_block(p));
  free_block(p);
}

void* stb_realloc(void* p, size_t size) {
  void* fresh = stb_malloc(size);
  if (fresh != nullptr && p != nullptr) {
    const size_t old = size_of_block(p);
    std::memcpy(fresh, p, old < size ? old : size);
    stb_free(p);
  }
  return fresh;
}

// Refills the bit buffer. When the library's own refill meets a marker it returns with too few bits, and a later shift
// by more than 31 follows; a second call then tops up with the zeros that it feeds from there on.
template <typename Jpeg>
void refill(Jpeg* j) {
  stbi_refill_once(j);
  if (j->nomore != 0 && j->code_bits <= 24) stbi_refill_once(j);
}

}  // namespace
}  // namespace nibble::data_detail

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS 16384
#define STBI_ASSERT(x) ((void)0)
#define STBI_MALLOC(size) nibble::data_detail::stb_malloc(size)
#define STBI_REALLOC(p, size) nibble::data_detail::stb_realloc(p, size)
#define STBI_FREE(p) nibble::data_detail::stb_free(p)
// Renames the definition of the library's refill, whose parameter list starts with the type, and sends its calls,
// whose argument is named j or z, to refill() above.
#define NIBBLE_REFILL_PASTE(x) NIBBLE_REFILL_##x)
#define NIBBLE_REFILL_stbi__jpeg stbi_refill_once(stbi__jpeg
#define NIBBLE_REFILL_j nibble::data_detail::refill(j
#define NIBBLE_REFILL_z nibble::data_detail::refill(z
#define stbi__grow_buffer_unsafe(x) NIBBLE_REFILL_PASTE(x)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace nibble::data_detail {

StbImage stb_decode(std::span<const uint8_t> stream, int64_t budget) {
  StbImage image;
  bytes_left = budget;
  machine_lacks_memory = false;
  int channels = 0;
  uint8_t* rgb = stbi_load_from_memory(stream.data(), static_cast<int>(stream.size()), &image.width, &image.height,
                                       &channels, STBI_rgb);
  if (rgb == nullptr) {
    if (machine_lacks_memory) throw std::bad_alloc();
    const char* reason = stbi_failure_reason();
    image.error = reason != nullptr ? reason : "unknown damage";
    return image;
  }
  image.rgb = std::shared_ptr<const uint8_t[]>(rgb, [](const uint8_t* p) { free_block(p); });
  return image;
}

}  // namespace nibble::data_detail
