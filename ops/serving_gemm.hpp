// The convolution engine of serving: the same products as in gather_gemm.hpp, cut by free threads and handed on a few
// hot columns at a time.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "engine/parallel.hpp"
#include "engine/scratch.hpp"
#include "ops/gather.hpp"
#include "ops/product_hooks.hpp"
#include "ops/row_products.hpp"

namespace nibble {

/// How a product is cut when only its speed depends on it (exact sums, or sums whose order the depth alone fixes):
/// `tasks` pieces of about equal size for the threads that have nothing else to do; by points, or by panels where
/// points are few.
struct ServingCut {
  int64_t point_parts = 1, panel_parts = 1;

  int64_t tasks() const { return point_parts * panel_parts; }
};
ServingCut cut_for_serving(const Gather& g, const Panels& b, int64_t workers);

/// Rows of a block: 48 as above, or fewer so that blocks of `points` are alike (196 points: 42 each, not 48 and 4).
/// One image took 1.00 to 1.02 times as long in blocks of 28, 1.06 in blocks of 14 (one thread of a Zen 5).
int64_t serving_block_rows(int64_t points, int64_t mr);

struct ServingGemmArgs {
  const Gather& gather;
  const Panels& panels;
  int64_t workers = 1;        // threads this product may keep busy
  int64_t block_columns = 0;  // columns the epilogue gets at a time, rounded up to a panel; 0: all
};

/// The gathered product of the executor. Where rows are packed, blocks whose packed rows are smaller than their sums
/// (expanding 1x1 layers) are packed once, over the whole depth; then a few columns at a time are multiplied and handed
/// to `epilogue(first_point, rows, first_column, columns, c, ldc, next)` while they are hot. The others go chunk by
/// chunk. start: [padded columns] what the sums begin with; null: zero.
template <typename C, typename T, typename Gemm, typename Source, typename Epilogue>
void serving_gemm(const Gemm& gemm, const ServingGemmArgs& args, const C* start, const Source& source,
                  const Epilogue& epilogue) {
  const Gather& g = args.gather;
  const Panels& b = args.panels;
  const ServingCut cut = cut_for_serving(g, b, args.workers);
  const bool in_place = multiplies_in_place(gemm, b);
  const bool expands = b.segments * b.segment_k * gemm.a_bytes <= b.padded_columns() * static_cast<int64_t>(sizeof(C));
  parallel_for(cut.tasks(), [&](int64_t task) {
    const int64_t part = task / cut.panel_parts, side = task % cut.panel_parts;
    const int64_t p0 = part * g.points() / cut.point_parts, p1 = (part + 1) * g.points() / cut.point_parts;
    const int64_t n0 = side * b.count() / cut.panel_parts, n1 = (side + 1) * b.count() / cut.panel_parts;
    const int64_t hot = expands && args.block_columns > 0 ? ceil_div(args.block_columns, b.nr) : n1 - n0;
    const int64_t at_once = std::min(n1 - n0, hot), ldc = at_once * b.nr, block = serving_block_rows(p1 - p0, gemm.mr);
    Scratch scratch;
    const SourceRows<T> rows_from = source(scratch, source_rows(g, p0 / g.gw, (p1 - 1) / g.gw + 1));
    C* c = scratch.get<C>(static_cast<size_t>(block * ldc));
    const T** pointers = scratch.get<const T*>(static_cast<size_t>(block) * std::max<size_t>(1, g.taps.size()));
    // For floats none is left out here: tiles depend on the number of threads, and the sign of a zero on what is left
    // out.
    const T* const zeros = std::is_integral_v<T> ? rows_from.zeros() : nullptr;
    int64_t a_bytes = 0;
    for_each_chunk(b, gemm.kr, [&](const Chunk& chunk) {
      const int64_t bytes = block / gemm.mr * chunk_panel_bytes(gemm, chunk);
      a_bytes = expands ? a_bytes + bytes : std::max(a_bytes, bytes);
    });
    auto* a = in_place ? nullptr : scratch.get<std::byte>(static_cast<size_t>(a_bytes));
    for (int64_t first = p0; first < p1; first += block) {
      const int64_t rows = std::min(block, p1 - first), m_panels = ceil_div(rows, gemm.mr);
      point_rows(g, rows_from, first, rows, pointers);
      for (int64_t n = n0; n < n1; n += at_once) {
        const int64_t last = std::min(n1, n + at_once);
        const PanelsAhead ahead = panels_ahead(b, n0, n1, last, first == p0, first + block >= p1);
        kernels::Into into = start != nullptr ? kernels::Into::kAccumulate : kernels::Into::kOverwrite;
        for (int64_t r = 0; r < m_panels * gemm.mr && start != nullptr; ++r)
          std::copy_n(start + n * b.nr, (last - n) * b.nr, c + r * ldc);
        std::byte* packed = a;
        for_each_chunk(b, gemm.kr, [&](const Chunk& chunk) {
          if (in_place) {
            multiply_chunk_in_place(gemm, b, chunk, pointers, zeros, rows, n, last, c, ldc, into, ahead);
          } else {
            if (n == n0) pack_chunk(gemm, b, chunk, pointers, rows, packed);
            multiply_chunk(gemm, b, chunk, packed, rows, n, last, c, ldc, into, ahead);
          }
          if (expands && !in_place) packed += m_panels * chunk_panel_bytes(gemm, chunk);
          into = kernels::Into::kAccumulate;
        });
        NextBlock next;
        if (last < n1)
          next = {first, last * b.nr};
        else if (first + block < p1)
          next = {first + block, n0 * b.nr};
        epilogue(first, rows, n * b.nr, std::min(b.columns, last * b.nr) - n * b.nr, c, ldc, next);
      }
    }
  });
}

}  // namespace nibble
