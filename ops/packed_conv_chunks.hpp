// Both gradients of a 1x1 convolution a chunk of points at a time, so that the rows of d_y are made once, in L2, and
// never stored: batch norm's backward writes them, the two products read them.
#pragma once
#include <memory>

#include "ops/packed_conv_weight_gradient.hpp"

namespace nibble {

/// d_x of a layer of one tap at stride 1 without pads, on levels that multiply rows in place: the same bits as
/// packed_conv_backward_input, whose `before` and `next` these are. `before` must outlive it.
class InputGradientChunks {
 public:
  InputGradientChunks(const LayerWeights& layer, const ConvShape& s, const Tensor& before, GradientStage* next);
  ~InputGradientChunks();
  /// Grid rows [g0, g1) of flattened images: whole tasks (grid_rows_per_task), the last one excepted. `d_y` begins with
  /// the first of their points.
  void add(int64_t g0, int64_t g1, kernels::Rows<const bf16> d_y) const;
  /// Undefined if a next stage took the rows.
  Tensor d_x() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The weights' gradient of such a layer on levels with tiles.
class WeightGradientChunks {
 public:
  /// `sink` must outlive it; its sums are in `scratch`.
  WeightGradientChunks(Scratch& scratch, const kernels::WeightGradient& kernel, const LayerWeights& layer,
                       const ConvShape& s, const Tensor& x, const WeightSink& sink, int64_t rows_per_chunk);
  ~WeightGradientChunks();
  int64_t count() const;
  /// The next chunk of grid rows, whose d_y begins at `d_y`; the last one writes the sink.
  void add(int64_t chunk, kernels::Rows<const bf16> d_y) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nibble
