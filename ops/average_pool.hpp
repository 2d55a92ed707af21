// Global average pooling: the mean over all pixels of an image.
#pragma once
#include "engine/tape.hpp"

namespace nibble {

/// y[i, c] = (sum of x[i, :, :, c] in row-major order, fp32) * (1 / (h w)).
/// Shapes: x [n, h, w, c], y [n, c].  Types: f32, dense.  Layout: NHWC.
/// Exact?: IEEE single in the order written (the average pool of METHOD.md section 8).  Threads: one task per image.
/// Errors: ShapeError if x is not NHWC or an image has no pixels, DTypeError if x is not f32.
/// Cost: one pass over x.
Tensor average_pool_forward(const Tensor& x);

/// d_x[i, y, x, c] = d_y[i, c] * (1 / (h w)).
/// Shapes: d_y [n, c], d_x as `x`.
Tensor average_pool_backward_x(const Tensor& d_y, const Shape& x);

/// Saves: nothing.  Gradients: x.
Variable average_pool(Tape* tape, const Variable& x);

}  // namespace nibble
