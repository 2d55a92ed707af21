// The one translation unit with stb_image_write.
#include "data/synth.hpp"
#include "engine/error.hpp"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

namespace nibble {

std::vector<uint8_t> encode_jpeg(std::span<const uint8_t> rgb, int width, int height, int quality) {
  if (width < 1 || height < 1 || rgb.size() != size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height))
    throw ShapeError("[encode_jpeg] {} bytes are not {}x{} RGB pixels", rgb.size(), width, height);
  std::vector<uint8_t> out;
  const auto append = [](void* context, void* data, int size) {
    auto* bytes = static_cast<uint8_t*>(data);
    static_cast<std::vector<uint8_t>*>(context)->insert(static_cast<std::vector<uint8_t>*>(context)->end(), bytes,
                                                        bytes + size);
  };
  if (stbi_write_jpg_to_func(append, &out, width, height, 3, rgb.data(), quality) == 0)
    throw UnsupportedError("[encode_jpeg] a JPEG of {}x{} pixels cannot be written", width, height);
  return out;
}

}  // namespace nibble
