// Checked image streams: a file is parsed here once, every length and table verified, and rewritten; decoders only
// ever see the rewritten stream, so that they cannot read a damaged header differently from the check.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/error.hpp"

namespace nibble::data_detail {

/// DataError "cannot decode PATH: WHY; replace or remove the file".
[[noreturn]] void reject(const std::string& path, const std::string& why);

/// Checks the sides, the pixel count and `peak_bytes`, an estimate of what decoding needs.
void check_limits(const std::string& path, int64_t width, int64_t height);
void check_memory(const std::string& path, int64_t peak_bytes);

struct JpegStream {
  int width = 0;
  int height = 0;
  int components = 0;           // 1, 3 or 4
  bool has_adobe = false;       // an Adobe marker: four channels are stored inverted
  int adobe_transform = -1;     // 0 CMYK, 2 YCCK
  bool standard_tables = true;  // every scan's Huffman tables are in the file (Motion-JPEG frames leave them out)
  bool truncated = false;       // the file ends before its end-of-image marker
  int orientation = 1;          // EXIF's
  std::vector<uint8_t> bytes;   // SOI ... EOI without comments, metadata and garbage between segments
};

/// Accepts 8-bit baseline, extended and progressive Huffman JPEG; throws DataError for everything else (arithmetic,
/// lossless, hierarchical, 12 bits: the two decoders would disagree on them) and for invalid tables or scans.
JpegStream check_jpeg(std::span<const uint8_t> file, const std::string& path);

struct PngStream {
  int width = 0;
  int height = 0;
  int64_t budget = 0;          // bytes a decoder may have allocated at one time
  std::vector<uint8_t> bytes;  // IHDR, PLTE (padded to 256 black entries), one IDAT after another, IEND
};

/// Verifies structure and checksums of the critical chunks; drops all others (transparency included: alpha is unused).
PngStream check_png(std::span<const uint8_t> file, const std::string& path);

inline int read_be16(const uint8_t* p) {
  return p[0] << 8 | p[1];
}
inline uint32_t read_be32(const uint8_t* p) {
  return static_cast<uint32_t>(read_be16(p)) << 16 | static_cast<uint32_t>(read_be16(p + 2));
}

}  // namespace nibble::data_detail
