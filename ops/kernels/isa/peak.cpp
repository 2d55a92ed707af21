// Loops of one instruction sequence on registers. Functions carry their target, so the file needs no flags of a level.
#include "ops/kernels/isa/peak.hpp"

#if defined(NIBBLE_X86_KERNELS)
#include <immintrin.h>

#include "ops/kernels/isa/amx/palette.hpp"
#endif

namespace nibble::kernels {

#if defined(NIBBLE_X86_KERNELS)
namespace {

// Twelve chains hide the latency of every instruction measured (4 or 5 cycles, two per cycle; of the bf16 dot product
// on a Zen 4, where twelve chains make exactly twice the products of FMA).
constexpr int kChains = 12;
#if defined(__clang__)
#define NIBBLE_UNROLL_CHAINS _Pragma("unroll")
#else
#define NIBBLE_UNROLL_CHAINS _Pragma("GCC unroll 12")
#endif

/// One function per instruction sequence. The operand passes through an empty asm, so that the product is not moved
/// out of the loop; the sums do at the end, so that they are not dropped.
#define NIBBLE_PEAK_LOOP(name, features, V, zero, step)                                        \
  __attribute__((target(features))) void name(int64_t rounds) {                                \
    V acc[kChains], x = zero, y = zero;                                                        \
    NIBBLE_UNROLL_CHAINS for (int i = 0; i < kChains; ++i) acc[i] = zero;                      \
    for (int64_t r = 0; r < rounds; ++r) {                                                     \
      NIBBLE_UNROLL_CHAINS for (int i = 0; i < kChains; ++i) {                                 \
        __asm__ volatile("" : "+v"(x), "+v"(y));                                               \
        acc[i] = step;                                                                         \
      }                                                                                        \
    }                                                                                          \
    NIBBLE_UNROLL_CHAINS for (int i = 0; i < kChains; ++i) __asm__ volatile("" ::"v"(acc[i])); \
  }

#define NIBBLE_AVX512 "avx512f,avx512bw,avx512vl,avx512dq"
NIBBLE_PEAK_LOOP(fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(x, y, acc[i]))
NIBBLE_PEAK_LOOP(pairs_256, "avx2", __m256i, _mm256_setzero_si256(), _mm256_add_epi32(acc[i], _mm256_madd_epi16(x, y)))
NIBBLE_PEAK_LOOP(bytes_256, "avx2", __m256i, _mm256_setzero_si256(),
                 _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(x, y)))
NIBBLE_PEAK_LOOP(dot_256, "avx2,avxvnni", __m256i, _mm256_setzero_si256(), _mm256_dpbusd_avx_epi32(acc[i], x, y))
NIBBLE_PEAK_LOOP(fma_512, NIBBLE_AVX512, __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(x, y, acc[i]))
NIBBLE_PEAK_LOOP(pairs_512, NIBBLE_AVX512, __m512i, _mm512_setzero_si512(),
                 _mm512_add_epi32(acc[i], _mm512_madd_epi16(x, y)))
NIBBLE_PEAK_LOOP(bytes_512, NIBBLE_AVX512, __m512i, _mm512_setzero_si512(),
                 _mm512_add_epi16(acc[i], _mm512_maddubs_epi16(x, y)))
NIBBLE_PEAK_LOOP(dot_512, NIBBLE_AVX512 ",avx512vnni", __m512i, _mm512_setzero_si512(),
                 _mm512_dpbusd_epi32(acc[i], x, y))

NIBBLE_PEAK_LOOP(dot_bf16_512, NIBBLE_AVX512 ",avx512bf16", __m512, _mm512_setzero_ps(),
                 _mm512_dpbf16_ps(acc[i], __builtin_bit_cast(__m512bh, x), __builtin_bit_cast(__m512bh, y)))

/// Tiles of zeros, as they are loaded; four sums as in the kernels.
#define NIBBLE_TILE_LOOP(name, features, product)               \
  __attribute__((target(features))) void name(int64_t rounds) { \
    _tile_loadconfig(&kTileConfig);                             \
    for (int64_t r = 0; r < rounds; ++r) {                      \
      product(0, 4, 6);                                         \
      product(1, 4, 7);                                         \
      product(2, 5, 6);                                         \
      product(3, 5, 7);                                         \
    }                                                           \
    _tile_release();                                            \
  }
NIBBLE_TILE_LOOP(tiles_codes, "amx-tile,amx-int8", _tile_dpbusd)
NIBBLE_TILE_LOOP(tiles_bf16, "amx-tile,amx-bf16", _tile_dpbf16ps)

struct Loop {
  void (*run)(int64_t rounds) = nullptr;
  int64_t macs = 0;  // of one round
};

Loop vector_loop(Isa isa, Unit unit) {
  const bool wide = isa >= Isa::avx512;
  const int64_t bytes = (wide ? 64 : 32) * kChains;  // of all chains
  if (unit == Unit::kBf16 && isa >= Isa::avx512bf16) return {dot_bf16_512, bytes / 2};
  if (unit == Unit::kFloat || unit == Unit::kBf16) return {wide ? fma_512 : fma_256, bytes / 4};
  if (isa == Isa::avxvnni) return {dot_256, bytes};
  if (isa >= Isa::avx512vnni) return {dot_512, bytes};
  if (unit == Unit::kCode8) return {wide ? pairs_512 : pairs_256, bytes / 2};
  return {wide ? bytes_512 : bytes_256, bytes};
}

}  // namespace

int64_t peak_macs(Isa isa, Unit unit, int64_t rounds) {
  if (isa == Isa::scalar) return 0;
  Loop loop = vector_loop(isa, unit);
  if (isa == Isa::amx && unit == Unit::kBf16) loop = {tiles_bf16, 4 * 16 * 16 * 32};
  if (isa == Isa::amx && (unit == Unit::kCode8 || unit == Unit::kCode4)) loop = {tiles_codes, 4 * 16 * 16 * 64};
  loop.run(rounds);
  return loop.macs * rounds;
}
#else
int64_t peak_macs(Isa, Unit, int64_t) {
  return 0;
}
#endif

}  // namespace nibble::kernels
