// A layer in fewer products against the naive one, however it is cut.
#pragma once
#include "ops/packed_source.hpp"
#include "ops/winograd.hpp"
#include "tests/ops/packed_layers.hpp"

namespace nibble::testing {

/// Sums of a layer as the executor makes them, in one way to cut them; an output that nobody or two wrote is -1.
inline Doubles served_sums(const LayerWeights& layer, const Operands& op, int64_t workers, int64_t columns) {
  Gather g = layer.forward_gather();
  g.n = op.x.dim(0);
  const int64_t oc = op.shape.oc;
  std::vector<int32_t> sums(at(g.points() * oc), -1);
  std::vector<int> writes(sums.size());
  const auto serve = [&](const auto& gemm) {
    winograd::serving_gemm(
        gemm, {.gather = g, .panels = layer.forward, .workers = workers, .block_columns = columns}, layer.start_data(),
        CodeSource(op.x, layer.quantizer, g),
        [&](int64_t first, int64_t rows, int64_t column, int64_t n, const int32_t* c, int64_t ldc, const NextBlock&) {
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t o = 0; o < n; ++o) {
              const size_t to = at((first + r) * oc + column + o);
              sums[to] = ++writes[to] == 1 ? c[r * ldc + o] : -1;
            }
        });
  };
  if (layer.wide_gemm != nullptr)
    serve(*layer.wide_gemm);
  else
    serve(*layer.int_gemm);
  return Doubles(sums.begin(), sums.end());
}

inline void check_fewer_products(const Operands& op, const LayerWeights& layer) {
  const Doubles expected = naive_forward(op.shape, op.multiplied_x, op.multiplied_w).value;
  for (const int64_t workers : {1, 2, 5})
    for (const int64_t columns : {0, 8, 64}) {
      CAPTURE(workers);
      CAPTURE(columns);
      CHECK(served_sums(layer, op, workers, columns) == expected);
    }
}

}  // namespace nibble::testing
