// The products of the AVX512-BF16 level: bf16 by its dot product; codes and fp32 are those of the levels below.
#pragma once
#include "ops/kernels/isa/avx512/dot_products.hpp"
#include "ops/kernels/isa/avx512bf16/pack.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// Pairs of bf16 products into fp32, two additions per step: of the upper elements, then of the lower ones (Intel SDM,
/// VDPBF16PS; so does a Zen 4). Denormals count as zero, before and after each, whatever MXCSR says.
struct DotOfBf16 : FloatFma {
  static constexpr int kKr = 2;
  using A = __m512i;
  using B = __m512i;
  using Pairs = decltype(_mm512_cvtne2ps_pbh(__m512{}, __m512{}));  // the compilers' vector of bf16, or the emulation's
  static NIBBLE_INLINE __m512i load_b(const std::byte* p) { return _mm512_load_si512(p); }
  static NIBBLE_INLINE __m512i broadcast(const std::byte* p) { return IntLanes::broadcast(p); }
  static NIBBLE_INLINE __m512 step(__m512 acc, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(acc, __builtin_bit_cast(Pairs, a), __builtin_bit_cast(Pairs, b));
  }
};

constexpr GemmFloat<bf16> bf16_gemm() {
  GemmFloat<bf16> g;
  g.mr = kMr;
  g.nr = kNv * DotOfBf16::kLanes;
  g.kr = DotOfBf16::kKr;
  g.a_bytes = g.b_bytes = 2;
  g.pack_a = pack_rows<Words, WordsOfBf16<Words>, kMr, bf16>;
  g.pack_a_transposed = pack_pairs_transposed<kMr>;
  g.pack_b = pack_pairs_of_columns<kNv * DotOfBf16::kLanes>;
  g.pack_b_rows = pack_pairs_gathered<kNv * DotOfBf16::kLanes, bf16>;
  g.pack_b_rows_u8 = pack_pairs_gathered<kNv * DotOfBf16::kLanes, uint8_t>;
  g.run = run_tiles<DotOfBf16, kMr, kNv>;
  g.run_gathered = run_gathered<DotOfBf16, kMr, kNv>;
  return g;
}

/// bf16 of a small integer.
constexpr uint16_t half_of(int value) {
  return static_cast<uint16_t>(__builtin_bit_cast(uint32_t, static_cast<float>(value)) >> 16);
}

/// A product of known results, a different one in every row and column.
bool probe_dot() {
  constexpr int kNr = kNv * DotOfBf16::kLanes;
  alignas(64) uint16_t a[2 * kMr];
  alignas(64) uint16_t b[2 * kNr];
  alignas(64) float sums[kMr * kNr];
  for (int r = 0; r < kMr; ++r) {
    a[2 * r] = half_of(r + 1);
    a[2 * r + 1] = half_of(2);
  }
  for (int n = 0; n < kNr; ++n) {
    b[2 * n] = half_of(n + 1);
    b[2 * n + 1] = half_of(-3 * n);
  }
  for (float& s : sums) s = 0.5f;
  run_tiles<DotOfBf16, kMr, kNv>(DotOfBf16::kKr, kMr, a, sizeof a, b, sums, kNr, Into::kAccumulate, nullptr);
  for (int r = 0; r < kMr; ++r)
    for (int n = 0; n < kNr; ++n)
      if (sums[r * kNr + n] != 0.5f + static_cast<float>((r + 1) * (n + 1) - 2 * 3 * n)) return false;
  return true;
}

// Entries other than bf16 are named again, for builds without the levels below (kernel_levels).
constexpr Table kProducts = {
    .u8s8 = dot_gemm(),
    .u8s4 = dot_gemm(),
    .u4s4 = dot_gemm(),
    .u6s7 = dot_gemm(),
    .s16s14 = wide_gemm(),
    .bf16_gemm = bf16_gemm(),
    .f32_gemm = float_gemm<float, FloatFma, Words, kMr, kNv>(),
    .ew = {},
    .probe = probe_dot,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
