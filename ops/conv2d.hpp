// 2-D convolution (cross-correlation) in f32.
#pragma once
#include "engine/tape.hpp"
#include "ops/conv_shape.hpp"

namespace nibble {

/// Padding is zeros; before = top and left, after = bottom and right.
struct Conv2dArgs {
  int64_t stride = 1;
  int64_t pad_before = 0, pad_after = 0;
};

/// The geometry of x [n, h, w, ic] and w [oc, kh, kw, ic]; throws ShapeError if they do not fit each other.
ConvShape conv2d_shape(const Shape& x, const Shape& w, const Conv2dArgs& args);

/// y[i, p, q, o] = sum over kernel rows r, columns s, channels c of x[i, p*stride + r - pad_before, q*stride + s -
/// pad_before, c] * w[o, r, s, c], with x = 0 outside the image.
/// Shapes: x [n, h, w, ic], w [oc, kh, kw, ic], y [n, oh, ow, oc]; oh = (h + pads - kh) / stride + 1.
/// Types: f32, dense.  Layout: NHWC, kernels OHWI.
/// Exact?: fp32 sums, one order per kernel level, the same for every batch and thread count.
/// Threads: blocks of about 512 output pixels.  Cost: n oh ow oc kh kw ic products, one packed copy of w.
/// Errors: ShapeError if channels or sizes do not fit, DTypeError if an operand is not f32.
Tensor conv2d_forward(const Tensor& x, const Tensor& w, const Conv2dArgs& args);

/// d_x[i, y, x, c] = sum over the output pixels that read it and channels o of d_y * w. Input pixels of one residue
/// class modulo the stride meet the same kernel positions, so each class is a gathered product without zeros.
/// Shapes: d_y as y, d_x as `x`.  Cost: as forward.
Tensor conv2d_backward_x(const Tensor& d_y, const Tensor& w, const Shape& x, const Conv2dArgs& args);

/// d_w[o, r, s, c] = sum over output pixels, in row-major order, of d_y * x.
/// Shapes: d_w as `w`.  Threads: one task per kernel position and 48 input channels.
/// Cost: as forward, one packed copy of d_y.
Tensor conv2d_backward_w(const Tensor& d_y, const Tensor& x, const Shape& w, const Conv2dArgs& args);

/// Saves: x and w.  Gradients: x, w.
Variable conv2d(Tape* tape, const Variable& x, const Variable& w, const Conv2dArgs& args);

}  // namespace nibble
