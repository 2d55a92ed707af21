// Geometry of a 2-D convolution, shared by every convolution op, the cost model and the planner.
#pragma once
#include <cstdint>

#include "engine/error.hpp"

namespace nibble {

/// NHWC input, OHWI kernel, cross-correlation. Padding before and after may differ (XLA's SAME on even sizes is 0, 1).
struct ConvShape {
  int64_t n = 1, h = 0, w = 0, ic = 0;
  int64_t oc = 0, kh = 1, kw = 1;
  int64_t stride = 1;
  int64_t pad_before = 0, pad_after = 0;  // the same in both directions

  int64_t padded_h() const { return h + pad_before + pad_after; }
  int64_t padded_w() const { return w + pad_before + pad_after; }
  int64_t oh() const { return (padded_h() - kh) / stride + 1; }
  int64_t ow() const { return (padded_w() - kw) / stride + 1; }
  int64_t taps() const { return kh * kw; }
  int64_t k() const { return kh * kw * ic; }
  int64_t out_pixels() const { return n * oh() * ow(); }
  int64_t macs() const { return out_pixels() * k() * oc; }
  bool operator==(const ConvShape&) const = default;

  void check() const {
    if (n < 0 || h < 1 || w < 1 || ic < 1 || oc < 1 || kh < 1 || kw < 1 || stride < 1 || pad_before < 0 ||
        pad_after < 0)
      throw ShapeError(
          "[conv] sizes must be positive, the number of images and pads at least 0: {} images of {}x{}x{}, kernel "
          "{}x{}, "
          "{} outputs, stride {}, pads {} and {}",
          n, h, w, ic, kh, kw, oc, stride, pad_before, pad_after);
    if (padded_h() < kh || padded_w() < kw)
      throw ShapeError("[conv] the {}x{} kernel does not fit the padded {}x{} image", kh, kw, h, w);
  }
};

}  // namespace nibble
