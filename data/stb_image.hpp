// stb_image behind a narrow door: checked streams in, RGB out, memory counted against a budget.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace nibble::data_detail {

struct StbImage {
  int width = 0;
  int height = 0;
  std::shared_ptr<const uint8_t[]> rgb;  // null: failed
  std::string error;
};

/// Decodes a stream from check_jpeg or check_png; allocates at most `budget` bytes at one time.
StbImage stb_decode(std::span<const uint8_t> stream, int64_t budget);

}  // namespace nibble::data_detail
