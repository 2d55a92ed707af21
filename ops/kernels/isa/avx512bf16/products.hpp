// The products of the AVX512-BF16 level: bf16 by its dot product; codes and fp32 are inherited.
#pragma once
#include "ops/kernels/isa/avx512/gemm.hpp"
#include "ops/kernels/isa/avx512bf16/pack.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// Pairs of bf16 products into fp32, two additions a step: of the upper elements, then of the lower ones (Intel SDM,
/// VDPBF16PS; so does a Zen 4). Denormals count as zero, before and behind each, whatever MXCSR says.
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
  return g;
}

/// A product of known result in every lane.
bool probe_dot() {
  alignas(64) uint16_t a[2 * kMr];
  alignas(64) uint16_t b[2 * kNv * DotOfBf16::kLanes];
  alignas(64) float sums[kMr * kNv * DotOfBf16::kLanes];
  for (uint16_t& v : a) v = 0x4040;                                                      // 3 in bf16
  for (int i = 0; i < 2 * kNv * DotOfBf16::kLanes; ++i) b[i] = i % 2 ? 0xc000 : 0x3f80;  // 1, -2
  for (float& s : sums) s = 0.5f;
  run_tiles<DotOfBf16, kMr, kNv>(DotOfBf16::kKr, 1, a, sizeof a, b, sums, kNv * DotOfBf16::kLanes, Into::kAccumulate);
  for (const float s : sums)
    if (s != 0.5f + 3 - 6) return false;
  return true;
}

constexpr Table kProducts = {
    .u8s8 = {},
    .u8s4 = {},
    .u4s4 = {},
    .u6s7 = {},
    .bf16_gemm = bf16_gemm(),
    .f32_gemm = {},
    .ew = {},
    .probe = probe_dot,
};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
