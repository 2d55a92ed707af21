// Max pooling over square windows.
#pragma once
#include "engine/tape.hpp"
#include "ops/conv_shape.hpp"
#include "ops/pool_shape.hpp"

namespace nibble {

/// Geometry of pooling x [n, h, w, c]; throws ShapeError if a window could lie wholly in the padding.
ConvShape max_pool_shape(const Shape& x, const PoolShape& pool);

struct MaxPooled {
  Tensor y;       // f32 [n, oh, ow, c]
  Tensor winner;  // s32 as y: pixel index y*w + x, inside its image, of the largest value
};

/// y[i, p, q, c] = max over the window at (p*stride - pad_before, q*stride - pad_before), as far as it lies inside the
/// image: padding never wins. The first of equal values in row-major order wins; a NaN wins over numbers, so that a
/// diverged run is seen.
/// Shapes: x [n, h, w, c], y [n, oh, ow, c].  Types: f32, dense.  Layout: NHWC.
/// Exact?: yes.  Threads: one task per image.  Cost: n oh ow c window^2 comparisons.
/// Errors: ShapeError, DTypeError.
MaxPooled max_pool_forward(const Tensor& x, const PoolShape& pool);

/// d_x = sum of the d_y of the windows that a pixel has won, in row-major order of the windows.
/// Shapes: d_y and winner as y, d_x as `x`.
Tensor max_pool_backward_x(const Tensor& d_y, const Tensor& winner, const Shape& x);

/// Saves: the winners.  Gradients: x.
Variable max_pool(Tape* tape, const Variable& x, const PoolShape& pool);

}  // namespace nibble
