// The right operands of one layer: weights quantized and packed for the kernels of every pass.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "ops/panels.hpp"
#include "ops/plane_layout.hpp"
#include "ops/quantization.hpp"

namespace nibble {

/// Which panels a layer needs.
enum class Passes {
  kForward,
  kForwardAndBackward,
  kServing,  // forward by the executor, by Winograd where that is exact (ops/winograd.hpp)
};

/// The right operands of one layer at one step: made once from the fp32 masters, shared by all shards, read-only.
struct LayerWeights {
  std::string name;
  ConvShape shape;  // n is not used
  int weight_bits = 16;
  /// Channels are so few (the image) that a kernel row is one segment; the input then carries its own spatial padding.
  bool row_folded = false;
  const ActivationQuantizer* quantizer = nullptr;  // of the input; null: the input is bf16
  std::vector<float> scale;                        // w_hat = code / scale[o] (times 1/fold); empty: bf16 weights
  /// Signed input: what the sums begin with, -128 * sum of codes per output channel, s32 [padded columns]; undefined:
  /// zero. Aligned, because tiles are begun with it: loads that straddle cache lines are slow. Of a Winograd layer,
  /// winograd::set_offset_start's [4, padded columns], undefined in tiles with an edge of 4.
  Tensor start;
  /// The edge of the tiles of winograd::serving_gemm, of which `forward` has a segment per position; 0: plain products.
  int64_t served_edge = 0;
  bool fewer_products() const { return served_edge > 0; }
  /// y = float(acc) * rescale[o]; empty: 1. = 1 / (common * scale[o]) for codes, 1 / scale[o] for bf16 inputs.
  std::vector<float> rescale;
  const kernels::Table* table = nullptr;         // whose products these are
  const kernels::GemmInt* int_gemm = nullptr;    // set when the input is codes
  const kernels::GemmWide* wide_gemm = nullptr;  // multiplies instead of it where 8-bit codes have fewer products
  const kernels::GemmFloat<bf16>* float_gemm = nullptr;  // forward of bf16 inputs, and backward
  Panels forward;
  PlaneLayout forward_layout;  // for kernels that read rows in place
  /// Multiplies in backward instead of float_gemm where gradients go by Winograd (winograd::gradient_edge, the edge of
  /// the tiles): then the only operand of `input_gradient`, if there is one, has a segment per position.
  const kernels::GemmFloat<float>* gradient_gemm = nullptr;
  int64_t gradient_edge = 0;
  /// Of the gradient of one class of input pixels.
  struct GradientOperand {
    InputGradientClass pixels;
    Panels panels;
    PlaneLayout layout;  // for kernels that read rows in place
  };
  std::vector<GradientOperand> input_gradient;  // empty for the first layer: the image's gradient is not needed

  const int32_t* start_data() const { return start.defined() ? start.data<int32_t>() : nullptr; }
  /// Calls body(gemm) with the kernel of winograd::serving_gemm.
  template <typename Body>
  void with_fewer_products(const Body& body) const {
    if (wide_gemm != nullptr)
      body(*wide_gemm);
    else
      body(*int_gemm);
  }
  bool integer() const { return int_gemm != nullptr; }
  /// Whether the level multiplies rows in place (plane_gemm) rather than from packed panels (gather_gemm).
  bool strided() const { return integer() ? int_gemm->run_strided != nullptr : float_gemm->run_strided != nullptr; }
  /// What the layer reads for n images: [n, h, w, ic], with the padding around it where rows are folded.
  Shape input_shape(int64_t n) const {
    return row_folded ? Shape{n, shape.padded_h(), shape.padded_w(), shape.ic} : Shape{n, shape.h, shape.w, shape.ic};
  }
  Gather forward_gather() const { return row_folded ? row_folded_gather(shape) : nibble::forward_gather(shape); }
};

struct LayerWeightsArgs {
  std::string name;
  ConvShape shape;
  Tensor weights;                                  // f32 [oc, kh, kw, ic] masters
  int weight_bits = 16;                            // 16: rounded to bf16
  bool bf16_weights = false;                       // WeightQuantizer::through_bf16
  const ActivationQuantizer* quantizer = nullptr;  // null: bf16 input. Must outlive the result.
  /// fake mode: weights enter as bf16(code / scale), inputs as bf16(code / scale); `quantizer` is then null.
  bool dequantize = false;
  Passes passes = Passes::kForward;
  bool first_layer = false;
  const kernels::Table* products = nullptr;  // whose kernels multiply; null: those of the level in use
};
/// Quantizes and packs, 32 output channels at a time: these go from the masters through codes and bf16 into every panel
/// while they are in L2.  Threads: a task for every 32 output channels.  Cost: reads the masters once, writes each
/// panel once.  Errors: DivergedError for a weight that is not finite, DTypeError for codes times bf16 weights,
/// ShapeError for weights or a quantizer whose channels are not the shape's, ModelError (check_accumulator) for sums
/// that may not fit int32.
LayerWeights prepare_layer(const LayerWeightsArgs& args);
/// The same from codes that were quantized before (a served file).
LayerWeights prepare_layer(const LayerWeightsArgs& args, const WeightCodes& codes);

/// What the sums of a layer with these weight scales [oc] are multiplied by: 1 / (common * scale[o]), where codes meet
/// codes; `quantizer` null: 1 / scale[o]. Empty as `scale` is, of weights in bf16.
std::vector<float> product_rescale(const std::vector<float>& scale, const ActivationQuantizer* quantizer);

}  // namespace nibble
