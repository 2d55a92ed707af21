// Fully connected layer: y = x w^T + bias.
#pragma once
#include "engine/tape.hpp"

namespace nibble {

/// y[i, o] = sum_c x[i, c] * w[o, c] + bias[o].
/// Shapes: x [n, in], w [out, in] (torchvision's fc.weight), bias [out], y [n, out].  Types: f32, dense.
/// Exact?: fp32 sums, one order per kernel level.  Threads: blocks of 48 rows.
/// Errors: ShapeError if a shape does not fit, DTypeError if an operand is not f32.
/// Cost: n in out products.
Tensor linear_forward(const Tensor& x, const Tensor& w, const Tensor& bias);

/// d_x [n, in] = d_y w.
Tensor linear_backward_x(const Tensor& d_y, const Tensor& w);
/// d_w [out, in] = d_y^T x.
Tensor linear_backward_w(const Tensor& d_y, const Tensor& x);
/// d_bias [out] = sum over rows of d_y, down the rows in order, in double, rounded once.
Tensor linear_backward_bias(const Tensor& d_y);

/// Saves: x and w.  Gradients: x, w, bias.
Variable linear(Tape* tape, const Variable& x, const Variable& w, const Variable& bias);

}  // namespace nibble
