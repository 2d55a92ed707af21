// Products of a block of gathered rows with panels, chunk by chunk of the depth: packed before, or where they lie if
// the kernel can.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "engine/scratch.hpp"
#include "ops/kernels/table.hpp"
#include "ops/memory_ahead.hpp"
#include "ops/panels.hpp"

namespace nibble {

/// Rows of one block: 48 is a multiple of every kernel's tile height except 14 and 32, which round up; with the longest
/// chunk below a block is at most 64 * 512 * 4 bytes = 128 KiB, a quarter of the smallest L2 we know.
inline constexpr int64_t kBlockRows = 48;
inline constexpr int64_t kChunkK = 512;

/// A part of the depth that is multiplied at once, packed before or not: a run of whole segments, or a part of one long
/// segment.
struct Chunk {
  int64_t tap = 0, taps = 1;  // segments [tap, tap + taps)
  int64_t k0 = 0, k = 0;      // elements [k0, k0 + k) of each, padding included

  int64_t depth() const { return taps * k; }
};

/// Calls body(chunk) in the one order of every sum, fixed by the shape of b.
template <typename Body>
void for_each_chunk(const Panels& b, int kr, const Body& body) {
  const int64_t part = round_up(std::min(b.segment_k, kChunkK), kr);
  const int64_t whole = b.segment_k > part ? 1 : std::max<int64_t>(1, kChunkK / b.segment_k);
  for (int64_t t = 0; t < b.segments; t += whole)
    for (int64_t k0 = 0; k0 < b.segment_k; k0 += part)
      body(Chunk{.tap = t, .taps = std::min(whole, b.segments - t), .k0 = k0, .k = std::min(part, b.segment_k - k0)});
}

/// Bytes of one A panel of a chunk.
template <typename Gemm>
int64_t chunk_panel_bytes(const Gemm& gemm, const Chunk& chunk) {
  return round_up(gemm.mr * chunk.depth() * gemm.a_bytes, static_cast<int64_t>(kAlignment));
}

/// Packs one chunk of `rows` gathered rows into A panels at `a`.
template <typename Gemm, typename T>
void pack_chunk(const Gemm& gemm, const Panels& b, const Chunk& chunk, const T* const* pointers, int64_t rows,
                std::byte* a) {
  constexpr int kMostRows = 64;
  const T* shifted[kMostRows];
  const int64_t panel_bytes = chunk_panel_bytes(gemm, chunk);
  const int k = static_cast<int>(std::min(chunk.k, b.k - chunk.k0));
  for (int64_t r0 = 0; r0 < rows; r0 += gemm.mr, a += panel_bytes) {
    const int m = static_cast<int>(std::min<int64_t>(gemm.mr, rows - r0));
    for (int64_t s = 0; s < chunk.taps; ++s) {
      const T* const* from = pointers + (chunk.tap + s) * rows + r0;
      if (chunk.k0 > 0) {
        for (int r = 0; r < m; ++r) shifted[r] = from[r] + chunk.k0;
        from = shifted;
      }
      gemm.pack_a(from, m, k, a + s * gemm.mr * chunk.k * gemm.a_bytes);
    }
  }
}

/// Whether the kernel multiplies gathered rows where they lie: packed panels are not needed then. Segments of floats
/// must fill their last group, because what lies after them might not be a number.
template <typename Gemm>
bool multiplies_in_place(const Gemm& gemm, const Panels& b) {
  using T = typename Gemm::Left;
  return gemm.run_gathered != nullptr && (std::is_integral_v<T> || b.k == b.segment_k);
}

/// Right operands up to this size stay in the second-level caches (512 KiB and more) together with a block.
inline constexpr int64_t kKeptPanelBytes = int64_t{256} << 10;

/// What a product prefetches while it multiplies: the part of the right operand that it multiplies next.
struct PanelsAhead {
  bool asked = false;               // false: the panels are in cache already
  const std::byte* then = nullptr;  // what is multiplied after the last part; null: nothing, or it is in cache
  MemoryAhead* source = nullptr;    // prefetched where the panels are in cache; null: nothing (Winograd gains nothing)

  const std::byte* take_source(int64_t piece_bytes) const {
    return source != nullptr ? source->take(piece_bytes) : nullptr;
  }
};

/// For a block that multiplies panels up to `last` of a task's [n0, n1): the first block brings all of them into the
/// second-level cache.
inline PanelsAhead panels_ahead(const Panels& b, int64_t n0, int64_t n1, int64_t last, bool first_block,
                                bool last_block, MemoryAhead* source = nullptr) {
  const bool kept = (n1 - n0) * b.panel_bytes <= kKeptPanelBytes;
  if (kept && !first_block) return {.source = source};
  return {true, last < n1 ? b.panel(last) : kept || last_block ? nullptr : b.panel(n0), source};
}

/// The part that is multiplied after panel n of this chunk, of panels [first, last).
inline const std::byte* next_part(const Panels& b, int64_t granule_bytes, const Chunk& chunk, int64_t n, int64_t first,
                                  int64_t last, const PanelsAhead& ahead) {
  if (!ahead.asked) return ahead.take_source(chunk.depth() * granule_bytes);
  const int64_t offset = (chunk.tap * b.segment_k + chunk.k0) * granule_bytes;
  if (n + 1 < last) return b.panel(n + 1) + offset;
  if (chunk.k0 + chunk.k < b.segment_k) return b.panel(first) + offset + chunk.k * granule_bytes;
  if (chunk.tap + chunk.taps < b.segments)
    return b.panel(first) + (chunk.tap + chunk.taps) * b.segment_k * granule_bytes;
  return ahead.then;
}

/// multiply_chunk without packing.
template <typename Gemm, typename T, typename C>
void multiply_chunk_in_place(const Gemm& gemm, const Panels& b, const Chunk& chunk, const T* const* pointers,
                             const T* zeros, int64_t rows, int64_t first, int64_t last, C* c, int64_t ldc,
                             kernels::Into into, const PanelsAhead& ahead) {
  const int64_t granule_bytes = int64_t{b.nr} * gemm.b_bytes;
  const int64_t offset = (chunk.tap * b.segment_k + chunk.k0) * granule_bytes;
  // Read as pointers to void, which compilers take for an alias of every pointer.
  const kernels::GatheredRows a{.rows = reinterpret_cast<const void* const*>(pointers + chunk.tap * rows),
                                .segment_stride = rows,
                                .segments = static_cast<int>(chunk.taps),
                                .first_byte = chunk.k0 * static_cast<int64_t>(sizeof(T)),
                                .groups = static_cast<int>(chunk.k / gemm.kr),
                                .zeros = zeros};
  for (int64_t n = first; n < last; ++n)
    gemm.run_gathered(a, static_cast<int>(rows), b.panel(n) + offset, c + (n - first) * b.nr, ldc, into,
                      next_part(b, granule_bytes, chunk, n, first, last, ahead));
}

/// Multiplies packed rows by panels [first, last) of b into c, whose column 0 is the first panel's.
template <typename Gemm, typename C>
void multiply_chunk(const Gemm& gemm, const Panels& b, const Chunk& chunk, const std::byte* a, int64_t rows,
                    int64_t first, int64_t last, C* c, int64_t ldc, kernels::Into into, const PanelsAhead& ahead) {
  const int64_t granule_bytes = int64_t{b.nr} * gemm.b_bytes;
  const int64_t offset = (chunk.tap * b.segment_k + chunk.k0) * granule_bytes;
  for (int64_t n = first; n < last; ++n)
    gemm.run(static_cast<int>(chunk.depth()), static_cast<int>(rows), a, chunk_panel_bytes(gemm, chunk),
             b.panel(n) + offset, c + (n - first) * b.nr, ldc, into,
             next_part(b, granule_bytes, chunk, n, first, last, ahead));
}

/// Multiplies `rows` gathered rows (pointers[t*rows + r], segments of b.k elements; `zeros` stands for a row of zeros)
/// by all panels of b into c [round_up(rows, mr), b.padded_columns()]. The order of every sum is fixed by the shape of
/// b.
template <typename Gemm, typename T, typename C>
void multiply_rows(const Gemm& gemm, const Panels& b, const T* const* pointers, int64_t rows, C* c, int64_t ldc,
                   const T* zeros = nullptr, const PanelsAhead& ahead = {}) {
  const int64_t m_panels = ceil_div(rows, gemm.mr);
  const bool in_place = multiplies_in_place(gemm, b);
  kernels::Into into = kernels::Into::kOverwrite;
  for_each_chunk(b, gemm.kr, [&](const Chunk& chunk) {
    if (in_place) {
      multiply_chunk_in_place(gemm, b, chunk, pointers, zeros, rows, 0, b.count(), c, ldc, into, ahead);
      into = kernels::Into::kAccumulate;
      return;
    }
    Scratch scratch;
    auto* a = scratch.get<std::byte>(static_cast<size_t>(m_panels * chunk_panel_bytes(gemm, chunk)));
    pack_chunk(gemm, b, chunk, pointers, rows, a);
    multiply_chunk(gemm, b, chunk, a, rows, 0, b.count(), c, ldc, into, ahead);
    into = kernels::Into::kAccumulate;
  });
}

}  // namespace nibble
