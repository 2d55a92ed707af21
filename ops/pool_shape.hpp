// The geometry of pooling over square windows.
#pragma once
#include <cstdint>

#include "engine/error.hpp"

namespace nibble {

/// Windows of `window` x `window` pixels, `stride` apart, over an image with padding around it. The defaults are those
/// of ResNet's stem.
struct PoolShape {
  int64_t window = 3;
  int64_t stride = 2;
  int64_t pad_before = 1, pad_after = 1;

  /// Largest window of the pools of training and serving (max_pool has any).
  static constexpr int64_t kLargestWindow = 3;
  static constexpr int64_t kMostTaps = kLargestWindow * kLargestWindow;

  /// Throws ShapeError unless every window holds a pixel wherever it stands.
  void require_pads_below_window() const {
    if (pad_before >= window || pad_after >= window)
      throw ShapeError(
          "[max_pool] padding {} and {} reach the window size {}, so a window could hold no pixel; use less",
          pad_before, pad_after, window);
  }
  /// Whether a side of `size` pixels has room for a window.
  bool fits(int64_t size) const { return size + pad_before + pad_after >= window; }
  /// Windows along a side that they fit.
  int64_t out(int64_t size) const { return (size + pad_before + pad_after - window) / stride + 1; }
  /// First pixel of a window, in the padding if negative.
  int64_t begin(int64_t out) const { return out * stride - pad_before; }
};

}  // namespace nibble
