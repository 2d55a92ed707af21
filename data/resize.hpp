// Resizing: antialiased bilinear in fixed point, bit for bit what PIL's Image.resize(BILINEAR) gives (Pillow to 12;
// Pillow 13 runs the vertical pass first for some sizes, which rounds differently).
#pragma once
#include <cstdint>

#include "data/decode.hpp"

namespace nibble {

/// A rectangle in pixels.
struct Box {
  int x = 0;
  int y = 0;
  int width = 0;
  int height = 0;
  bool operator==(const Box&) const = default;
};

struct ResizeArgs {
  Box crop;       // part of the image that is resized; pixels outside it have no influence
  int width = 0;  // size the crop is resized to
  int height = 0;
  Box window;  // part of that result which is wanted; the rest is never computed
};

/// Writes window.height x window.width x 3 bytes to `out`: the window of image.crop(crop).resize((width, height)).
/// Each output pixel is the mean, weighted by a triangle, of the input pixels under it: half-width 1 when enlarging,
/// `scale` when shrinking. Weights are rounded to 22 bits; rows first, then columns, rounded to bytes after each pass.
/// Errors   ShapeError when a box leaves its frame, or the image has a size but no pixels.
/// Exact?   equal to Pillow's ImagingResample (tested against stored results); integer sums, the same on every CPU.
/// Threads  safe to call concurrently.
/// Cost     3 * (crop rows under the window * window.width * 2 sx + window pixels * 2 sy) multiplications, s = max(1,
///          scale); two tables of weights and crop rows * window.width * 3 bytes of memory.
void resize_bilinear(const Image& image, const ResizeArgs& args, uint8_t* out);

}  // namespace nibble
