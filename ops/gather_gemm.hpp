// The convolution engine of training: gathers rows of the left operand by pointer and multiplies them, block by block.
//
// One driver serves forward, gradient of the input and gradient of the weights, for every operand type, because all
// three are "for each grid point, multiply the concatenation of some source rows by a matrix". No im2col matrix exists
// beyond one block of rows.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/parallel.hpp"
#include "engine/scratch.hpp"
#include "ops/gather.hpp"
#include "ops/memory_ahead.hpp"
#include "ops/product_hooks.hpp"
#include "ops/row_products.hpp"

namespace nibble {

/// Where the source knows it: the rows of the task after grid row g1. Nothing where there are so many threads that
/// another one is likely to get that task (measured with two threads only).
template <typename Source>
MemoryAhead next_task_rows(const Source& source, const Gather& g, int64_t g1) {
  if (task_count(g) < 2 * threads()) return {};
  if constexpr (requires { source.ahead(RowRange{}); })
    if (const int64_t g2 = std::min(g.n * g.gh, g1 + grid_rows_per_task(g)); g1 < g2)
      return source.ahead(source_rows(g, g1, g2));
  return {};
}

/// Runs a whole gathered product. `source(scratch, range)` gives the task's source rows; `epilogue(task, first_point,
/// rows, c, ldc)` gets each finished block; around them see NothingMore. Tasks are cut by shape, run in parallel, and
/// number task_count(g).
template <typename C, typename T, typename Gemm, typename Source, typename Epilogue, typename Around = NothingMore>
void gather_gemm(const Gemm& gemm, const Gather& g, const Panels& b, const Source& source, const Epilogue& epilogue,
                 Around&& around = {}) {
  const int64_t per = grid_rows_per_task(g), all = g.n * g.gh;
  const int64_t ldc = b.padded_columns(), block = round_up(kBlockRows, gemm.mr);
  parallel_for(task_count(g), [&](int64_t task) {
    const int64_t g0 = task * per, g1 = std::min(all, g0 + per);
    Scratch scratch;
    around.begin(scratch, task, g0, g1);
    const SourceRows<T> rows_from = source(scratch, source_rows(g, g0, g1));
    C* c = scratch.get<C>(static_cast<size_t>(block * ldc));
    const T** pointers = scratch.get<const T*>(static_cast<size_t>(block) * std::max<size_t>(1, g.taps.size()));
    MemoryAhead next_rows = next_task_rows(source, g, g1);
    for (int64_t first = g0 * g.gw; first < g1 * g.gw; first += block) {
      const int64_t rows = std::min(block, g1 * g.gw - first);
      point_rows(g, rows_from, first, rows, pointers);
      multiply_rows(
          gemm, b, pointers, rows, c, ldc, rows_from.zeros(),
          panels_ahead(b, 0, b.count(), b.count(), first == g0 * g.gw, first + block >= g1 * g.gw, &next_rows));
      epilogue(task, first, rows, c, ldc);
    }
    around.end(task, g0, g1);
  });
}

}  // namespace nibble
