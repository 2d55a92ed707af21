// Rectifier: y = max(x, 0).
#pragma once
#include "engine/tape.hpp"

namespace nibble {

/// y = x for x > 0, else +0. NaN stays NaN, so that a diverged run is seen and not hidden.
/// Shapes: y as x.  Types: f32, dense.
/// Threads: blocks of 65536 elements.  Cost: one pass over two tensors.
/// Errors: DTypeError if x is not f32.
Tensor relu_forward(const Tensor& x);

/// d_x = d_y where y > 0 (or y is NaN), else 0; at x = 0 the derivative is 0.
/// Errors: ShapeError if d_y and y differ.
Tensor relu_backward_x(const Tensor& d_y, const Tensor& y);

/// Saves: y.  Gradients: x.
Variable relu(Tape* tape, const Variable& x);

}  // namespace nibble
