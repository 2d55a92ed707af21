// The weight gradient on AMX tiles: blocks of 32 outputs x 32 channels, points in steps of 32.
//
// The left operand is transposed once, the right one is paired: two neighbouring points of a channel in one word. Pairs
// are made twice, from even and from odd points, so that a convolution's tap, a shift by whole points, is an address in
// one of the two and every row of every tile lies on a cache line (a row that straddles two takes six times as long).
#pragma once
#include "ops/kernels/isa/amx/gemm.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// Rows of 128 bits that one vector holds, and elements of bf16 in each.
constexpr int kLaneElements = 8, kStepPoints = 32;
constexpr int64_t kPairsAhead = 16;

/// Up to eight elements of four rows, one row per lane.
template <bool kWhole>
NIBBLE_INLINE __m512i four_rows(const bf16* const* rows, int64_t offset, uint16_t present_bytes) {
  const auto row = [&](int i) {
    return kWhole ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + offset))
                  : _mm_maskz_loadu_epi8(present_bytes, rows[i] + offset);
  };
  __m512i v = _mm512_castsi128_si512(row(0));
  v = _mm512_inserti32x4(v, row(kLaneElements), 1);
  v = _mm512_inserti32x4(v, row(2 * kLaneElements), 2);
  return _mm512_inserti32x4(v, row(3 * kLaneElements), 3);
}

/// rows[32][offset + 8] -> [8][32 points]. Lane l of vector i begins as point 8*l + i, so that three stages of
/// unpacking inside the lanes end with points in order: 24 shuffles for 8 rows, where joining words and transposing
/// 16 x 16 of them takes 40.
template <bool kWhole>
NIBBLE_INLINE void transpose_outputs(const bf16* const* rows, int64_t offset, uint16_t present_bytes, uint32_t* to) {
  __m512i v[8], t[8], u[8];
  NIBBLE_UNROLL_ALL for (int i = 0; i < 8; ++i) v[i] = four_rows<kWhole>(rows + i, offset, present_bytes);
  NIBBLE_UNROLL_ALL for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi16(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi16(v[i], v[i + 1]);
  }
  NIBBLE_UNROLL_ALL for (int i = 0; i < 8; i += 4) {
    u[i] = _mm512_unpacklo_epi32(t[i], t[i + 2]);
    u[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 2]);
    u[i + 2] = _mm512_unpacklo_epi32(t[i + 1], t[i + 3]);
    u[i + 3] = _mm512_unpackhi_epi32(t[i + 1], t[i + 3]);
  }
  NIBBLE_UNROLL_ALL for (int i = 0; i < 4; ++i) {
    Words::store(to + 2 * i * Words::kLanes, _mm512_unpacklo_epi64(u[i], u[i + 4]));
    Words::store(to + (2 * i + 1) * Words::kLanes, _mm512_unpackhi_epi64(u[i], u[i + 4]));
  }
}

/// Rows of up to 32 outputs into [step][32 outputs][32 points].
void pack_gradient_left(const bf16* const* rows, int64_t offset, int64_t points, int outputs, void* panel) {
  auto* to = static_cast<uint32_t*>(panel);
  for (int64_t i = 0; i < points; i += kStepPoints) {
    for (int o = 0; o < kPanelRows; o += kLaneElements, to += kLaneElements * Words::kLanes) {
      if (o + kLaneElements <= outputs) {
        transpose_outputs<true>(rows + i, offset + o, 0, to);
      } else if (o < outputs) {
        transpose_outputs<false>(rows + i, offset + o, static_cast<uint16_t>((1u << (2 * (outputs - o))) - 1), to);
      } else {
        for (int r = 0; r < kLaneElements; ++r) Words::store(to + r * Words::kLanes, Words::zero());
      }
    }
  }
}

// Sixteen channels of a pixel as floats whose lower halves are zero, from channel c on; `present` of them are read.
struct PairsOfBf16 {
  static NIBBLE_INLINE const bf16* at(const std::byte* pixel, int64_t c) {
    return reinterpret_cast<const bf16*>(pixel) + c;
  }
  static NIBBLE_INLINE __m512i floats(const std::byte* pixel, int64_t c, int present) {
    return Words::some_floats(at(pixel, c), present);
  }
};
template <int kOffset>
struct PairsOfBytes {
  static NIBBLE_INLINE const std::byte* at(const std::byte* pixel, int64_t c) { return pixel + c; }
  static NIBBLE_INLINE __m512i floats(const std::byte* pixel, int64_t c, int present) {
    const uint16_t mask = static_cast<uint16_t>((1u << present) - 1);
    const __m512i codes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, at(pixel, c)));
    // Missing channels become -kOffset, finite values in columns that are never read.
    return _mm512_castps_si512(
        _mm512_cvtepi32_ps(kOffset == 0 ? codes : _mm512_sub_epi32(codes, _mm512_set1_epi32(kOffset))));
  }
};
struct PairsOfNibbles {
  static NIBBLE_INLINE const std::byte* at(const std::byte* pixel, int64_t c) { return pixel + c / 2; }
  /// Word 2i is byte i, word 2i + 1 its upper half; the table is looked up by the lowest four bits.
  static NIBBLE_INLINE __m512i floats(const std::byte* pixel, int64_t c, int present) {
    alignas(64) static constexpr float kValues[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint16_t mask = static_cast<uint16_t>((1u << ((present + 1) / 2)) - 1);
    const __m512i bytes = _mm512_cvtepu8_epi64(_mm_maskz_loadu_epi8(mask, at(pixel, c)));
    const __m512i codes = _mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 28));
    return _mm512_permutexvar_epi32(codes, _mm512_load_si512(kValues));
  }
};

/// Words of the channels of two pixels whose floats are not needed again.
template <typename Pixels>
NIBBLE_INLINE __m512i pair_of(const std::byte* a, const std::byte* b, int64_t c, int present) {
  return Words::join(Pixels::floats(a, c, present), Pixels::floats(b, c, present));
}
/// Nibbles of both pixels at once: every word of two bytes becomes the four codes a low, b low, a high, b high of 16
/// bits, looked up by their lowest five bits, of which the table ignores one.
template <>
NIBBLE_INLINE __m512i pair_of<PairsOfNibbles>(const std::byte* a, const std::byte* b, int64_t c, int present) {
  using P = PairsOfNibbles;
  alignas(64) static constexpr uint16_t kValues[32] = {0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                                                       0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170,
                                                       0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                                                       0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
  const uint16_t mask = static_cast<uint16_t>((1u << ((present + 1) / 2)) - 1);
  const __m128i bytes =
      _mm_unpacklo_epi8(_mm_maskz_loadu_epi8(mask, P::at(a, c)), _mm_maskz_loadu_epi8(mask, P::at(b, c)));
  __m512i codes = _mm512_cvtepu16_epi64(bytes);
  codes = _mm512_or_si512(codes, _mm512_slli_epi64(codes, 8));
  codes = _mm512_or_si512(codes, _mm512_slli_epi64(codes, 28));
  return _mm512_permutexvar_epi16(codes, _mm512_load_si512(kValues));
}

/// A block's two panels of 16 channels are consecutive.
template <typename Pixels, bool kEven, bool kOdd>
void pack_pairs(const std::byte* const* pixels, int64_t c, int channels, int64_t pairs, uint32_t* even, uint32_t* odd) {
  const int64_t panel = pairs * Words::kLanes;
  for (int t = 0; t < kPanelColumns; t += Words::kLanes, even += panel, odd += panel) {
    const int present = channels - t < Words::kLanes ? channels - t : Words::kLanes;
    if (present <= 0) {
      for (int64_t i = 0; i < panel; i += Words::kLanes) {
        if constexpr (kEven) Words::store(even + i, Words::zero());
        if constexpr (kOdd) Words::store(odd + i, Words::zero());
      }
      continue;
    }
    __m512i first = kOdd ? Pixels::floats(pixels[0], c + t, present) : Words::zero();
    for (int64_t q = 0; q < pairs; ++q) {
      if (t == 0) {  // pixels come from memory, a few bytes of each, which no hardware foresees
        const int64_t ahead = 2 * (q + kPairsAhead < pairs ? q + kPairsAhead : pairs);
        _mm_prefetch(reinterpret_cast<const char*>(Pixels::at(pixels[ahead - 1], c)), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(Pixels::at(pixels[ahead], c)), _MM_HINT_T0);
      }
      if constexpr (kOdd) {
        const __m512i second = Pixels::floats(pixels[2 * q + 1], c + t, present);
        if constexpr (kEven) Words::store(even + q * Words::kLanes, Words::join(first, second));
        first = Pixels::floats(pixels[2 * q + 2], c + t, present);
        Words::store(odd + q * Words::kLanes, Words::join(second, first));
      } else {
        Words::store(even + q * Words::kLanes, pair_of<Pixels>(pixels[2 * q], pixels[2 * q + 1], c + t, present));
      }
    }
  }
}

template <typename Pixels>
void pack_gradient_right(const void* const* pixels, int64_t channel, int channels, int64_t pairs, void* even,
                         void* odd) {
  const auto* const from = reinterpret_cast<const std::byte* const*>(pixels);
  auto *const e = static_cast<uint32_t*>(even), *const o = static_cast<uint32_t*>(odd);
  if (even != nullptr && odd != nullptr) {
    pack_pairs<Pixels, true, true>(from, channel, channels, pairs, e, o);
  } else if (even != nullptr) {
    pack_pairs<Pixels, true, false>(from, channel, channels, pairs, e, e);
  } else {
    pack_pairs<Pixels, false, true>(from, channel, channels, pairs, o, o);
  }
}

/// Two rows of the block that the caller wants prefetched, 64 bytes at a time.
NIBBLE_INLINE void bring_rows(const BlockProduct& p, int row) {
  for (int r = row; r < row + 2; ++r) {
    const auto* const at = reinterpret_cast<const char*>(p.ahead + r * p.ahead_stride);
    _mm_prefetch(at, _MM_HINT_T0);
    _mm_prefetch(at + kRowBytes, _MM_HINT_T0);
  }
}

/// Loads a tile of the operand that the next product reads again (kept in L1), or of the one that passes by: without
/// the hint it would push out the other one (30 instead of 23 ns per step, of which the products take 22).
#define NIBBLE_LOAD_TILE(tile, from, again) \
  if constexpr (again)                      \
    _tile_loadd(tile, from, kRowBytes);     \
  else                                      \
    _tile_stream_loadd(tile, from, kRowBytes)

/// Begins a tile of a block's sums with what was summed before, or with zeros.
#define NIBBLE_BEGIN_TILE(tile, at)               \
  if (into == Into::kAccumulate)                  \
    _tile_loadd(tile, p->sums + (at), kSumBytes); \
  else                                            \
    _tile_zero(tile)

/// As in multiply_strided, the first step of a block stores every tile of the last one just before it multiplies into
/// it.
template <bool kLeftAgain>
NIBBLE_INLINE void run_blocks(const BlockProduct* products, int64_t count, Into into) {
  constexpr int kSumBytes = kPanelColumns * 4, kLow = kTileRows * kPanelColumns;
  HeldSums<float> held{.c = nullptr, .ldc = 0, .rows = 0};  // a default constructor would be a symbol of every level
  for (const BlockProduct* p = products; p < products + count; ++p) {
    int brought = 0;
    bool turned = false;
    for (const StepRun* run = p->runs; run < p->runs + p->run_count; ++run) {
      const auto* a = static_cast<const std::byte*>(p->left) + run->left * 2 * kTileBytes;
      const auto* b = static_cast<const std::byte*>(p->right) + run->right * kTileBytes;
      for (int64_t s = 0; s < run->steps; ++s, a += 2 * kTileBytes, b += kTileBytes, turned = true) {
        NIBBLE_LOAD_TILE(4, a, kLeftAgain);
        NIBBLE_LOAD_TILE(6, b, !kLeftAgain);
        NIBBLE_LOAD_TILE(5, a + kTileBytes, kLeftAgain);
        NIBBLE_LOAD_TILE(7, b + p->right_panel_bytes, !kLeftAgain);
        if (brought < kPanelRows) bring_rows(*p, brought);
        brought += 2;
        if (!turned) {
          NIBBLE_STORE_HELD(0, 0, 0);
          NIBBLE_BEGIN_TILE(0, 0);
        }
        _tile_dpbf16ps(0, 4, 6);
        if (!turned) {
          NIBBLE_STORE_HELD(1, 0, 16);
          NIBBLE_BEGIN_TILE(1, 16);
        }
        _tile_dpbf16ps(1, 4, 7);
        if (!turned) {
          NIBBLE_STORE_HELD(2, kTileRows, 0);
          NIBBLE_BEGIN_TILE(2, kLow);
        }
        _tile_dpbf16ps(2, 5, 6);
        if (!turned) {
          NIBBLE_STORE_HELD(3, kTileRows, 16);
          NIBBLE_BEGIN_TILE(3, kLow + 16);
        }
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    if (!turned) {
      store_held(held);
      NIBBLE_BEGIN_TILE(0, 0);
      NIBBLE_BEGIN_TILE(1, 16);
      NIBBLE_BEGIN_TILE(2, kLow);
      NIBBLE_BEGIN_TILE(3, kLow + 16);
    }
    held = {.c = p->sums, .ldc = kPanelColumns, .rows = kPanelRows};
  }
  store_held(held);
}
#undef NIBBLE_STORE_HELD
#undef NIBBLE_BEGIN_TILE
#undef NIBBLE_LOAD_TILE

template <bool kLeftAgain>
__attribute__((noinline)) void run_gradient_blocks(const BlockProduct* products, int64_t count, Into into) {
  // GCC 12's tile loads do not say that they read memory: pending stores to the panels have to be done before them.
  __asm__ volatile("" ::: "memory");
  _tile_loadconfig(&kTileConfig);
  run_blocks<kLeftAgain>(products, count, into);
  _tile_release();
  __asm__ volatile("" ::: "memory");
}

constexpr WeightGradient tile_weight_gradient() {
  WeightGradient g;
  g.pack_left = pack_gradient_left;
  g.pack_right_bf16 = pack_gradient_right<PairsOfBf16>;
  g.pack_right_u8 = pack_gradient_right<PairsOfBytes<0>>;
  g.pack_right_signed = pack_gradient_right<PairsOfBytes<128>>;
  g.pack_right_u4 = pack_gradient_right<PairsOfNibbles>;
  g.run_left_again = run_gradient_blocks<true>;
  g.run_right_again = run_gradient_blocks<false>;
  return g;
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
