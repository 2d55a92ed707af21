// A Winograd layer against the naive one, however it is cut.
#pragma once
#include <algorithm>
#include <deque>
#include <mutex>
#include <vector>

#include "ops/packed_source.hpp"
#include "ops/winograd.hpp"
#include "tests/kernels/end_of_page.hpp"
#include "tests/ops/packed_layers.hpp"

namespace nibble::testing {

/// The source of a layer's product, of which every task gets its own copy, that ends where a protected page begins.
class CopiedSource {
 public:
  CopiedSource(const LayerWeights& layer, const Operands& op, const Gather& g)
      : source_(op.x, layer.quantizer, g), gather_(g), channels_(op.shape.ic) {}

  SourceRows<uint8_t> operator()(Scratch& scratch, RowRange range) const {
    SourceRows<uint8_t> rows = source_(scratch, range);
    const int64_t pixels = (range.end - range.begin) * gather_.sw, stride = rows.stride;
    if (pixels == 0) return rows;
    const std::lock_guard lock(mutex_);
    copies_.emplace_back(at((pixels - 1) * stride + channels_));  // nothing is read past the last pixel's channels
    std::copy_n(rows.data + (range.begin - rows.first_row) * gather_.sw * stride, copies_.back().size(),
                copies_.back().data());
    rows.data = copies_.back().data();
    rows.first_row = range.begin;
    return rows;
  }

 private:
  const CodeSource source_;
  const Gather& gather_;
  const int64_t channels_;
  mutable std::mutex mutex_;
  mutable std::deque<std::vector<uint8_t, EndOfPage<uint8_t>>> copies_;
};

/// Sums of a layer as the executor makes them, in one way to cut them, of the rows of a grid; an output that no task or
/// more than one wrote is -1.
inline Doubles served_sums(const LayerWeights& layer, const Operands& op, const Gather& g, int64_t workers,
                           int64_t columns) {
  const int64_t oc = op.shape.oc;
  std::vector<int32_t> sums(at(g.points() * oc), -1);
  std::vector<int> writes(sums.size());
  const CopiedSource source(layer, op, g);
  layer.with_fewer_products([&](const auto& gemm) {
    winograd::serving_gemm(
        gemm, layer.served_edge, {.gather = g, .panels = layer.forward, .workers = workers, .block_columns = columns},
        layer.start_data(), source,
        [&](int64_t first, int64_t rows, int64_t column, int64_t n, const int32_t* c, int64_t ldc, const NextBlock&) {
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t o = 0; o < n; ++o) {
              const size_t to = at((first + r) * oc + column + o);
              sums[to] = ++writes[to] == 1 ? c[r * ldc + o] : -1;
            }
        });
  });
  return Doubles(sums.begin(), sums.end());
}

inline void check_fewer_products(const Operands& op, const LayerWeights& layer) {
  const Doubles expected = naive_forward(op.shape, op.multiplied_x, op.multiplied_w).value;
  Gather g = layer.forward_gather();
  g.n = op.x.dim(0);
  for (const int64_t workers : {1, 2, 5})
    for (const int64_t columns : {0, 8, 64}) {
      CAPTURE(workers);
      CAPTURE(columns);
      CHECK(served_sums(layer, op, g, workers, columns) == expected);
    }
  // Rows of the first image by themselves, as where the executor goes row by row: one, two, three and seven at a time.
  const int64_t row = op.shape.ow() * op.shape.oc;
  for (int64_t begin = 0, rows = 1; begin < g.gh; begin += rows, rows = rows == 3 ? 7 : rows % 7 + 1) {
    Gather part = g;
    part.n = 1;
    part.gh = std::min(rows, g.gh - begin);
    for (Tap& tap : part.taps) tap.dh += begin;
    CAPTURE(begin);
    for (const int64_t workers : {1, 2, 5})
      CHECK(served_sums(layer, op, part, workers, 64) ==
            Doubles(expected.begin() + begin * row, expected.begin() + (begin + part.gh) * row));
  }
}

}  // namespace nibble::testing
