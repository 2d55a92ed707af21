// Products on AMX tiles: 2 x 2 tiles of 16 x 16 sums, K steps of 64 bytes.
//
// A panel [k/kr][32 rows][64 bytes], B panel [k/kr][2 tiles][16 rows][64 bytes] where a B row holds 16 columns of one
// 4-byte group (four codes or two bf16). One palette serves every kernel. Nothing is called between the configuration
// and the last store: a task that ran in between could reconfigure the tiles.
#pragma once
#include <immintrin.h>

#include "ops/kernels/generic/gemm.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

constexpr int kTileRows = 16, kTileBytes = 1024, kRowBytes = 64, kPanelRows = 32, kPanelColumns = 32;

/// Palette 1, eight tiles of 16 rows x 64 bytes (Intel SDM, LDTILECFG memory layout).
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

enum class Product { kCodes, kBf16 };

template <Product kProduct, typename C>
void run_amx(int k, int m_panels, const void* a, int64_t a_panel_bytes, const void* b, C* c, int64_t ldc, Into into) {
  constexpr int kKr = kProduct == Product::kCodes ? 64 : 32;
  static const TileConfig config;
  _tile_loadconfig(&config);
  const int64_t c_stride = ldc * 4;
  for (int p = 0; p < m_panels; ++p) {
    const std::byte* pa = static_cast<const std::byte*>(a) + p * a_panel_bytes;
    const std::byte* pb = static_cast<const std::byte*>(b);
    C* const top = c + p * kPanelRows * ldc;
    C* const low = top + kTileRows * ldc;
    if (into == Into::kAccumulate) {
      _tile_loadd(0, top, c_stride);
      _tile_loadd(1, top + 16, c_stride);
      _tile_loadd(2, low, c_stride);
      _tile_loadd(3, low + 16, c_stride);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int g = 0; g < k / kKr; ++g, pa += 2 * kTileBytes, pb += 2 * kTileBytes) {
      _tile_loadd(4, pa, kRowBytes);
      _tile_loadd(6, pb, kRowBytes);
      _tile_loadd(5, pa + kTileBytes, kRowBytes);
      _tile_loadd(7, pb + kTileBytes, kRowBytes);
      if constexpr (kProduct == Product::kCodes) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
      } else {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, top, c_stride);
    _tile_stored(1, top + 16, c_stride);
    _tile_stored(2, low, c_stride);
    _tile_stored(3, low + 16, c_stride);
  }
  _tile_release();
}

/// Rows of `kBytes`-wide elements into [group][32][64 bytes], zero beyond the data.
template <int kBytes>
void pack_tile_rows(const void* const* rows, int m, int k, void* panel) {
  auto* to = static_cast<std::byte*>(panel);
  const int row_bytes = k * kBytes, groups = (row_bytes + kRowBytes - 1) / kRowBytes;
  for (int g = 0; g < groups; ++g) {
    const int rest = row_bytes - g * kRowBytes, now = rest < kRowBytes ? rest : kRowBytes;
    for (int r = 0; r < kPanelRows; ++r, to += kRowBytes) {
      if (r < m && now == kRowBytes) {
        std::memcpy(to, static_cast<const std::byte*>(rows[r]) + g * kRowBytes, kRowBytes);
        continue;
      }
      std::memset(to, 0, kRowBytes);
      if (r < m) std::memcpy(to, static_cast<const std::byte*>(rows[r]) + g * kRowBytes, static_cast<size_t>(now));
    }
  }
}

void pack_codes_rows(const uint8_t* const* rows, int m, int k, void* panel) {
  pack_tile_rows<1>(reinterpret_cast<const void* const*>(rows), m, k, panel);
}
void pack_bf16_rows(const bf16* const* rows, int m, int k, void* panel) {
  pack_tile_rows<2>(reinterpret_cast<const void* const*>(rows), m, k, panel);
}

/// Element (k, n) into [group][tile][row of 4-byte groups][column][element of the group].
template <typename T, int kKr>
void pack_tile_columns(const T* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) {
  constexpr int kPer = 4 / sizeof(T);
  T* to = static_cast<T*>(panel);
  const int groups = (k + kKr - 1) / kKr;
  for (int g = 0; g < groups; ++g) {
    for (int t = 0; t < 2; ++t) {
      for (int row = 0; row < kTileRows; ++row) {
        for (int n = t * 16; n < t * 16 + 16; ++n) {
          for (int j = 0; j < kPer; ++j) {
            const int i = g * kKr + row * kPer + j;
            *to++ = n < columns && i < k ? src[i * k_stride + n * n_stride] : T{};
          }
        }
      }
    }
  }
}

/// rows[k][m] -> [group of 32 k][32 rows of m][32 k], converting codes to bf16 (exact).
template <typename S>
void pack_tile_transposed(const S* const* rows, int k, int columns, void* panel) {
  constexpr int kKr = 32;
  uint16_t* to = static_cast<uint16_t*>(panel);
  const int groups = (k + kKr - 1) / kKr;
  for (int g = 0; g < groups; ++g, to += kPanelRows * kKr) {
    for (int j = 0; j < kKr; ++j) {
      const int i = g * kKr + j;
      for (int r = 0; r < kPanelRows; ++r) {
        uint16_t bits = 0;
        if (i < k && r < columns) {
          const PanelFloat v(rows[i][r]);
          uint32_t word;
          __builtin_memcpy(&word, &v.value, sizeof word);
          bits = static_cast<uint16_t>(word >> 16);
        }
        to[r * kKr + j] = bits;
      }
    }
  }
}

constexpr GemmInt tile_gemm_codes() {
  GemmInt g;
  g.mr = kPanelRows;
  g.nr = kPanelColumns;
  g.kr = 64;
  g.a_bytes = g.b_bytes = 1;
  g.pack_a = pack_codes_rows;
  g.pack_b = pack_tile_columns<int8_t, 64>;
  g.run = run_amx<Product::kCodes, int32_t>;
  return g;
}

constexpr GemmFloat<bf16> tile_gemm_bf16() {
  GemmFloat<bf16> g;
  g.mr = kPanelRows;
  g.nr = kPanelColumns;
  g.kr = 32;
  g.a_bytes = g.b_bytes = 2;
  g.pack_a = pack_bf16_rows;
  g.pack_a_transposed = pack_tile_transposed<bf16>;
  g.pack_a_transposed_u8 = pack_tile_transposed<uint8_t>;
  g.pack_b = pack_tile_columns<bf16, 32>;
  g.run = run_amx<Product::kBf16, float>;
  return g;
}

/// One tile product of known result: sandboxes exist that promise tiles and fault or zero them.
bool probe_tiles() {
  alignas(64) static uint8_t a[2 * kTileBytes];
  alignas(64) static int8_t b[2 * kTileBytes];
  alignas(64) static int32_t c[kPanelRows * kPanelColumns];
  for (int i = 0; i < 2 * kTileBytes; ++i) {
    a[i] = 3;
    b[i] = -2;
  }
  run_amx<Product::kCodes, int32_t>(64, 1, a, 2 * kTileBytes, b, c, kPanelColumns, Into::kOverwrite);
  for (int32_t v : c)
    if (v != 64 * 3 * -2) return false;
  return true;
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
