// Products on AMX tiles: 2 x 2 tiles of 16 x 16 sums, K steps of 64 bytes.
//
// A panel [k/kr][32 rows][64 bytes], B panel [k/kr][2 tiles][16 rows][64 bytes] where a B row holds 16 columns of one
// 4-byte group (four codes or two bf16). One palette serves every kernel. Nothing is called between the configuration
// and the last store: a task that ran in between could reconfigure the tiles.
#pragma once
#include "ops/kernels/generic/gemm.inl.hpp"
#include "ops/kernels/isa/amx/palette.hpp"
#include "ops/kernels/isa/avx512/join_rows.hpp"
#include "ops/kernels/isa/intrinsics.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

constexpr int kTileRows = 16, kTileBytes = 1024, kRowBytes = 64, kPanelRows = 32, kPanelColumns = 32;

enum class Product { kCodes, kBf16 };

// Tiles are named by literals, so what is done with one is a macro.

#define NIBBLE_MULTIPLY_TILES(sums, left, right) \
  if constexpr (kProduct == Product::kCodes)     \
    _tile_dpbusd(sums, left, right);             \
  else                                           \
    _tile_dpbf16ps(sums, left, right)

/// tiles 0..3 (sums) += tiles 4, 5 (rows) x tiles 6, 7 (columns), over all groups of a panel pair.
template <Product kProduct>
NIBBLE_INLINE void multiply_tiles(int groups, const std::byte* a, const std::byte* b) {
  for (int g = 0; g < groups; ++g, a += 2 * kTileBytes, b += 2 * kTileBytes) {
    _tile_loadd(4, a, kRowBytes);
    _tile_loadd(6, b, kRowBytes);
    _tile_loadd(5, a + kTileBytes, kRowBytes);
    _tile_loadd(7, b + kTileBytes, kRowBytes);
    NIBBLE_MULTIPLY_TILES(0, 4, 6);
    NIBBLE_MULTIPLY_TILES(1, 4, 7);
    NIBBLE_MULTIPLY_TILES(2, 5, 6);
    NIBBLE_MULTIPLY_TILES(3, 5, 7);
  }
}

template <Product kProduct, typename C>
__attribute__((noinline)) void run_amx(int k, int rows, const void* a, int64_t a_panel_bytes, const void* b, C* c,
                                       int64_t ldc, Into into, const void* /*next_b*/) {
  constexpr int kKr = kProduct == Product::kCodes ? 64 : 32;
  // GCC 12's tile loads do not say that they read memory: pending stores to the panels have to be done before them.
  __asm__ volatile("" ::: "memory");
  _tile_loadconfig(&kTileConfig);
  const int64_t c_stride = ldc * 4;
  for (int p = 0; p * kPanelRows < rows; ++p) {
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
    multiply_tiles<kProduct>(k / kKr, static_cast<const std::byte*>(a) + p * a_panel_bytes,
                             static_cast<const std::byte*>(b));
    _tile_stored(0, top, c_stride);
    _tile_stored(1, top + 16, c_stride);
    _tile_stored(2, low, c_stride);
    _tile_stored(3, low + 16, c_stride);
  }
  _tile_release();
}

void begin_tiles() {
  _tile_loadconfig(&kTileConfig);
}
void end_tiles() {
  _tile_release();
}

/// Prefetches the two tiles of a panel that are multiplied four steps later, or in the next panel: 8 KiB, about what a
/// core has in flight at once.
NIBBLE_INLINE void ask_ahead(const std::byte* b) {
  constexpr int kTiles = 2, kSteps = 4;
  const auto* const at = reinterpret_cast<const char*>(b) + kSteps * kTiles * kTileBytes;
  NIBBLE_UNROLL_ALL for (int i = 0; i < kTiles * kTileBytes; i += kRowBytes) _mm_prefetch(at + i, _MM_HINT_T1);
}

/// Stores a tile of the sums that are held, the one from `row` and `column` on, if they have it.
#define NIBBLE_STORE_HELD(tile, row, column) \
  if (held.rows > (row)) _tile_stored(tile, held.c + (row)*held.ldc + (column), held.ldc * 4)

/// Begins a tile of sums with sixteen copies of a part of `start` (rows zero bytes apart), or with zeros.
#define NIBBLE_START_TILE(tile, column) \
  if (start == nullptr)                 \
    _tile_zero(tile);                   \
  else                                  \
    _tile_loadd(tile, start + (column), 0)

template <typename C>
void store_held(const HeldSums<C>& held) {
  NIBBLE_STORE_HELD(0, 0, 0);
  NIBBLE_STORE_HELD(1, 0, 16);
  NIBBLE_STORE_HELD(2, kTileRows, 0);
  NIBBLE_STORE_HELD(3, kTileRows, 16);
  __asm__ volatile("" ::: "memory");
}

/// 16 * kHigh rows of `rows` by 32 columns, the whole depth in tiles. The panel passes by (streaming loads), so that
/// the rows stay in L1: 31 to 40 ns per step of 2 x 2 tiles instead of 43, of which 23 are the products alone. The
/// first step stores every held tile just before it multiplies into it: four stores in a row keep the products waiting.
/// Tried: prefetching the rows of the next block of a 1x1 convolution: a tenth slower, they come in time by themselves.
template <Product kProduct, int kHigh, bool kAhead, typename C>
NIBBLE_INLINE void multiply_strided(const StridedRows& rows, const std::byte* panel, const C* start,
                                    const HeldSums<C>& held) {
  const auto* const first = static_cast<const std::byte*>(rows.first);
  const int64_t stride = rows.row_bytes;
  bool turned = rows.segment_count == 0 || rows.groups == 0;
  if (kHigh == 1 || turned) store_held(held);
  if (turned) {
    NIBBLE_START_TILE(0, 0);
    NIBBLE_START_TILE(1, 16);
    NIBBLE_START_TILE(2, 0);
    NIBBLE_START_TILE(3, 16);
  }
  for (int s = 0; s < rows.segment_count; ++s) {
    const std::byte *a = first + rows.segments[s].rows, *b = panel + rows.segments[s].panel;
    for (int g = 0; g < rows.groups; ++g, a += kRowBytes, b += 2 * kTileBytes, turned = true) {
      if constexpr (kAhead) ask_ahead(b);
      _tile_loadd(4, a, stride);
      _tile_stream_loadd(6, b, kRowBytes);
      if constexpr (kHigh == 2) _tile_loadd(5, a + kTileRows * stride, stride);
      _tile_stream_loadd(7, b + kTileBytes, kRowBytes);
      if (!turned) {
        if constexpr (kHigh == 2) NIBBLE_STORE_HELD(0, 0, 0);
        NIBBLE_START_TILE(0, 0);
      }
      NIBBLE_MULTIPLY_TILES(0, 4, 6);
      if (!turned) {
        if constexpr (kHigh == 2) NIBBLE_STORE_HELD(1, 0, 16);
        NIBBLE_START_TILE(1, 16);
      }
      NIBBLE_MULTIPLY_TILES(1, 4, 7);
      if constexpr (kHigh == 2) {
        if (!turned) {
          NIBBLE_STORE_HELD(2, kTileRows, 0);
          NIBBLE_START_TILE(2, 0);
        }
        NIBBLE_MULTIPLY_TILES(2, 5, 6);
        if (!turned) {
          NIBBLE_STORE_HELD(3, kTileRows, 16);
          NIBBLE_START_TILE(3, 16);
        }
        NIBBLE_MULTIPLY_TILES(3, 5, 7);
      }
    }
  }
}
#undef NIBBLE_START_TILE
#undef NIBBLE_MULTIPLY_TILES

template <Product kProduct, typename C>
__attribute__((noinline)) void run_strided(const StridedRows& a, int rows, const void* b, PanelIn where, const C* start,
                                           const HeldSums<C>& held) {
  __asm__ volatile("" ::: "memory");  // as in run_amx
  const auto* const panel = static_cast<const std::byte*>(b);
  if (rows <= kTileRows)
    multiply_strided<kProduct, 1, false>(a, panel, start, held);
  else if (where == PanelIn::kMemory)
    multiply_strided<kProduct, 2, true>(a, panel, start, held);
  else
    multiply_strided<kProduct, 2, false>(a, panel, start, held);
  __asm__ volatile("" ::: "memory");
}

/// Up to 64 of the `bytes` bytes at p, zeros after them and for a row that is missing.
NIBBLE_INLINE Words::V row_or_zero(const void* p, int64_t offset, int bytes, bool present) {
  return present && bytes > 0 ? Words::first_bytes(static_cast<const std::byte*>(p) + offset, bytes) : Words::zero();
}

/// Rows into [group][32][64 bytes], zeros beyond the data.
template <typename T>
void pack_tile_rows(const T* const* rows, int m, int k, void* panel) {
  auto* to = static_cast<uint32_t*>(panel);
  const int bytes = k * static_cast<int>(sizeof(T));
  for (int at = 0; at < bytes; at += kRowBytes)
    for (int r = 0; r < kPanelRows; ++r, to += Words::kLanes)
      Words::store(to, row_or_zero(r < m ? rows[r] : nullptr, at, bytes - at, r < m));
}

/// B from columns contiguous in k: 16 columns x 16 words are transposed at a time.
template <typename T>
void pack_tiles_from_columns(const T* src, int64_t n_stride, int k, int columns, uint32_t* to) {
  const int bytes = k * static_cast<int>(sizeof(T));
  for (int at = 0; at < bytes; at += kRowBytes) {
    for (int t = 0; t < kPanelColumns; t += Words::kLanes) {
      Words::V v[Words::kLanes];
      NIBBLE_UNROLL_ALL for (int n = 0; n < Words::kLanes; ++n) v[n] =
          row_or_zero(src + (t + n < columns ? t + n : 0) * n_stride, at, bytes - at, t + n < columns);
      Words::transpose(v);
      NIBBLE_UNROLL_ALL for (int i = 0; i < Words::kLanes; ++i, to += Words::kLanes) Words::store(to, v[i]);
    }
  }
}

/// Element (k, n) into [group][tile][row of 4-byte groups][column][element of the group].
template <typename T, int kKr>
void pack_tile_columns(const T* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) {
  constexpr int kPer = 4 / sizeof(T);
  const int groups = (k + kKr - 1) / kKr;
  if (k_stride == 1) {
    pack_tiles_from_columns(src, n_stride, k, columns, static_cast<uint32_t*>(panel));
    return;
  }
  T* to = static_cast<T*>(panel);
  for (int g = 0; g < groups; ++g) {
    for (int t = 0; t < kPanelColumns; t += kTileRows) {
      for (int row = 0; row < kTileRows; ++row) {
        const int i0 = g * kKr + row * kPer;
        if constexpr (kPer == 2) {
          if (n_stride == 1) {
            const T* const at = i0 < k ? src + i0 * k_stride : nullptr;
            const T* const next = i0 + 1 < k ? src + (i0 + 1) * k_stride : nullptr;
            Words::store(reinterpret_cast<uint32_t*>(to), join_rows(at, next, t, columns - t));
            to += kTileRows * kPer;
            continue;
          }
        }
        for (int n = t; n < t + kTileRows; ++n)
          for (int i = i0; i < i0 + kPer; ++i) *to++ = n < columns && i < k ? src[i * k_stride + n * n_stride] : T{};
      }
    }
  }
}

/// rows[k][m] -> [group of 32 k][32 rows of m][32 k]: pairs of k are joined to words, then 16 x 16 words transposed.
template <typename S>
void pack_tile_transposed(const S* const* rows, int k, int columns, void* panel) {
  constexpr int kKr = 32;
  auto* to = static_cast<uint32_t*>(panel);
  const auto row = [&](int i) { return i < k ? rows[i] : nullptr; };
  for (int i0 = 0; i0 < k; i0 += kKr) {
    for (int t = 0; t < kPanelRows; t += Words::kLanes) {
      Words::V v[Words::kLanes];
      NIBBLE_UNROLL_ALL for (int j = 0; j < Words::kLanes; ++j) v[j] =
          join_rows(row(i0 + 2 * j), row(i0 + 2 * j + 1), t, columns - t);
      Words::transpose(v);
      NIBBLE_UNROLL_ALL for (int r = 0; r < Words::kLanes; ++r, to += Words::kLanes) Words::store(to, v[r]);
    }
  }
}

/// rows[k][offset + n] -> [group of 32 k][tile][16 pairs of k][16 columns][2 k]: two rows are joined to words.
template <typename S>
void pack_tile_gathered(const S* const* rows, int64_t offset, int k, int columns, void* panel) {
  constexpr int kKr = 32;
  auto* to = static_cast<uint32_t*>(panel);
  const auto row = [&](int i) { return i < k ? rows[i] + offset : nullptr; };
  for (int i0 = 0; i0 < k; i0 += kKr)
    for (int t = 0; t < kPanelColumns; t += kTileRows)
      for (int i = i0; i < i0 + kKr; i += 2, to += Words::kLanes)
        Words::store(to, join_rows(row(i), row(i + 1), t, columns - t));
}

constexpr GemmInt tile_gemm_codes() {
  GemmInt g;
  g.mr = kPanelRows;
  g.nr = kPanelColumns;
  g.kr = 64;
  g.a_bytes = g.b_bytes = 1;
  g.pack_a = pack_tile_rows<uint8_t>;
  g.pack_b = pack_tile_columns<int8_t, 64>;
  g.run = run_amx<Product::kCodes, int32_t>;
  g.run_strided = run_strided<Product::kCodes, int32_t>;
  g.store_held = store_held<int32_t>;
  g.strided_rows = kTileRows;
  g.begin = begin_tiles;
  g.end = end_tiles;
  return g;
}

constexpr GemmFloat<bf16> tile_gemm_bf16() {
  GemmFloat<bf16> g;
  g.mr = kPanelRows;
  g.nr = kPanelColumns;
  g.kr = 32;
  g.a_bytes = g.b_bytes = 2;
  g.pack_a = pack_tile_rows<bf16>;
  g.pack_a_transposed = pack_tile_transposed<bf16>;
  g.pack_b = pack_tile_columns<bf16, 32>;
  g.pack_b_rows = pack_tile_gathered<bf16>;
  g.pack_b_rows_u8 = pack_tile_gathered<uint8_t>;
  g.run = run_amx<Product::kBf16, float>;
  g.run_strided = run_strided<Product::kBf16, float>;
  g.store_held = store_held<float>;
  g.strided_rows = kTileRows;
  g.begin = begin_tiles;
  g.end = end_tiles;
  return g;
}

/// Products of known results by both instructions, packed and in place, with every way to load a tile, for systems that
/// promise tiles but do not keep their contents or lack an instruction.
template <Product kProduct, typename T, typename C>
bool probe_product(T three, T minus_two) {
  constexpr int kDepth = kRowBytes / static_cast<int>(sizeof(T)), kSums = kPanelRows * kPanelColumns;
  alignas(64) T a[kPanelRows * kDepth];
  alignas(64) T b[kPanelColumns * kDepth];
  alignas(64) C start[kPanelColumns];
  alignas(64) C packed[kSums];
  alignas(64) C in_place[kSums];
  for (T& v : a) v = three;
  for (T& v : b) v = minus_two;
  for (int n = 0; n < kPanelColumns; ++n) start[n] = static_cast<C>(n);
  for (int i = 0; i < kSums; ++i) packed[i] = in_place[i] = C{-1};
  run_amx<kProduct, C>(kDepth, 1, a, 2 * kTileBytes, b, packed, kPanelColumns, Into::kOverwrite, nullptr);
  const Segment segment{0, 0};
  const StridedRows rows{a, kRowBytes, &segment, 1, 1};
  begin_tiles();
  run_strided<kProduct, C>(rows, kPanelRows, b, PanelIn::kCache, start, HeldSums<C>{nullptr, 0, 0});
  store_held(HeldSums<C>{in_place, kPanelColumns, kPanelRows});
  end_tiles();
  __asm__ volatile("" ::: "memory");
  constexpr C kSum = C{kDepth} * 3 * -2;
  for (int i = 0; i < kSums; ++i)
    if (packed[i] != kSum || in_place[i] != kSum + static_cast<C>(i % kPanelColumns)) return false;
  return true;
}

bool probe_tiles() {
  constexpr uint16_t kThree = 0x4040, kMinusTwo = 0xc000;  // in bf16
  return probe_product<Product::kCodes, uint8_t, int32_t>(3, static_cast<uint8_t>(-2)) &&
         probe_product<Product::kBf16, uint16_t, float>(kThree, kMinusTwo);
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
