#include "ops/packed_conv_chunks.hpp"

#include "ops/packed_source.hpp"

namespace nibble {

namespace {

/// Bytes of a chunk: rows of d_y, their transposed copy and the paired rows of x; next to them the panels of the
/// weights and the sums lie in a 2 MiB L2.
constexpr int64_t kChunkBytes = 1280 << 10;
/// Rows of d_y that are made by one call: their sources are read from memory.
constexpr int64_t kMadeRows = 64;

/// Grid rows of a chunk, whole tasks of the input gradient; 0 if not even one task fits.
int64_t chunk_rows(const LayerWeights& layer, const ConvShape& s) {
  const int64_t per_point = int64_t{sizeof(bf16)} * (2 * s.oc + s.ic);
  const int64_t rows = grid_rows_per_task(layer.input_gradient.front().pixels.gather),
                task_bytes = rows * s.w * per_point;
  return kChunkBytes / task_bytes * rows;
}

}  // namespace

bool takes_gradient_rows(const LayerWeights& layer) {
  const ConvShape& s = layer.shape;
  return !layer.input_gradient.empty() && s.taps() == 1 && s.stride == 1 && s.pad_before + s.pad_after == 0 &&
         layer.float_gemm->run_strided != nullptr && layer.table->weight_gradient.run_left_again != nullptr &&
         chunk_rows(layer, s) > 0;
}

Tensor packed_conv_backward(const LayerWeights& layer, const Tensor& x, const GradientRows& d_y,
                            const Tensor& d_weights, const Tensor& before, GradientStage* next) {
  const ConvShape s = shape_with_batch(layer, x);
  if (s.out_pixels() == 0) d_weights.zero();
  const WeightSink sink = weight_sink(layer, d_weights, 1, s.ic);
  const InputGradientChunks input(layer, s, before, next);
  Scratch scratch;
  const int64_t per = chunk_rows(layer, s), stride = Tensor::round_stride(DType::bf16, s.oc);
  const WeightGradientChunks weights(scratch, layer.table->weight_gradient, layer, s, x, sink, per);
  bf16* const rows = scratch.get<bf16>(static_cast<size_t>(per * s.w * stride));
  for (int64_t chunk = 0; chunk < weights.count(); ++chunk) {
    const int64_t g0 = chunk * per, g1 = std::min(s.n * s.h, g0 + per), first = g0 * s.w, points = (g1 - g0) * s.w;
    parallel_for(ceil_div(points, kMadeRows), [&](int64_t i) {
      const int64_t at = i * kMadeRows;
      d_y.make(first + at, std::min(kMadeRows, points - at), rows + at * stride, stride);
    });
    {
      Zone zone("conv backward, weights", layer.name);
      zone.count([&] {
        return ZoneWork{
            .macs = points * s.ic * s.oc,
            .unit = MacUnit::kBf16,
            .bytes = points * static_cast<int64_t>(x.row_bytes()) + (chunk == 0 ? stored_bytes(d_weights) : 0)};
      });
      weights.add(chunk, {rows, stride});
    }
    input.add(g0, g1, {rows, stride});
  }
  return input.d_x();
}

}  // namespace nibble
