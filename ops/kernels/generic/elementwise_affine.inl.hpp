// After the product: v = float(acc)*m[c] + a[c] and what becomes of it; rescaling with statistics for training.
#pragma once
#include "ops/kernels/generic/elementwise_blocks.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// The kernel below, compiled with and without the addition of the offset, which would be one of about ten operations
/// on each vector of every inner convolution's output.
template <bool kOffset, typename Acc>
NIBBLE_INLINE void affine_quantize_as(const Acc* acc, int64_t ld, int64_t rows, int64_t n, const float* m,
                                      const float* a, UnsignedQuantizer q, Rows<uint8_t> codes) {
  over_channels<kCodeVectors>(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> mul(m + c), add(a + c), scale(q.scale + c);
    const auto added = V::splat(q.offset), top = V::splat(q.top);
    for (int64_t r = 0; r < rows; ++r) {
      typename B::F code[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const auto v = V::load(acc + r * ld + c + i * V::kLanes) * mul.v[i] + add.v[i];
        code[i] = v * scale.v[i];
        if constexpr (kOffset) code[i] = code[i] + added;  // below 0 it stays below 0.5, and becomes 0
        code[i] = V::min(top, code[i]);                    // a NaN stays one, and becomes 0
      }
      V::store_clipped_codes(at(codes, r, c), code);
    }
  });
}

template <typename Acc>
void affine_quantize(const Acc* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                     UnsignedQuantizer q, Rows<uint8_t> codes) {
  if (q.offset == 0)
    affine_quantize_as<false>(acc, ld, rows, n, m, a, q, codes);
  else
    affine_quantize_as<true>(acc, ld, rows, n, m, a, q, codes);
}

template <typename Acc>
void affine_bf16(const Acc* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a, Rows<bf16> out,
                 const bf16* next_out) {
  const bf16* const next = next_out == nullptr ? out.data : next_out;
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> mul(m + c), add(a + c);
    for (int64_t r = 0; r < rows; ++r) {
      prefetch_block<B>(next + r * out.stride + c);
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) v[i] = V::load(acc + r * ld + c + i * V::kLanes) * mul.v[i] + add.v[i];
      V::store_rounded(at(out, r, c), v);
    }
  });
}

/// The kernel below is compiled for what most blocks have, with a quantizer that floors: kKnown. Without it every row
/// checks what the block has, and five branches take ports from the vectors.
template <bool kKnown, bool kShortcut, bool kOut, typename Acc>
NIBBLE_INLINE void add_relu_rows(const Acc* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                                 const AddReluArgs& given) {
  const AddReluArgs args = given;  // the stores of bytes might change what a reference means
  const Rows<const bf16> shortcut = args.shortcut;
  const UnsignedQuantizer q = args.quantizer;
  // Prefetching again what is there costs less than a branch.
  const bf16* const next = kKnown && args.next_shortcut == nullptr ? shortcut.data : args.next_shortcut;
  const uint8_t* const next_codes = kKnown && args.next_codes == nullptr ? args.codes.data : args.next_codes;
  over_channels<kCodeVectors>(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> mul(m + c), add(a + c);
    PerChannel<B> scale(offset(q.scale, c), 0.0f);
    V::to_code_order(scale.v);
    const auto added = V::splat(q.offset), top = V::splat(q.top);
    for (int64_t r = 0; r < rows; ++r) {
      if (kKnown ? kShortcut : next != nullptr) prefetch_block<B>(next + r * shortcut.stride + c);
      if (kKnown || next_codes != nullptr) prefetch_codes<B>(next_codes + r * args.codes.stride + c);
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) v[i] = V::load(acc + r * ld + c + i * V::kLanes) * mul.v[i] + add.v[i];
      if (kKnown ? kShortcut : shortcut.data != nullptr) {
        typename B::F side[B::kVectors];
        V::load_halves(at(shortcut, r, c), side);
        NIBBLE_UNROLL
        for (int i = 0; i < B::kVectors; ++i) v[i] = v[i] + side[i];
      }
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) v[i] = relu<V>(v[i]);
      V::round_for_codes((kKnown ? kOut : args.out.data != nullptr) ? at(args.out, r, c) : nullptr, v);
      if (!kKnown && q.scale == nullptr) continue;
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        v[i] = v[i] * scale.v[i];
        if constexpr (!kKnown) v[i] = v[i] + added;
        v[i] = V::min(v[i], top);
      }
      V::store_ordered_codes(at(args.codes, r, c), v);
    }
  });
}

template <typename Acc>
void affine_add_relu_bf16(const Acc* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                          const AddReluArgs& args) {
  const bool floors = args.quantizer.scale != nullptr && args.quantizer.offset == 0;
  const bool shortcut = args.shortcut.data != nullptr, out = args.out.data != nullptr;
  if (floors && shortcut && out)  // a block, the last one of a stage, the stem
    add_relu_rows<true, true, true>(acc, ld, rows, n, m, a, args);
  else if (floors && shortcut)
    add_relu_rows<true, true, false>(acc, ld, rows, n, m, a, args);
  else if (floors && !out)
    add_relu_rows<true, false, false>(acc, ld, rows, n, m, a, args);
  else
    add_relu_rows<false, false, false>(acc, ld, rows, n, m, a, args);
}

template <typename Acc>
void affine_f32(const Acc* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a, Rows<float> out) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> mul(m + c), add(a + c);
    for (int64_t r = 0; r < rows; ++r) {
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t k = c + i * V::kLanes;
        V::store(at(out, r, k), V::load(acc + r * ld + k) * mul.v[i] + add.v[i]);
      }
    }
  });
}

template <typename Acc>
void rescale_stats(const Acc* acc, int64_t ld, int64_t rows, int64_t n, const float* scale, Rows<bf16> y, Store store,
                   float* sum, float* sum_sq) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> mul(offset(scale, c), 1.0f);
    PerChannel<B> total(offset(sum, c), 0.0f), squares(offset(sum_sq, c), 0.0f);
    V::to_code_order(total.v);
    V::to_code_order(squares.v);
    for (int64_t r = 0; r < rows; ++r) {
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        v[i] = V::load(acc + r * ld + c + i * V::kLanes) * mul.v[i];
      }
      V::round_and_store_ordered(at(y, r, c), v, store);
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        total.v[i] = total.v[i] + v[i];
        squares.v[i] = squares.v[i] + v[i] * v[i];
      }
    }
    if (sum == nullptr) return;
    V::from_code_order(total.v);
    V::from_code_order(squares.v);
    total.store(sum + c);
    squares.store(sum_sq + c);
  });
}

void scale_bf16_f32(const float* acc, int64_t ld, int64_t rows, int64_t n, const float* scale, Rows<bf16> out,
                    Into into, Store store) {
  over_channels(n, [&](auto block, int64_t c) NIBBLE_INLINE_BODY {
    using B = decltype(block);
    using V = typename B::V;
    const PerChannel<B> mul(offset(scale, c), 1.0f);
    for (int64_t r = 0; r < rows; ++r) {
      typename B::F v[B::kVectors];
      NIBBLE_UNROLL
      for (int i = 0; i < B::kVectors; ++i) {
        const int64_t k = c + i * V::kLanes;
        v[i] = V::load(acc + r * ld + k) * mul.v[i];
        if (into == Into::kAccumulate) v[i] = V::load(at(out, r, k)) + v[i];
      }
      V::store_rounded(at(out, r, c), v, store);
    }
  });
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
