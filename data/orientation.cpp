#include "data/orientation.hpp"

#include <cstring>
#include <utility>

namespace nibble {

namespace {

/// Reads a TIFF structure of either byte order; what lies outside reads as 0.
class Tiff {
 public:
  explicit Tiff(std::span<const uint8_t> bytes) : bytes_(bytes) {
    big_ = bytes.size() >= 2 && bytes[0] == 'M' && bytes[1] == 'M';
    known_ = big_ || (bytes.size() >= 2 && bytes[0] == 'I' && bytes[1] == 'I');
  }
  bool known() const { return known_ && u16(2) == 42; }
  uint32_t u16(uint64_t at) const {
    if (at + 2 > bytes_.size()) return 0;
    const uint32_t a = bytes_[at], b = bytes_[at + 1];
    return big_ ? a << 8 | b : b << 8 | a;
  }
  uint32_t u32(uint64_t at) const { return big_ ? u16(at) << 16 | u16(at + 2) : u16(at + 2) << 16 | u16(at); }

 private:
  std::span<const uint8_t> bytes_;
  bool big_ = false, known_ = false;
};

}  // namespace

int exif_orientation(std::span<const uint8_t> app1) {
  constexpr uint32_t kOrientation = 0x0112, kShort = 3, kAsStored = 1;
  constexpr char kExif[] = "Exif\0";  // and the 0 of the literal
  if (app1.size() < sizeof(kExif) || std::memcmp(app1.data(), kExif, sizeof(kExif)) != 0) return kAsStored;
  const Tiff tiff(app1.subspan(sizeof(kExif)));
  if (!tiff.known()) return kAsStored;
  const uint64_t directory = tiff.u32(4), entries = tiff.u16(directory);
  for (uint64_t i = 0; i < entries; ++i) {  // 65,535 at most
    const uint64_t entry = directory + 2 + 12 * i;
    if (tiff.u16(entry) != kOrientation) continue;
    const uint32_t value = tiff.u16(entry + 8);
    const bool valid = tiff.u16(entry + 2) == kShort && tiff.u32(entry + 4) == 1 && value >= 1 && value <= 8;
    return valid ? static_cast<int>(value) : kAsStored;
  }
  return kAsStored;
}

Image upright(const Image& image) {
  // Row 0 and column 0 of what is stored are, by orientation: 1 top, left; 2 top, right; 3 bottom, right; 4 bottom,
  // left; 5 left, top; 6 right, top; 7 right, bottom; 8 left, bottom.
  const int o = image.orientation;
  if (o < 2 || o > 8) return image;
  const bool sideways = o >= 5;
  const bool from_right = o == 2 || o == 3 || o == 6 || o == 7, from_bottom = o == 3 || o == 4 || o == 7 || o == 8;
  Image turned = image;
  turned.orientation = 1;
  if (sideways) std::swap(turned.width, turned.height);
  const std::shared_ptr<uint8_t[]> pixels(new uint8_t[image.bytes()]);
  for (int y = 0; y < turned.height; ++y) {
    const int v = from_bottom ? turned.height - 1 - y : y;
    uint8_t* to = pixels.get() + size_t{3} * static_cast<size_t>(y) * static_cast<size_t>(turned.width);
    for (int x = 0; x < turned.width; ++x, to += 3) {
      const int u = from_right ? turned.width - 1 - x : x;
      const size_t row = static_cast<size_t>(sideways ? u : v), column = static_cast<size_t>(sideways ? v : u);
      std::memcpy(to, image.pixels.get() + 3 * (row * static_cast<size_t>(image.width) + column), 3);
    }
  }
  turned.pixels = pixels;
  return turned;
}

}  // namespace nibble
