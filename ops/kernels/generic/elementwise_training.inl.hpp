// Training passes over rows of bf16: normalise and activate, its backward, batch norm's backward, pooling sums.
//
// Tried: load_halves for y, z and gradients (one shift less per vector); 1.06 of the time over 48 cases, four busy
// rounds in turn (a Xeon with AMX): both ways are one shuffle per vector, and the shift has a port of its own.
#pragma once
#include "ops/kernels/generic/elementwise_blocks.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

enum class Shortcut { kNone, kPlain, kProjected };

/// The largest float below x > 0.
NIBBLE_INLINE float float_below(float x) {
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, x) - 1);
}

/// The two rows of bits that hold a row of clip classes.
template <typename T>
struct ClassRows {
  T *low, *high;
  NIBBLE_INLINE ClassRows(Rows<T> classes, int64_t r, int64_t n)
      : low(classes.data + r * classes.stride), high(low + clip_class_bytes(n) / 2) {}
};

/// Stores the clip classes (clip_class_bytes in table.hpp) of lanes with the value z and, quantized, t = z * scale
/// before clamping. Bounds are the largest floats below those that a class begins with, so that one comparison of t
/// with each is true from there on.
template <typename V>
NIBBLE_INLINE void store_classes(const ClassRows<uint8_t>& row, int64_t c, typename V::F z, typename V::F t,
                                 typename V::F below_middle, typename V::F top, typename V::F below_end) {
  const auto positive = V::before(V::splat(0.0f), z);
  const auto middle = V::both_before(V::both_before(positive, below_middle, t), t, top);
  V::store_mask(row.low, c, V::differ(positive, middle));
  V::store_mask(row.high, c, V::either(middle, V::both_before(positive, below_end, t)));
}
/// The same without a quantizer.
template <typename V>
NIBBLE_INLINE void store_classes(const ClassRows<uint8_t>& row, int64_t c, typename V::F z) {
  const auto positive = V::before(V::splat(0.0f), z);
  V::store_mask(row.low, c, V::differ(positive, positive));
  V::store_mask(row.high, c, positive);
}

/// The derivatives by class: of the quantizer after ReLU, and whether ReLU passes at all.
template <typename V>
struct ClassSlope {
  typename V::F slope;
  typename V::M passes;
  NIBBLE_INLINE ClassSlope(const ClassRows<const uint8_t>& row, int64_t c) {
    const auto low = V::load_mask(row.low, c), high = V::load_mask(row.high, c);
    passes = V::either(low, high);
    slope = V::select(high, V::splat(1.0f), V::splat(0.5f));
    slope = V::select(V::both(low, high), V::splat(0.0f), slope);
  }
};

/// The passes that differ only in how v comes about are compiled separately; what is done with v is chosen per block by
/// branches that always go one way.
template <Shortcut kShortcut>
void normalise_activate_as(const NormaliseActivateArgs& given) {
  const NormaliseActivateArgs args = given;  // the stores of bytes might change what a reference means
  const Rows<bf16> z = args.z;
  const Rows<uint8_t> codes = args.codes;
  const float* const scales = args.quantizer.scale;
  const Rows<uint8_t> classes = args.classes;
  const bool rounds = z.data != nullptr || args.through_bf16 || args.channel_max != nullptr || classes.data != nullptr;
  over_rows(args.rows, args.n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> m(args.m + c), a(args.a + c), scale(offset(scales, c), 0.0f);
    const PerChannel<B> m2(offset(args.m2, c), 0.0f), a2(offset(args.a2, c), 0.0f);
    const auto added = V::splat(args.quantizer.offset), top = V::splat(args.quantizer.top);
    const auto below_middle = V::splat(float_below(args.quantizer.middle));
    const auto below_end = V::splat(float_below(args.quantizer.end));
    PerChannel<B> largest(offset(args.channel_max, c), 0.0f);
    for (int64_t r = group.first; r < group.end; ++r) {
      fetch_ahead(args.y, group, r, c);
      if constexpr (kShortcut != Shortcut::kNone) fetch_ahead(args.shortcut, group, r, c);
      typename B::F v[B::kVectors]{}, rounded[B::kVectors]{};
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t k = c + i * V::kLanes;
        v[i] = V::load(at(args.y, r, k)) * m.v[i] + a.v[i];
        if constexpr (kShortcut == Shortcut::kPlain) v[i] = v[i] + V::load(at(args.shortcut, r, k));
        if constexpr (kShortcut == Shortcut::kProjected)
          v[i] = v[i] + V::round_bf16(V::load(at(args.shortcut, r, k)) * m2.v[i] + a2.v[i]);
        v[i] = relu<V>(v[i]);
        rounded[i] = v[i];
      }
      if (z.data != nullptr) {
        V::template round_and_store<Domain::kNonNegative>(at(z, r, c), rounded, args.store_z);
      } else if (rounds) {
        NIBBLE_UNROLL
        for (int i = 0; i < B::kVectors; ++i) rounded[i] = V::template round_bf16<Domain::kNonNegative>(rounded[i]);
      }
      if (rounds) {
        NIBBLE_UNROLL
        for (int i = 0; i < B::kVectors; ++i) largest.v[i] = V::max(rounded[i], largest.v[i]);
      }
      if (classes.data != nullptr) {
        const ClassRows<uint8_t> row(classes, r, args.n);
        NIBBLE_UNROLL
        for (int i = 0; i < B::kVectors; ++i) {
          const int64_t k = c + i * V::kLanes;
          if (scales != nullptr)
            store_classes<V>(row, k, rounded[i], rounded[i] * scale.v[i], below_middle, top, below_end);
          else
            store_classes<V>(row, k, rounded[i]);
        }
      }
      if (scales == nullptr) continue;
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i)
        v[i] = clamped<V>(args.through_bf16 ? rounded[i] : v[i], scale.v[i], added, top);
      V::store_codes(at(codes, r, c), v);
    }
    if (args.channel_max != nullptr) largest.store(args.channel_max + c);
  });
}

void normalise_activate(const NormaliseActivateArgs& args) {
  if (args.shortcut.data == nullptr)
    normalise_activate_as<Shortcut::kNone>(args);
  else if (args.m2 == nullptr)
    normalise_activate_as<Shortcut::kPlain>(args);
  else
    normalise_activate_as<Shortcut::kProjected>(args);
}

/// The quantizer's derivative at t = v * scale: 0.5 below middle, 1 below top, 0.5 below end, otherwise 0.
template <typename V>
NIBBLE_INLINE typename V::F clip_slope(typename V::F t, typename V::F middle, typename V::F top, typename V::F end) {
  const auto half = V::splat(0.5f);
  auto slope = V::less(t, end, half, V::splat(0.0f));
  slope = V::less(t, top, V::splat(1.0f), slope);
  return V::less(t, middle, half, slope);
}

/// Where the derivative of an activation comes from.
enum class Activation { kConvolution, kOutput, kClasses };  // v from y, z itself, its clip classes

/// Which gradients there are is checked per vector: compiling the twelve forms separately measured no faster.
template <Activation kFrom>
void activate_backward_as(const ActivateBackwardArgs& args) {
  const Rows<const bf16> through = args.through_quantizer, direct = args.direct;
  const float* const scales = args.quantizer.scale;
  constexpr bool kFromY = kFrom == Activation::kConvolution;
  over_rows(args.rows, args.n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> m(kFromY ? args.m + c : nullptr, 0.0f), a(kFromY ? args.a + c : nullptr, 0.0f);
    const PerChannel<B> scale(kFrom != Activation::kClasses ? offset(scales, c) : nullptr, 0.0f), mean(args.mean + c);
    const auto middle = V::splat(args.quantizer.middle), top = V::splat(args.quantizer.top);
    const auto beyond = V::splat(args.quantizer.end), zero = V::splat(0.0f);
    PerChannel<B> sum(args.sum_g + c), sum_centred(args.sum_g_centred + c);
    for (int64_t r = group.first; r < group.end; ++r) {
      fetch_ahead(args.y, group, r, c);
      if (through.data != nullptr) fetch_ahead(through, group, r, c);
      if (direct.data != nullptr) fetch_ahead(direct, group, r, c);
      if constexpr (kFrom == Activation::kOutput) fetch_ahead(args.z, group, r, c);
      typename B::F y[B::kVectors], g[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t k = c + i * V::kLanes;
        y[i] = V::load(at(args.y, r, k));
        auto slope = zero;
        auto passes = V::before(zero, zero);
        if constexpr (kFrom == Activation::kClasses) {
          const ClassSlope<V> stored(ClassRows<const uint8_t>(args.classes, r, args.n), k);
          slope = stored.slope;
          passes = stored.passes;
        } else {
          auto v = y[i];
          if constexpr (kFromY)
            v = v * m.v[i] + a.v[i];
          else
            v = V::load(at(args.z, r, k));
          passes = V::before(zero, v);
          if (scales != nullptr) slope = clip_slope<V>(v * scale.v[i], middle, top, beyond);
        }
        auto sum_of_both = zero;
        if (through.data != nullptr) {
          sum_of_both = V::load(at(through, r, k));
          if (scales != nullptr) sum_of_both = slope * sum_of_both;
          if (direct.data != nullptr) sum_of_both = sum_of_both + V::load(at(direct, r, k));
        } else if (direct.data != nullptr) {
          sum_of_both = V::load(at(direct, r, k));
        }
        g[i] = V::select(passes, sum_of_both, zero);
      }
      V::round_and_store(at(args.g, r, c), g, args.store_g);
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        sum.v[i] = sum.v[i] + g[i];
        sum_centred.v[i] = sum_centred.v[i] + g[i] * (y[i] - mean.v[i]);
      }
    }
    sum.store(args.sum_g + c);
    sum_centred.store(args.sum_g_centred + c);
  });
}

void activate_backward(const ActivateBackwardArgs& args) {
  if (args.classes.data != nullptr)
    activate_backward_as<Activation::kClasses>(args);
  else if (args.z.data != nullptr)
    activate_backward_as<Activation::kOutput>(args);
  else
    activate_backward_as<Activation::kConvolution>(args);
}

void norm_backward_sums(Rows<const bf16> g, Rows<const bf16> y, int64_t rows, int64_t n, const float* mean,
                        float* sum_g, float* sum_g_centred) {
  over_rows(rows, n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> centre(mean + c);
    PerChannel<B> sum(sum_g + c), sum_centred(sum_g_centred + c);
    for (int64_t r = group.first; r < group.end; ++r) {
      fetch_ahead(g, group, r, c);
      fetch_ahead(y, group, r, c);
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t k = c + i * V::kLanes;
        const auto v = V::load(at(g, r, k));
        sum.v[i] = sum.v[i] + v;
        sum_centred.v[i] = sum_centred.v[i] + v * (V::load(at(y, r, k)) - centre.v[i]);
      }
    }
    sum.store(sum_g + c);
    sum_centred.store(sum_g_centred + c);
  });
}

void norm_backward_apply(Rows<const bf16> g, Rows<const bf16> y, int64_t rows, int64_t n, const float* p,
                         const float* q, const float* r, Rows<bf16> dy, Store store) {
  over_rows(rows, n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> of_g(p + c), of_y(q + c), constant(r + c);
    for (int64_t row = group.first; row < group.end; ++row) {
      fetch_ahead(g, group, row, c);
      fetch_ahead(y, group, row, c);
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t k = c + i * V::kLanes;
        v[i] = of_g.v[i] * V::load(at(g, row, k)) + of_y.v[i] * V::load(at(y, row, k)) + constant.v[i];
      }
      V::store_rounded(at(dy, row, c), v, store);
    }
  });
}

void publish() {
  Wide::publish();
}

void add_bf16(Rows<const bf16> a, Rows<const bf16> b, int64_t rows, int64_t n, Rows<bf16> out) {
  over_rows(rows, n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    for (int64_t r = group.first; r < group.end; ++r) {
      fetch_ahead(a, group, r, c);
      fetch_ahead(b, group, r, c);
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t k = c + i * V::kLanes;
        v[i] = V::load(at(a, r, k)) + V::load(at(b, r, k));
      }
      V::store_rounded(at(out, r, c), v);
    }
  });
}

void max_rows_bf16(const bf16* const* rows, int count, int64_t n, bf16* out, uint8_t* arg) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    typename B::F best[B::kVectors], index[B::kVectors];  // indices up to 255 are exact
    NIBBLE_UNROLL
    for (int i = 0; i < B::kVectors; ++i) {
      best[i] = V::load(rows[0] + c + i * V::kLanes);
      index[i] = V::splat(0.0f);
    }
    for (int r = 1; r < count; ++r) {
      const auto number = V::splat(static_cast<float>(r));
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const auto v = V::load(rows[r] + c + i * V::kLanes);
        index[i] = V::less(best[i], v, number, index[i]);
        best[i] = V::less(best[i], v, v, best[i]);
      }
    }
    // Rounding changes denormals only: whether a compiled maximum keeps or flushes one is up to the compiler.
    V::store_rounded(out + c, best);
    if (arg != nullptr) V::store_codes(arg + c, index);
  });
}

void max_rows_backward_bf16(const bf16* const* g, const uint8_t* const* arg, const uint8_t* place, int count, int64_t n,
                            bf16* out) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const auto zero = V::splat(0.0f);
    PerChannel<B> sum(nullptr, 0.0f);
    for (int k = 0; k < count; ++k) {
      const auto mine = V::splat(static_cast<float>(place[k]));
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t at = c + i * V::kLanes;
        sum.v[i] = sum.v[i] + V::equal(V::load(arg[k] + at), mine, V::load(g[k] + at), zero);
      }
    }
    V::store_rounded(out + c, sum.v);
  });
}

void sum_rows_bf16(Rows<const bf16> x, int64_t rows, int64_t n, float* sum) {
  for (int64_t c = 0; c < n; ++c) sum[c] = 0.0f;
  over_rows(rows, n, [&](auto block, int64_t c, const RowGroup& group) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    PerChannel<B> total(sum + c);
    for (int64_t r = group.first; r < group.end; ++r) {
      fetch_ahead(x, group, r, c);
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) total.v[i] = total.v[i] + V::load(at(x, r, c + i * V::kLanes));
    }
    total.store(sum + c);
  });
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
