// The AMX instructions that the kernels use, in software (Intel SDM: LDTILECFG, TILELOADD, TILESTORED, TDPBUSD,
// TDPBF16PS). A misuse that hardware answers with a fault ends the program with a message here.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace nibble::testing::emulated {
namespace {

struct Tile {
  int rows = 0, row_bytes = 0;
  alignas(4) std::byte cells[16][64] = {};
  template <typename T>
  T at(int row, int i) const {
    T v;
    std::memcpy(&v, cells[row] + i * static_cast<int>(sizeof(T)), sizeof v);
    return v;
  }
  template <typename T>
  void set(int row, int i, T v) {
    std::memcpy(cells[row] + i * static_cast<int>(sizeof(T)), &v, sizeof v);
  }
};

// A thread has tiles of its own, as a core has.
inline thread_local bool tiles_configured = false;
inline thread_local Tile tile_file[8];

[[noreturn]] inline void tile_fault(const char* why) {
  std::fprintf(stderr, "emulated AMX fault: %s\n", why);
  std::abort();
}
inline Tile& tile(int i) {
  if (!tiles_configured) tile_fault("a tile is used without a configuration");
  if (i < 0 || i > 7 || tile_file[i].rows == 0) tile_fault("a tile is used that the configuration leaves out");
  return tile_file[i];
}

inline void load_config(const void* memory) {
  uint8_t bytes[64];
  std::memcpy(bytes, memory, sizeof bytes);
  if (bytes[0] != 1) tile_fault("the palette is not 1");
  for (int i = 2; i < 16; ++i)
    if (bytes[i] != 0) tile_fault("a reserved byte of the configuration is set");
  for (int i = 0; i < 16; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof row_bytes);
    const uint8_t rows = bytes[48 + i];
    if (row_bytes > 64 || rows > 16 || (rows == 0) != (row_bytes == 0) || (i >= 8 && rows != 0))
      tile_fault("the configuration has a tile of impossible size");
    if (i >= 8) continue;
    tile_file[i] = Tile{};
    tile_file[i].rows = rows;
    tile_file[i].row_bytes = row_bytes;
  }
  tiles_configured = true;
}
inline void release_tiles() {
  tiles_configured = false;
  for (Tile& t : tile_file) t = Tile{};
}
inline void zero_tile(int i) {
  std::memset(tile(i).cells, 0, sizeof tile(i).cells);
}
inline void load_tile(int i, const void* base, int64_t stride) {
  zero_tile(i);
  for (int r = 0; r < tile(i).rows; ++r)
    std::memcpy(tile(i).cells[r], static_cast<const std::byte*>(base) + r * stride,
                static_cast<size_t>(tile(i).row_bytes));
}
inline void stream_tile(int i, const void* base, int64_t stride) {
  load_tile(i, base, stride);
  if (flaw == Flaw::kStreamedLoadLost) zero_tile(i);
}
inline void store_tile(int i, void* base, int64_t stride) {
  if (flaw == Flaw::kContentsLost) zero_tile(i);
  for (int r = 0; r < tile(i).rows; ++r)
    std::memcpy(static_cast<std::byte*>(base) + r * stride, tile(i).cells[r], static_cast<size_t>(tile(i).row_bytes));
}

inline void check_shapes(const Tile& c, const Tile& a, const Tile& b) {
  if (c.rows != a.rows || c.row_bytes != b.row_bytes || a.row_bytes / 4 != b.rows)
    tile_fault("the shapes of a tile product do not match");
}

/// c += a (unsigned bytes) * b (signed bytes, groups of four rows side by side), modulo 2^32.
inline void dot_codes(int to, int left, int right) {
  Tile& c = tile(to);
  const Tile &a = tile(left), &b = tile(right);
  check_shapes(c, a, b);
  int right_codes[16][64];
  for (int k = 0; k < b.rows; ++k)
    for (int i = 0; i < b.row_bytes; ++i) right_codes[k][i] = b.at<int8_t>(k, i);
  for (int m = 0; m < c.rows; ++m) {
    uint32_t sums[16];
    std::memcpy(sums, c.cells[m], sizeof sums);
    for (int k = 0; k < b.rows; ++k)
      for (int j = 0; j < 4; ++j) {
        const int code = a.at<uint8_t>(m, 4 * k + j);
        for (int n = 0; n < c.row_bytes / 4; ++n) sums[n] += static_cast<uint32_t>(code * right_codes[k][4 * n + j]);
      }
    std::memcpy(c.cells[m], sums, static_cast<size_t>(c.row_bytes));
  }
  if (flaw == Flaw::kLastSumWrong) {
    const int m = c.rows - 1, n = c.row_bytes / 4 - 1;
    c.set(m, n, c.at<uint32_t>(m, n) + 1);
  }
}

inline float real_at(const Tile& t, int row, int i) {
  const uint32_t bits = static_cast<uint32_t>(t.at<uint16_t>(row, i)) << 16;
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return flushed(v);
}

/// fma(a, b, c) of two bf16 and a float. Their product has 16 bits, so that a float in range has it exactly and one
/// addition rounds once; the library's function takes ten times as long.
inline float fma_of_bf16(float a, float b, float c) {
  const float product = a * b;
  const bool exact = std::abs(product) >= FLT_MIN && std::abs(product) <= FLT_MAX;
  return exact || a == 0 || b == 0 ? product + c : std::fma(a, b, c);
}

/// c += a * b, pairs of bf16: even and odd products are summed separately from zero by fused multiply-adds, then both
/// sums are added to c (the SDM's pseudocode); denormals count as zero.
inline void dot_bf16(int to, int left, int right) {
  Tile& c = tile(to);
  const Tile &a = tile(left), &b = tile(right);
  check_shapes(c, a, b);
  float right_values[16][32];
  for (int k = 0; k < b.rows; ++k)
    for (int i = 0; i < b.row_bytes / 2; ++i) right_values[k][i] = real_at(b, k, i);
  for (int m = 0; m < c.rows; ++m) {
    float sums[16][2] = {};
    for (int k = 0; k < b.rows; ++k)
      for (int j = 0; j < 2; ++j) {
        const float value = real_at(a, m, 2 * k + j);
        for (int n = 0; n < c.row_bytes / 4; ++n)
          sums[n][j] = flushed(fma_of_bf16(value, right_values[k][2 * n + j], sums[n][j]));
      }
    for (int n = 0; n < c.row_bytes / 4; ++n)
      c.set(m, n, flushed(flushed(c.at<float>(m, n)) + flushed(sums[n][0] + sums[n][1])));
  }
  if (flaw == Flaw::kLastRealSumWrong) {
    const int m = c.rows - 1, n = c.row_bytes / 4 - 1;
    c.set(m, n, c.at<float>(m, n) + 1);
  }
}

}  // namespace
}  // namespace nibble::testing::emulated

// The compiler's own are macros.
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig(p) nibble::testing::emulated::load_config(p)
#define _tile_release() nibble::testing::emulated::release_tiles()
#define _tile_zero(i) nibble::testing::emulated::zero_tile(i)
#define _tile_loadd(i, base, stride) nibble::testing::emulated::load_tile(i, base, stride)
#define _tile_stream_loadd(i, base, stride) nibble::testing::emulated::stream_tile(i, base, stride)
#define _tile_stored(i, base, stride) nibble::testing::emulated::store_tile(i, base, stride)
#define _tile_dpbusd(c, a, b) nibble::testing::emulated::dot_codes(c, a, b)
#define _tile_dpbf16ps(c, a, b) nibble::testing::emulated::dot_bf16(c, a, b)
