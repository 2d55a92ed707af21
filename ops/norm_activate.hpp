// Batch norm, shortcut, ReLU and the quantizer after a convolution in one pass over memory, and their backward.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "engine/tape.hpp"
#include "ops/packed_conv.hpp"

namespace nibble {

inline constexpr float kNormEpsilon = 1e-5f;

/// Batch norm of one shard: statistics of its rows, biased variance (METHOD.md section 1).
struct NormStatistics {
  std::vector<float> mean, variance, inv_std;
};
/// From sums in double: var = E[y^2] - E[y]^2, clamped at 0.
NormStatistics normalise_sums(const ChannelSums& sums);

/// v = y*m + a with m = gamma*inv_std, a = beta - mean*m.
struct NormAffine {
  std::vector<float> m, a;
};
NormAffine norm_affine(const NormStatistics& s, const Tensor& gamma, const Tensor& beta);

/// One batch-normed branch: the convolution output and where its gradients go.
struct NormBranch {
  std::string_view name{};  // of the convolution, for the profiler; must outlive the tape
  Variable y;
  NormStatistics statistics;
  Tensor gamma, beta;                 // f32 [c]
  Tensor d_gamma, d_beta;             // f32 [c], overwritten
  std::vector<float> gradient_scale;  // y_gradient_scale of the convolution; empty: 1
};

struct NormActivateArgs {
  NormBranch main;
  Variable shortcut;                       // bf16 [n,h,w,c]; undefined: none
  const NormBranch* projection = nullptr;  // the shortcut is this branch instead (bf16 after its own norm)
  /// Stores z = bf16(max(v, 0)). Needed where z itself is read again (shortcut, pool, bf16 consumers).
  bool store_z = false;
  /// With a tape: backward goes by two bits per element, kept next to z, instead of by z itself, so that the caller may
  /// drop z's value once it is no longer read forward. The gradients are the same, bit for bit. Needs store_z.
  bool keep_classes = false;
  /// Codes for the consumers that read this tensor with the quantizer. 4-bit codes are stored packed.
  const ActivationQuantizer* quantizer = nullptr;
  /// fake mode: the quantized output is bf16(code / scale) instead of the code.
  bool dequantize = false;
  /// [c], raised to the shard's largest activation per channel (calibration); nullptr: not wanted.
  float* channel_max = nullptr;
};

struct Activated {
  Variable z;      // bf16, defined if store_z
  Variable codes;  // u8 / u4 codes (bf16 in fake mode), defined if quantizer
  /// With a tape: takes the gradient of codes (of z without codes) row by row while its rows are in the cache. Pass it
  /// as `next` to the op whose backward step adds to that gradient last; otherwise the gradient is read again as a
  /// whole.
  std::shared_ptr<GradientStage> backward{};
};

/// Forward: two outputs of one pass. Backward: gradient through the quantizer (clip rule of METHOD.md section 2,
/// recomputed from the stored y, or from z for block outputs) plus the direct gradient of z, times ReLU's, then batch
/// norm's.
/// Saves y and z, or y and two bits per element (keep_classes); a y that the caller drops meanwhile is remade.
/// Gradients: y, gamma, beta, shortcut or the projection's. Throws UsageError for a signed quantizer (store z and use
/// quantize_tensor of activation_codes.hpp) and for a taped shortcut or keep_classes without store_z, ShapeError for
/// operands whose shape is not y's.
Activated norm_activate(Tape* tape, const NormActivateArgs& args);

/// z = bf16(max(y*m + a, 0)) of a branch without shortcut: bit for bit the z of norm_activate. Cost: one pass over y.
Tensor normalised_activation(const NormBranch& branch);

}  // namespace nibble
