// The tiled products of one ISA level, written once on a vocabulary of that level (contract: table.hpp).
//
// A level's gemm header defines, inside namespace nibble::kernels::NIBBLE_KERNEL_LEVEL and an anonymous namespace, the
// "arithmetic" types used below, and its products.hpp builds entries from them: float_gemm, quad_gemm, pair_gemm
// (gemm_pack.inl.hpp), byte_gemm (gemm_bytes.inl.hpp). An arithmetic type W has
//   kLanes            columns of one vector of C
//   kKr               neighbours in k that one step multiplies: a k-group
//   kGroupBytesA      bytes of a k-group of one row in an A panel; kGroupBytesB: of one column in a B panel
//   kUnroll           k-groups of one turn of the loop
//   C                 element of the result, int32_t or float
//   Acc, A, B         vector types of the accumulator, a broadcast of one row's k-group, and one vector of B
//   zero(), load_c(p), store_c(p, acc), load_b(p), broadcast(p), step(acc, a, b)
// Panels: A [k/kr][mr][kr], B [k/kr][nr][kr] elements, so segments concatenate along k.
//
// The tile height is the largest that leaves registers for the B vectors and one broadcast: 6 x 2 vectors of 16
// registers (AVX2), 14 x 2 of 32 (AVX-512).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "ops/kernels/table.hpp"

#if !defined(NIBBLE_KERNEL_LEVEL)
#error "define NIBBLE_KERNEL_LEVEL before including the GEMM kernels"
#endif

#if !defined(NIBBLE_INLINE)
#define NIBBLE_INLINE inline __attribute__((always_inline))
#endif
#if defined(NIBBLE_UNROLL_ALL)
#elif defined(__clang__)
#define NIBBLE_UNROLL_ALL _Pragma("unroll")
#else
#define NIBBLE_UNROLL_ALL _Pragma("GCC unroll 32")
#endif

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// A level's table: its products (isa/<level>/products.hpp) and the element-wise kernels.
constexpr Table with_elementwise(Table products, const Elementwise& ew) {
  products.ew = ew;
  return products;
}

/// One k-group of every row and column.
template <typename W, int kMr, int kNv>
NIBBLE_INLINE void step_group(typename W::Acc (&acc)[kMr][kNv], const std::byte* a, const std::byte* b) {
  typename W::B column[kNv];
  NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) column[v] = W::load_b(b + v * W::kLanes * W::kGroupBytesB);
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    const typename W::A row = W::broadcast(a + r * W::kGroupBytesA);
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) acc[r][v] = W::step(acc[r][v], row, column[v]);
  }
}

/// Prefetches the cache lines of kBytes bytes of B. Into the second-level cache alone was neither slower nor faster
/// (Zen 5).
template <int kBytes>
NIBBLE_INLINE void fetch(const std::byte* b) {
  NIBBLE_UNROLL_ALL for (int at = 0; at < kBytes; at += 64) __builtin_prefetch(b + at);
}

/// Which of several tiles fetches the next B panel, as long as it reads its own: the second one. The first reads a
/// panel that may still be on its way. A lone tile fetches, too. What it leaves out of its own (segments of zeros,
/// groups after the last whole round) it leaves out of the next.
NIBBLE_INLINE bool fetches(int tile, int tiles) {
  return tile == (tiles > 1 ? 1 : 0);
}

/// One tile of kMr rows, of an A panel of kPanelRows, by kNv vectors: acc = (C or 0) + sum over groups. kFetch: and the
/// B panel at `next` is fetched.
template <typename W, int kMr, int kNv, bool kFetch, int kPanelRows = kMr>
NIBBLE_INLINE void tile(int64_t groups, const std::byte* a, const std::byte* b, typename W::C* c, int64_t ldc,
                        Into into, const std::byte* next) {
  constexpr int kBytesA = kPanelRows * W::kGroupBytesA, kBytesB = kNv * W::kLanes * W::kGroupBytesB;
  typename W::Acc acc[kMr][kNv];
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) {
      acc[r][v] = into == Into::kAccumulate ? W::load_c(c + r * ldc + v * W::kLanes) : W::zero();
    }
  }
  for (; groups >= W::kUnroll; groups -= W::kUnroll, a += W::kUnroll * kBytesA, b += W::kUnroll * kBytesB) {
    if constexpr (kFetch) {
      fetch<W::kUnroll * kBytesB>(next);
      next += W::kUnroll * kBytesB;
    }
    NIBBLE_UNROLL_ALL for (int g = 0; g < W::kUnroll; ++g)
        step_group<W, kMr, kNv>(acc, a + g * kBytesA, b + g * kBytesB);
  }
  if constexpr (W::kUnroll > 1)
    for (; groups > 0; --groups, a += kBytesA, b += kBytesB) step_group<W, kMr, kNv>(acc, a, b);
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) {
      W::store_c(c + r * ldc + v * W::kLanes, acc[r][v]);
    }
  }
}

/// Kernels of 1 to kMost rows. No std::array, whose members would be symbols that levels share.
template <typename Kernel, int kMost>
struct ByRows {
  Kernel of_one_less[kMost];
  Kernel operator[](int rows) const { return of_one_less[rows - 1]; }
};

/// make(integral_constant<int, rows>) makes each.
template <typename Kernel, typename Make, int... kLess>
constexpr ByRows<Kernel, sizeof...(kLess)> by_rows(const Make& make, std::integer_sequence<int, kLess...> /*less*/) {
  return {{make(std::integral_constant<int, kLess + 1>{})...}};
}

/// A whole tile, or the one of a panel that is not full. A short tile always fetches (its own panel, if no other: half
/// the code for a prefetch or two per group).
template <typename W, int kMr, int kNv>
void run_tiles(int k, int rows, const void* a, int64_t a_panel_bytes, const void* b, typename W::C* c, int64_t ldc,
               Into into, const void* next_b) {
  using Tile = void (*)(int64_t, const std::byte*, const std::byte*, typename W::C*, int64_t, Into, const std::byte*);
  static constexpr auto kShort = by_rows<Tile>([](auto m) -> Tile { return &tile<W, m, kNv, true, kMr>; },
                                               std::make_integer_sequence<int, kMr - 1>{});
  const auto *const panel = static_cast<const std::byte*>(b), *const next = static_cast<const std::byte*>(next_b);
  const auto* of_panel = static_cast<const std::byte*>(a);
  const int panels = (rows + kMr - 1) / kMr;
  for (int p = 0; p < panels; ++p, of_panel += a_panel_bytes, rows -= kMr, c += kMr * ldc) {
    const bool fetching = next != nullptr && fetches(p, panels);
    if (rows < kMr)
      kShort[rows](k / W::kKr, of_panel, panel, c, ldc, into, fetching ? next : panel);
    else if (fetching)
      tile<W, kMr, kNv, true>(k / W::kKr, of_panel, panel, c, ldc, into, next);
    else
      tile<W, kMr, kNv, false>(k / W::kKr, of_panel, panel, c, ldc, into, nullptr);
  }
}

template <int kMr>
NIBBLE_INLINE bool all_zeros(const GatheredRows& a, const void* const* rows) {
  if (rows[0] != a.zeros || rows[kMr - 1] != a.zeros) return false;
  for (int r = 1; r < kMr - 1; ++r)
    if (rows[r] != a.zeros) return false;
  return a.zeros != nullptr;
}

/// One tile of rows that lie apart (GatheredRows), `first_rows` having an address for each of kMr. kFetch: and the B
/// panel at `next` is fetched.
template <typename W, int kMr, int kNv, bool kFetch>
NIBBLE_INLINE void tile_gathered(const GatheredRows& a, const void* const* first_rows, const std::byte* b,
                                 typename W::C* c, int64_t ldc, Into into, const std::byte* next) {
  constexpr int kBytesB = kNv * W::kLanes * W::kGroupBytesB;
  typename W::Acc acc[kMr][kNv];
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) {
      acc[r][v] = into == Into::kAccumulate ? W::load_c(c + r * ldc + v * W::kLanes) : W::zero();
    }
  }
  const int64_t bytes = int64_t{a.groups} * W::kGroupBytesA;
  for (int s = 0; s < a.segments; ++s) {
    const void* const* const rows = first_rows + s * a.segment_stride;
    if (all_zeros<kMr>(a, rows)) {
      b += a.groups * kBytesB;
      if constexpr (kFetch) next += a.groups * kBytesB;
      continue;
    }
    for (int64_t at = a.first_byte; at < a.first_byte + bytes; at += W::kGroupBytesA) {
      if constexpr (kFetch) {
        fetch<kBytesB>(next);
        next += kBytesB;
      }
      typename W::B column[kNv];
      NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v, b += W::kLanes * W::kGroupBytesB) column[v] = W::load_b(b);
      NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
        const typename W::A row = W::broadcast(static_cast<const std::byte*>(rows[r]) + at);
        NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) acc[r][v] = W::step(acc[r][v], row, column[v]);
      }
    }
  }
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) {
      W::store_c(c + r * ldc + v * W::kLanes, acc[r][v]);
    }
  }
}

/// Rows are divided evenly among as few tiles as hold them: 49 are 13, 12, 12 and 12, because a tile of few rows waits
/// for its own sums (16 as 14 and 2 would take 18 steps for 16).
template <typename W, int kMr, int kNv>
void run_gathered(const GatheredRows& a, int rows, const void* b, typename W::C* c, int64_t ldc, Into into,
                  const void* next_b) {
  using Tile = void (*)(const GatheredRows&, const void* const*, const std::byte*, typename W::C*, int64_t, Into,
                        const std::byte*);
  static constexpr auto kShort = by_rows<Tile>([](auto m) -> Tile { return &tile_gathered<W, m, kNv, true>; },
                                               std::make_integer_sequence<int, kMr - 1>{});
  const auto *const panel = static_cast<const std::byte*>(b), *const next = static_cast<const std::byte*>(next_b);
  const int tiles = (rows + kMr - 1) / kMr;
  for (int t = 0, r = 0; t < tiles; ++t) {
    const int m = (rows - r + tiles - t - 1) / (tiles - t);
    const bool fetching = next != nullptr && fetches(t, tiles);
    if (m < kMr)
      kShort[m](a, a.rows + r, panel, c + r * ldc, ldc, into, fetching ? next : panel);
    else if (fetching)
      tile_gathered<W, kMr, kNv, true>(a, a.rows + r, panel, c + r * ldc, ldc, into, next);
    else
      tile_gathered<W, kMr, kNv, false>(a, a.rows + r, panel, c + r * ldc, ldc, into, nullptr);
    r += m;
  }
}

/// Copies rows into [group][row][kr], converting each element from S to D; groups and rows beyond the data are zero.
template <typename S, typename D, int kMr, int kKr>
void pack_rows_plain(const S* const* rows, int m, int k, void* panel) {
  D* to = static_cast<D*>(panel);
  const int groups = (k + kKr - 1) / kKr;
  for (int r = 0; r < kMr; ++r) {
    for (int i = 0; i < groups * kKr; ++i) {
      D* const slot = to + (static_cast<int64_t>(i / kKr) * kMr + r) * kKr + i % kKr;
      *slot = r < m && i < k ? D(rows[r][i]) : D(0);
    }
  }
}

/// Element (k, n) = src[k*k_stride + n*n_stride] into [group][column][kr].
template <typename S, typename D, int kNr, int kKr>
void pack_columns_plain(const S* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) {
  D* to = static_cast<D*>(panel);
  const int groups = (k + kKr - 1) / kKr;
  for (int g = 0; g < groups; ++g) {
    for (int n = 0; n < kNr; ++n) {
      for (int j = 0; j < kKr; ++j) {
        const int i = g * kKr + j;
        *to++ = n < columns && i < k ? D(src[i * k_stride + n * n_stride]) : D(0);
      }
    }
  }
}

/// A number that converts from the operand types and is stored as a float: the element of fp32 panels.
struct PanelFloat {
  float value;
  PanelFloat() = default;
  explicit PanelFloat(int) : value(0) {}
  explicit PanelFloat(float v) : value(v) {}
  explicit PanelFloat(uint8_t v) : value(static_cast<float>(v)) {}
  explicit PanelFloat(bf16 v) {
    const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
    __builtin_memcpy(&value, &bits, sizeof value);
  }
};

/// rows[k][offset + n] -> [k][kWidth] floats: contiguous copies with conversion (vectorised by the compiler).
template <typename S, int kWidth>
void pack_gathered_plain(const S* const* rows, int64_t offset, int k, int columns, void* panel) {
  PanelFloat* to = static_cast<PanelFloat*>(panel);
  for (int i = 0; i < k; ++i, to += kWidth) {
    const S* from = rows[i] + offset;
    if (columns == kWidth) {
      NIBBLE_UNROLL_ALL for (int n = 0; n < kWidth; ++n) to[n] = PanelFloat(from[n]);
    } else {
      for (int n = 0; n < kWidth; ++n) to[n] = n < columns ? PanelFloat(from[n]) : PanelFloat(0);
    }
  }
}

/// rows[k][m] -> [k][mr] floats.
template <typename S, int kMr>
void pack_transposed_plain(const S* const* rows, int k, int columns, void* panel) {
  pack_gathered_plain<S, kMr>(rows, 0, k, columns, panel);
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
