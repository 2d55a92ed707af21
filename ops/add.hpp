// Addition of two tensors of one shape.
#pragma once
#include "engine/tape.hpp"

namespace nibble {

/// y = a + b.
/// Shapes: a, b, y equal.  Types: f32, dense.
/// Threads: blocks of 65536 elements.  Cost: one pass over three tensors.
/// Errors: ShapeError if the shapes differ, DTypeError if an operand is not f32.
Tensor add_forward(const Tensor& a, const Tensor& b);

/// d_a = d_y; the result shares the storage of d_y.
Tensor add_backward_a(const Tensor& d_y);
/// d_b = d_y; the result shares the storage of d_y.
Tensor add_backward_b(const Tensor& d_y);

/// Saves: nothing.  Gradients: a, b.
Variable add(Tape* tape, const Variable& a, const Variable& b);

}  // namespace nibble
