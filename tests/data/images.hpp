// Images made from a formula and a hash of bytes, shared by the tests of the data room.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "data/decode.hpp"

namespace nibble::testing {

/// Pixels from a formula that a few lines of Python repeat (numpy integers, & 255), so that PIL's results for the same
/// image could be stored as hashes.
inline Image formula_image(int width, int height) {
  std::shared_ptr<uint8_t[]> pixels(new uint8_t[size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height)]);
  size_t i = 0;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c)
        pixels[i++] = static_cast<uint8_t>(x * 7 + y * 13 + c * 29 + x * y * 3 + ((x * x + y * 31) >> 3) * 17);
  return {.width = width, .height = height, .pixels = std::move(pixels), .warning = {}};
}

/// 64-bit FNV-1a.
inline uint64_t hash_of(std::span<const uint8_t> bytes) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const uint8_t b : bytes) h = (h ^ b) * 0x100000001b3u;
  return h;
}

}  // namespace nibble::testing
