// The convolution of training: integer codes (or bf16) times packed weights forward, bf16 products backward.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/profiler.hpp"
#include "engine/tape.hpp"
#include "ops/layer_weights.hpp"
#include "ops/tensor_memory.hpp"

namespace nibble {

/// The multipliers of a layer's forward product, for the profiler.
MacUnit forward_unit(const LayerWeights& layer);

/// Exact accumulators as a tensor [n, oh, ow, oc], dense: s32 for codes, f32 for bf16 inputs.
Tensor conv_accumulators(const LayerWeights& layer, const Tensor& x);

/// Per-channel sums over all output pixels, in double from fp32 partial sums of about 512 pixels in fixed order.
struct ChannelSums {
  std::vector<double> sum, sum_sq;
  int64_t count = 0;
};

/// y = bf16(acc * rescale), NHWC with rows of round_stride, and its channel sums (of the rounded values).
/// Shapes   x of a row-folded layer: u8 multiplier codes (or bf16 values) [n, h + pads, w + pads, ic], dense
///          x of other layers: u8 or u4 codes [n, h, w, ic], rows code_stride(ic) elements apart, or bf16
/// Threads: cut by shape; safe to call concurrently.  Cost: shape.macs() products.
/// Errors: ShapeError for an x whose sizes are not layer.input_shape(), DTypeError for one of another type.
Tensor packed_conv_forward(const LayerWeights& layer, const Tensor& x, ChannelSums& sums);

/// What a gradient of a convolution's input goes through next, row by row while the rows are in the cache.
class GradientStage {
 public:
  virtual ~GradientStage() = default;
  /// Announces that `tasks` tasks, cut by shape, will hand over the rows of one gradient.
  virtual void begin(int64_t tasks) = 0;
  /// d_x holds the rows [first, first + count) of the gradient, complete, and is valid only until this returns. Every
  /// row comes exactly once; the rows of a task come in order and from one thread.
  virtual void take(int64_t task, kernels::Rows<const bf16> d_x, int64_t first, int64_t count) = 0;
};

/// Whether packed_conv_backward_input can hand over rows, which it can when one pass completes every row. Not for a
/// strided window of more than one pixel: input pixels then fall into classes that are computed one after another.
bool hands_over_rows(const LayerWeights& layer);

/// d_x [n, h, w, ic] in bf16, gradient of the dequantized input, from d_y already divided by the weight scale
/// (see y_gradient_scale). Straight-through: d x_hat_c = (1/fold[c]) * sum_o d_y[o] * code[o, c].
/// `before`, if defined, is added to it (the sum is rounded twice; once where a strided layer hands over rows). `next`,
/// if set (then hands_over_rows(layer) must hold), takes the rows of the sum; no tensor is made then, and the returned
/// one is undefined.
/// Threads: cut by shape.  Cost: shape.macs() products in bf16; for layers with gradient_gemm (Winograd) 16/36 or
/// 36/144 of them in fp32 (at most 3/4, where tiles extend past the map) and two transforms.
/// Errors: ShapeError for gradients of other shapes, a `before` of another shape or type, and a layer without panels
/// for this gradient; UsageError for a `next` where hands_over_rows(layer) is false.
Tensor packed_conv_backward_input(const LayerWeights& layer, const Tensor& d_y, const Shape& x_shape,
                                  const Tensor& before = {}, GradientStage* next = nullptr);

/// Writes d_weights f32 [oc, kh, kw, ic] = scale[o] / s_c * sum over pixels of code * d_y. The order of the sums is
/// fixed by the shape and the kernel level.
/// Threads: cut by shape.  Cost: as packed_conv_backward_input.  Errors: ShapeError for an x or d_y of other shapes and
/// a d_weights that is not f32, dense and of the weights' size; DTypeError for an x of another type.
void packed_conv_backward_weights(const LayerWeights& layer, const Tensor& x, const Tensor& d_y,
                                  const Tensor& d_weights);

/// Whether a layer's backward step can read d_y as GradientRows.
bool takes_gradient_rows(const LayerWeights& layer);
/// Both gradients of such a layer: the rows of d_y are made a chunk at a time, read from L2 by both products and never
/// stored. d_x has the bits of packed_conv_backward_input; d_weights sums its chunks in another order than
/// packed_conv_backward_weights.
Tensor packed_conv_backward(const LayerWeights& layer, const Tensor& x, const GradientRows& d_y,
                            const Tensor& d_weights, const Tensor& before = {}, GradientStage* next = nullptr);

/// Factor per output channel that the gradient of y must carry: 1/scale[o], so that d_x is a product with bare codes;
/// empty: 1.
std::vector<float> y_gradient_scale(const LayerWeights& layer);

/// Taped: y = conv(x). Saves x (codes, exact). Gradients: of x, except in the first layer, and of the weights, into
/// d_weights (f32, owned by the shard; overwritten, as every parameter has one reader). `next`, used only if
/// hands_over_rows(layer), receives the rows of x's complete gradient, including what x had before; x itself then gets
/// none. So give `next` only to the last op that adds to x's gradient.
Variable packed_conv(Tape* tape, const Variable& x, const LayerWeights& layer, const Tensor& d_weights,
                     ChannelSums& sums, std::shared_ptr<GradientStage> next = nullptr);

/// Taped logits of a linear layer: f32 [n, oc] = acc * rescale + bias. d_weights and d_bias f32 [oc] are
/// overwritten. Saves x.  Gradients: x, weights, bias.  Cost and errors: as packed_conv_forward and the two above.
Variable packed_linear(Tape* tape, const Variable& x, const LayerWeights& layer, const Tensor& bias,
                       const Tensor& d_weights, const Tensor& d_bias);

}  // namespace nibble
