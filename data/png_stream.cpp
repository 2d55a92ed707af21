// The PNG check: chunk structure, checksums and the image header (PNG specification, W3C 2003, chapters 5 and 11).
#include <algorithm>
#include <array>
#include <cstring>

#include "data/decode.hpp"
#include "data/image_stream.hpp"

namespace nibble::data_detail {
namespace {

constexpr size_t kSignatureBytes = 8;
constexpr size_t kChunkOverhead = 12;  // length, type, checksum
constexpr size_t kPaletteBytes = 3 * 256;

// Checksum of PNG annex D (polynomial 0xEDB88320, reflected), one byte per step: 64 MiB take about 0.15 s.
uint32_t crc32(std::span<const uint8_t> bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t n = 0; n < 256; ++n) {
      uint32_t c = n;
      for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      t[n] = c;
    }
    return t;
  }();
  uint32_t c = 0xFFFFFFFFu;
  for (const uint8_t b : bytes) c = table[(c ^ b) & 0xFF] ^ (c >> 8);
  return ~c;
}

void put_be32(std::vector<uint8_t>& out, uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(v >> shift));
}

void put_chunk(std::vector<uint8_t>& out, const char* type, std::span<const uint8_t> body) {
  put_be32(out, static_cast<uint32_t>(body.size()));
  const size_t begin = out.size();
  out.insert(out.end(), type, type + 4);
  out.insert(out.end(), body.begin(), body.end());
  put_be32(out, crc32(std::span<const uint8_t>(out).subspan(begin)));
}

int channels_of(int colour_type) {
  switch (colour_type) {
    case 0:
    case 3:
      return 1;
    case 2:
      return 3;
    case 4:
      return 2;
    case 6:
      return 4;
    default:
      return 0;
  }
}

bool depth_fits(int depth, int colour_type) {
  if (depth == 8) return true;
  if (depth == 16) return colour_type != 3;
  return (depth == 1 || depth == 2 || depth == 4) && (colour_type == 0 || colour_type == 3);
}

void check_header(PngStream& out, std::span<const uint8_t> body, const std::string& path, size_t file_bytes) {
  if (body.size() != 13) reject(path, "the PNG header has a wrong length");
  const int64_t w = read_be32(body.data()), h = read_be32(body.data() + 4);
  const int depth = body[8], colour = body[9], channels = channels_of(colour);
  check_limits(path, w, h);
  if (channels == 0 || !depth_fits(depth, colour))
    reject(path, fmt::format("the PNG has colour type {} with {} bits, which does not exist", colour, depth));
  if (body[10] != 0 || body[11] != 0 || body[12] > 1) reject(path, "the PNG uses an unknown compression or filter");
  out.width = static_cast<int>(w);
  out.height = static_cast<int>(h);
  // Inflated rows with a filter byte each, samples as bytes or words (twice when interlaced), RGB in that width, and
  // the result. stb_image guesses the inflated size without the rows of the seven passes, nearly twice as many filter
  // bytes, and doubles its buffer when they do not fit: for a moment it has the guess and its double.
  const int64_t guess = (w * depth + 7) / 8 * channels * h + h;
  const int64_t rows = body[12] != 0 ? 3 * guess : guess + h + 64;
  const int64_t word = depth == 16 ? 2 : 1;
  const int64_t samples = w * h * channels * word * (body[12] != 0 ? 2 : 1);
  const int64_t rgb = 3 * w * h * word;
  const bool converts = channels != 3 || word == 2;
  out.budget = std::max(static_cast<int64_t>(file_bytes) * 2 + rows, rows + samples + (converts ? rgb : 0)) + 65536;
  check_memory(path, 2 * static_cast<int64_t>(file_bytes) + out.budget);
}

}  // namespace

PngStream check_png(std::span<const uint8_t> file, const std::string& path) {
  PngStream out;
  out.bytes.assign(file.begin(), file.begin() + kSignatureBytes);
  bool has_palette = false, has_data = false, ended = false;
  for (size_t at = kSignatureBytes; !ended;) {
    if (file.size() - at < kChunkOverhead) reject(path, "the PNG is cut short");
    const size_t length = read_be32(file.data() + at);
    if (length > file.size() - at - kChunkOverhead) reject(path, "the PNG is cut short");
    const char* type = reinterpret_cast<const char*>(file.data() + at + 4);
    const auto is = [&](const char* name) { return std::memcmp(type, name, 4) == 0; };
    const std::span<const uint8_t> body = file.subspan(at + 8, length);
    const uint32_t stored = read_be32(file.data() + at + 8 + length);
    const bool critical = (file[at + 4] & 0x20) == 0;
    if (out.width == 0 && !is("IHDR")) reject(path, "the PNG does not start with its header");
    if (critical && crc32(file.subspan(at + 4, length + 4)) != stored)
      reject(path, "the checksum of a PNG chunk is wrong");
    at += length + kChunkOverhead;
    if (is("IHDR")) {
      if (out.width != 0) reject(path, "the PNG has two headers");
      check_header(out, body, path, file.size());
      out.bytes.reserve(file.size() + kPaletteBytes);
      put_chunk(out.bytes, "IHDR", body);
    } else if (is("PLTE")) {
      if (has_palette || has_data || body.size() % 3 != 0 || body.empty() || body.size() > kPaletteBytes)
        reject(path, "the PNG has an invalid palette");
      // Indices past the palette become black instead of whatever the decoder's memory holds.
      std::array<uint8_t, kPaletteBytes> padded{};
      std::copy(body.begin(), body.end(), padded.begin());
      put_chunk(out.bytes, "PLTE", padded);
      has_palette = true;
    } else if (is("IDAT")) {
      put_chunk(out.bytes, "IDAT", body);
      has_data = true;
    } else if (is("IEND")) {
      ended = true;
    } else if (critical) {
      reject(path, "the PNG has an unknown critical chunk");
    }
  }
  if (!has_data) reject(path, "the PNG holds no image data");
  put_chunk(out.bytes, "IEND", {});
  return out;
}

}  // namespace nibble::data_detail
