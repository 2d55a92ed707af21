// The two pools of the network on bf16 activations, with the quantizer after them.
#pragma once
#include <memory>

#include "ops/norm_activate.hpp"
#include "ops/pool_shape.hpp"

namespace nibble {

/// What becomes of pooled values besides their bf16 form.
struct PoolActivateArgs {
  const ActivationQuantizer* quantizer = nullptr;  // makes codes of them
  bool dequantize = false;                         // fake mode: bf16(code / scale) instead of the code
  float* channel_max = nullptr;                    // [c], raised to the largest value of each channel
};

/// z [n,h,w,c] bf16 -> largest of each window -> pooled z and, with a quantizer, its codes. The first of equal values
/// in row-major order gets the gradient. `next`, if set, takes the rows of z's gradient, and z has none then: for a z
/// that nothing else reads.
/// Errors: ShapeError for a map that the window does not fit, UnsupportedError for windows above 3.
/// Cost: one pass over z, and a byte per element kept with a tape.
Activated max_pool_activate(Tape* tape, const Variable& z, const PoolShape& pool, const PoolActivateArgs& args = {},
                            std::shared_ptr<GradientStage> next = nullptr);

/// z [n,h,w,c] bf16 -> mean over pixels (average_pixels) -> [n,1,1,c], and its codes.
Activated average_pool_activate(Tape* tape, const Variable& z, const PoolActivateArgs& args = {});

/// Mean of each channel over `pixels` rows: fp32 sum in their order, one multiply, rounded to bf16.
void average_pixels(kernels::Rows<const bf16> z, int64_t pixels, int64_t channels, bf16* mean);

}  // namespace nibble
