// Product of two tensors of one shape, element by element.
#pragma once
#include "engine/tape.hpp"

namespace nibble {

/// y = a * b.
/// Shapes: a, b, y equal.  Types: f32, dense.
/// Threads: blocks of 65536 elements.  Cost: one pass over three tensors.
/// Errors: ShapeError if the shapes differ, DTypeError if an operand is not f32.
Tensor mul_forward(const Tensor& a, const Tensor& b);

/// d_a = d_y * b.
Tensor mul_backward_a(const Tensor& d_y, const Tensor& b);
/// d_b = d_y * a.
Tensor mul_backward_b(const Tensor& d_y, const Tensor& a);

/// Saves: a and b.  Gradients: a, b (mul(x, x) gives 2x).
Variable mul(Tape* tape, const Variable& a, const Variable& b);

}  // namespace nibble
