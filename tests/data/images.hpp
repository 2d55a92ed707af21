// Images made from a formula, files of them, and a hash of bytes.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "data/decode.hpp"
#include "data/turbo_jpeg.hpp"

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

/// Those of this build.
inline std::vector<Decoder> decoders() {
  std::vector<Decoder> all = {Decoder::stb};
  if (data_detail::have_turbo()) all.push_back(Decoder::turbo);
  return all;
}

/// 64-bit FNV-1a.
inline uint64_t hash_of(std::span<const uint8_t> bytes) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const uint8_t b : bytes) h = (h ^ b) * 0x100000001b3u;
  return h;
}

/// An 8x8 gray baseline JPEG whose one block holds a DC of zero: (code 0 = size 0), then end of block (code 0).
inline std::vector<uint8_t> tiny_jpeg(int width = 8, int height = 8) {
  std::vector<uint8_t> f = {0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0};
  f.insert(f.end(), 64, 1);
  const auto high = [](int v) { return static_cast<uint8_t>(v >> 8); };
  const auto low = [](int v) { return static_cast<uint8_t>(v & 255); };
  const std::vector<uint8_t> sof = {0xFF,       0xC0, 0, 11,   8, high(height), low(height), high(width),
                                    low(width), 1,    1, 0x11, 0};
  f.insert(f.end(), sof.begin(), sof.end());
  for (const uint8_t kind : {uint8_t{0x00}, uint8_t{0x10}}) {
    const std::vector<uint8_t> dht = {0xFF, 0xC4, 0, 20, kind, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    f.insert(f.end(), dht.begin(), dht.end());
  }
  const std::vector<uint8_t> sos = {0xFF, 0xDA, 0, 8, 1, 1, 0x00, 0, 63, 0, 0x3F, 0xFF, 0xD9};
  f.insert(f.end(), sos.begin(), sos.end());
  return f;
}

inline void put_be32(std::vector<uint8_t>& out, uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(v >> shift));
}

inline void put_chunk(std::vector<uint8_t>& out, const char* type, std::span<const uint8_t> body) {
  put_be32(out, static_cast<uint32_t>(body.size()));
  const size_t begin = out.size();
  out.insert(out.end(), type, type + 4);
  out.insert(out.end(), body.begin(), body.end());
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = begin; i < out.size(); ++i) {
    crc ^= out[i];
    for (int k = 0; k < 8; ++k) crc = (crc & 1) != 0 ? 0xEDB88320u ^ (crc >> 1) : crc >> 1;
  }
  put_be32(out, ~crc);
}

/// Forms of PNG: bits per sample and the colour type of the header.
struct PngForm {
  uint8_t depth = 8, colour = 2;
  bool interlaced = false;
};

struct PngChunk {
  const char* type;
  std::vector<uint8_t> body;
};

/// A PNG of these filtered rows, deflate blocks stored; `before_data` stands before its data.
inline std::vector<uint8_t> png_file(int width, int height, const PngForm& form, std::span<const uint8_t> rows,
                                     const std::vector<PngChunk>& before_data = {}) {
  std::vector<uint8_t> stream = {0x78, 0x01};
  uint32_t a = 1, b = 0;
  for (size_t at = 0; at < rows.size(); at += 65535) {
    const size_t n = std::min<size_t>(65535, rows.size() - at);
    stream.push_back(at + n == rows.size() ? 1 : 0);
    for (const size_t v : {n, ~n})
      for (const int shift : {0, 8}) stream.push_back(static_cast<uint8_t>(v >> shift));
    stream.insert(stream.end(), rows.begin() + static_cast<std::ptrdiff_t>(at),
                  rows.begin() + static_cast<std::ptrdiff_t>(at + n));
  }
  for (const uint8_t v : rows) {
    a = (a + v) % 65521;
    b = (b + a) % 65521;
  }
  put_be32(stream, b << 16 | a);
  std::vector<uint8_t> header, file = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  put_be32(header, static_cast<uint32_t>(width));
  put_be32(header, static_cast<uint32_t>(height));
  header.insert(header.end(), {form.depth, form.colour, 0, 0, static_cast<uint8_t>(form.interlaced ? 1 : 0)});
  put_chunk(file, "IHDR", header);
  for (const PngChunk& chunk : before_data) put_chunk(file, chunk.type, chunk.body);
  put_chunk(file, "IDAT", stream);
  put_chunk(file, "IEND", {});
  return file;
}

/// 8-bit RGB whose pixel (x, y) is {x, y, x + y}, rows without filter; passes of Adam7 or one.
inline std::vector<uint8_t> formula_png(int width, int height, bool interlaced) {
  constexpr int kAdam7[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
  constexpr int kWhole[1][4] = {{0, 0, 1, 1}};
  std::vector<uint8_t> rows;
  const std::span<const int[4]> passes = interlaced ? std::span<const int[4]>(kAdam7) : std::span<const int[4]>(kWhole);
  for (const auto& [x0, y0, dx, dy] : passes)
    for (int y = y0; y < height && x0 < width; y += dy) {
      rows.push_back(0);
      for (int x = x0; x < width; x += dx)
        for (const int v : {x, y, x + y}) rows.push_back(static_cast<uint8_t>(v));
    }
  return png_file(width, height, {.interlaced = interlaced}, rows);
}

}  // namespace nibble::testing
