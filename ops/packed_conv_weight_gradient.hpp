// What the drivers of a convolution's weight gradient share: where their products go.
#pragma once
#include <cstdint>
#include <vector>

#include "ops/gather.hpp"
#include "ops/packed_conv.hpp"
#include "ops/winograd.hpp"

namespace nibble {

/// Where the products go: d_weights[o][tap][c] = column[o] * row[c] * sum[o][c]; empty scales are 1.
struct WeightSink {
  const Tensor& d_weights;  // [oc][taps][k]
  int64_t oc, taps, k;
  const std::vector<float>& column;
  std::vector<float> row;

  /// The same for a part of the points, summed by itself.
  WeightSink part(const Tensor& sum) const { return {sum, oc, taps, k, column, row}; }

  float* at(int64_t o, int64_t tap, int64_t c) const { return d_weights.data<float>() + (o * taps + tap) * k + c; }

  /// Writes or adds channels [c0, c0 + channels) of one tap for outputs [o0, o1), from sum[o - o0][c - c0], rows ld
  /// apart. After kStreamed the caller calls Elementwise::publish.
  void put(const float* sum, int64_t ld, int64_t tap, int64_t c0, int64_t channels, int64_t o0, int64_t o1,
           kernels::Into into, kernels::Store store) const {
    const float* const scale = row.empty() ? nullptr : row.data() + c0;
    kernels::active().ew.scale_rows_f32({sum, ld}, o1 - o0, channels, column.empty() ? nullptr : column.data() + o0,
                                        scale, {at(o0, tap, c0), taps * k}, into, store);
  }

  /// Prefetches the lines that put() will touch: rows of d_weights are often KiBs apart, which no hardware foresees.
  void prefetch(int64_t tap, int64_t c0, int64_t channels, int64_t o0, int64_t o1) const {
    constexpr int64_t kLineFloats = 16;
    for (int64_t o = o0; o < o1; ++o)
      for (int64_t c = 0; c < channels; c += kLineFloats) __builtin_prefetch(at(o, tap, c0 + c), 1);
  }
};

/// The sink of a layer's gradient with `taps` taps of k elements.
WeightSink weight_sink(const LayerWeights& layer, const Tensor& d_weights, int64_t taps, int64_t k);

/// Parts of a gradient's points that are summed by themselves, in parallel, and then added up: chunks go one after
/// another, so that threads find only the `jobs` of one chunk to share. Cut by shape.
int64_t gradient_parts(int64_t jobs, int64_t chunks);

/// Calls body(rows, sink) for every part of [0, rows), whole chunks of `rows_per_chunk`, in parallel; then adds the
/// parts' sums, in order, in sink.d_weights.
void sum_parts(int64_t parts, int64_t rows, int64_t rows_per_chunk, const WeightSink& sink,
               FunctionRef<void(RowRange, const WeightSink&)> body);

/// The gradient on tiles (kernels::WeightGradient), for levels that have them. The sink has the layer's own taps:
/// kernel rows of kw * ic elements when the layer is row-folded, otherwise kh * kw taps of ic channels. Threads: cut by
/// shape.  Cost: each operand is packed once or a few times, see TiledPlan; scratch of a few MiB.
void weight_gradient_tiled(const kernels::WeightGradient& kernel, const LayerWeights& layer, const ConvShape& s,
                           const Tensor& x, const Tensor& d_y, const WeightSink& sink);

/// The gradient of a 3x3 convolution of stride 1 by Winograd (ops/winograd.hpp), in fp32. tiles.g: its forward
/// grid, of at least one image; x in bf16 or unsigned codes. Threads: cut by shape.  Cost: 16 or 36 products per tile,
/// one transform of x and d_y; as many floats per pair of channels until it returns, for every part that runs at
/// once, and as scratch 16 KiB for every channel of x and d_y, more where a row of tiles is longer than a chunk (maps
/// 450 wide).
void weight_gradient_winograd(const kernels::GemmFloat<float>& gemm, const winograd::Tiles& tiles, const Tensor& x,
                              const Tensor& d_y, const WeightSink& sink);

}  // namespace nibble
