// The transforms for Winograd gradients of 3x3 convolutions (GradientTransforms in table.hpp), written once
// for both sizes of tiles on the one-dimensional ones of Lines<edge>: each is applied to the columns of a tile, then to
// the rows of the result.
#pragma once
#include "ops/kernels/generic/elementwise_winograd.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// F(2, 3) and F(3, 2): points 0, 1, -1 and infinity.
template <typename V, int kEdge>
struct Lines {
  static_assert(kEdge == 2);
  using F = typename V::F;
  static NIBBLE_INLINE void source(const F (&d)[4], F (&t)[4]) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
  }
  static NIBBLE_INLINE void outputs(const F (&s)[4], F (&y)[2]) {
    y[0] = s[0] + s[1] + s[2];
    y[1] = s[1] - s[2] - s[3];
  }
  static NIBBLE_INLINE void weights(const F (&w)[3], F (&t)[4]) {
    const F half = V::splat(0.5f);
    t[0] = w[0];
    t[1] = (w[0] + w[2] + w[1]) * half;
    t[2] = (w[0] + w[2] - w[1]) * half;
    t[3] = w[2];
  }
  static NIBBLE_INLINE void d_y(const F (&y)[2], F (&t)[4]) {
    const F half = V::splat(0.5f);
    t[0] = y[0];
    t[1] = (y[0] + y[1]) * half;
    t[2] = (y[0] - y[1]) * half;
    t[3] = y[1];
  }
  static NIBBLE_INLINE void d_w(const F (&s)[4], F (&w)[3]) {
    w[0] = s[0] + s[1] + s[2];
    w[1] = s[1] - s[2];
    w[2] = s[1] + s[2] - s[3];
  }
};

/// F(4, 3) and F(3, 4): points 0, r, -r, 1/r, -1/r and infinity, r the root of two. Even and odd terms apart.
template <typename V>
struct Lines<V, 4> {
  using F = typename V::F;
  static constexpr float kRoot = 1.41421356f, kHalfRoot = 0.707106781f;

  static NIBBLE_INLINE void source(const F (&d)[6], F (&t)[6]) {
    const F half = V::splat(0.5f), two = V::splat(2.0f), sum_of_squares = V::splat(2.5f);
    const F even_r = d[4] - half * d[2], odd_r = V::splat(kRoot) * (d[3] - half * d[1]);
    const F even_s = d[4] - two * d[2], odd_s = V::splat(kHalfRoot) * (d[3] - two * d[1]);
    t[0] = d[0] + d[4] - sum_of_squares * d[2];
    t[1] = even_r + odd_r;
    t[2] = even_r - odd_r;
    t[3] = even_s + odd_s;
    t[4] = even_s - odd_s;
    t[5] = d[1] + d[5] - sum_of_squares * d[3];
  }
  /// What kernel elements give at the four inner points: `even` and `odd` at r, at 1/r.
  static NIBBLE_INLINE void at_points(F even_r, F odd_r, F even_s, F odd_s, F (&t)[6]) {
    const F sixth = V::splat(1.0f / 6), root_sixth = V::splat(kRoot / 6);
    const F thirds = V::splat(-2.0f / 3), root_third = V::splat(-kRoot / 3);
    const F p = even_r * sixth, q = odd_r * root_sixth, u = even_s * thirds, v = odd_s * root_third;
    t[1] = p + q;
    t[2] = p - q;
    t[3] = u + v;
    t[4] = u - v;
  }
  static NIBBLE_INLINE void weights(const F (&w)[3], F (&t)[6]) {
    const F half = V::splat(0.5f), two = V::splat(2.0f);
    t[0] = w[0];
    at_points(w[0] + two * w[2], w[1], w[0] + half * w[2], w[1], t);
    t[5] = w[2];
  }
  static NIBBLE_INLINE void d_y(const F (&y)[4], F (&t)[6]) {
    const F half = V::splat(0.5f), two = V::splat(2.0f);
    t[0] = y[0];
    at_points(y[0] + two * y[2], y[1] + two * y[3], y[0] + half * y[2], y[1] + half * y[3], t);
    t[5] = y[3];
  }
  static NIBBLE_INLINE void outputs(const F (&s)[6], F (&y)[4]) {
    const F sum_r = s[1] + s[2], difference_r = s[1] - s[2], sum_s = s[3] + s[4], difference_s = s[3] - s[4];
    y[0] = s[0] + sum_r + sum_s;
    y[1] = V::splat(kRoot) * difference_r + V::splat(kHalfRoot) * difference_s;
    y[2] = V::splat(2.0f) * sum_r + V::splat(0.5f) * sum_s;
    y[3] = V::splat(2 * kRoot) * difference_r + V::splat(kHalfRoot / 2) * difference_s + s[5];
  }
  static NIBBLE_INLINE void d_w(const F (&s)[6], F (&w)[3]) {
    const F sum_r = s[1] + s[2], difference_r = s[1] - s[2], sum_s = s[3] + s[4], difference_s = s[3] - s[4];
    w[0] = s[0] + sum_r + sum_s;
    w[1] = V::splat(kRoot) * difference_r + V::splat(kHalfRoot) * difference_s;
    w[2] = V::splat(2.0f) * sum_r + V::splat(0.5f) * sum_s + s[5];
  }
};

/// store(kOut * i + j, values) of what `line`, from kIn to kOut values, makes of the kIn x kIn that load(y, x) gives.
template <typename V, int kIn, int kOut, typename Line, typename Load, typename Store>
NIBBLE_INLINE void transform_square(const Line& line, const Load& load, const Store& store) {
  using F = typename V::F;
  F columns[kOut][kIn];
  NIBBLE_UNROLL
  for (int x = 0; x < kIn; ++x) {
    F in[kIn], out[kOut];
    NIBBLE_UNROLL
    for (int y = 0; y < kIn; ++y) in[y] = load(y, x);
    line(in, out);
    NIBBLE_UNROLL
    for (int i = 0; i < kOut; ++i) columns[i][x] = out[i];
  }
  NIBBLE_UNROLL
  for (int i = 0; i < kOut; ++i) {
    F out[kOut];
    line(columns[i], out);
    NIBBLE_UNROLL
    for (int j = 0; j < kOut; ++j) store(kOut * i + j, out[j]);
  }
}

/// The tiles of kEdge x kEdge outputs.
template <int kEdge>
struct Gradients {
  static constexpr int kSource = kEdge + 2;

  template <typename S>
  static void input(const S* const* pixels, int64_t offset, int64_t n, float* out, int64_t stride) {
    const Pointers<kSource * kSource, S> from(pixels, offset);
    over_channels<1>(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
      using V = typename decltype(block)::V;
      transform_square<V, kSource, kSource>(
          [](const auto& from_line, auto& to_line) NIBBLE_INLINE_BODY { Lines<V, kEdge>::source(from_line, to_line); },
          [&](int y, int x) NIBBLE_INLINE_BODY { return V::load(from[kSource * y + x] + c); },
          [&](int p, typename V::F v) NIBBLE_INLINE_BODY { V::store(out + p * stride + c, v); });
    });
  }

  static void output(const float* sums, int64_t stride, int64_t n, float* const* out) {
    over_channels<1>(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
      using V = typename decltype(block)::V;
      transform_square<V, kSource, kEdge>(
          [](const auto& from_line, auto& to_line) NIBBLE_INLINE_BODY { Lines<V, kEdge>::outputs(from_line, to_line); },
          [&](int y, int x) NIBBLE_INLINE_BODY { return V::load(sums + (kSource * y + x) * stride + c); },
          [&](int q, typename V::F v) NIBBLE_INLINE_BODY { V::store(out[q] + c, v); });
    });
  }

  static void weights(const bf16* const* taps, int64_t n, float* out, int64_t stride) {
    over_channels<1>(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
      using V = typename decltype(block)::V;
      transform_square<V, 3, kSource>(
          [](const auto& from_line, auto& to_line) NIBBLE_INLINE_BODY { Lines<V, kEdge>::weights(from_line, to_line); },
          [&](int y, int x) NIBBLE_INLINE_BODY { return V::load(taps[3 * y + x] + c); },
          [&](int p, typename V::F v) NIBBLE_INLINE_BODY { V::store(out + p * stride + c, v); });
    });
  }

  static void d_y(const bf16* const* pixels, int64_t offset, int64_t n, float* out, int64_t stride) {
    const Pointers<kEdge * kEdge, bf16> from(pixels, offset);
    over_channels<1>(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
      using V = typename decltype(block)::V;
      transform_square<V, kEdge, kSource>(
          [](const auto& from_line, auto& to_line) NIBBLE_INLINE_BODY { Lines<V, kEdge>::d_y(from_line, to_line); },
          [&](int y, int x) NIBBLE_INLINE_BODY { return V::load(from[kEdge * y + x] + c); },
          [&](int p, typename V::F v) NIBBLE_INLINE_BODY { V::store(out + p * stride + c, v); });
    });
  }

  static void d_w(const float* sums, int64_t stride, int64_t n, float* out, int64_t out_stride) {
    over_channels<1>(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
      using V = typename decltype(block)::V;
      transform_square<V, kSource, 3>(
          [](const auto& from_line, auto& to_line) NIBBLE_INLINE_BODY { Lines<V, kEdge>::d_w(from_line, to_line); },
          [&](int y, int x) NIBBLE_INLINE_BODY { return V::load(sums + (kSource * y + x) * stride + c); },
          [&](int t, typename V::F v) NIBBLE_INLINE_BODY { V::store(out + t * out_stride + c, v); });
    });
  }
};

template <int kEdge>
constexpr GradientTransforms kGradientTransforms = {
    .input_u8 = Gradients<kEdge>::template input<uint8_t>,
    .input_bf16 = Gradients<kEdge>::template input<bf16>,
    .output = Gradients<kEdge>::output,
    .weights = Gradients<kEdge>::weights,
    .d_y = Gradients<kEdge>::d_y,
    .d_w = Gradients<kEdge>::d_w,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
