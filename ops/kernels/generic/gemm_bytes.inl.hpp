// 4-bit products by byte multiply-adds with 16-bit partial sums, for levels without a dot-product instruction.
//
// u8 x s8 pairs summed into 16 bits never saturate when the weights are 4-bit codes: a pair is at most 2*15*8 = 240 for
// 4-bit activations, so 128 steps fit 16 bits (30 720); for 8-bit activations 2*255*8 = 4 080, so 8 steps (32 640).
// After the transforms of ops/winograd.hpp it is 2*63*64 = 8 064, so 4 steps (32 256). Twice (int8) the products of
// 16-bit multiply-adds per instruction is what makes int4 faster here.
#pragma once
#include "ops/kernels/generic/gemm_pack.inl.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

/// One group of every row and column into the 16-bit partial sums. W adds to an arithmetic: Half (16-bit partial sums),
/// half_zero(), half_step(half, a, b), widen(acc, half).
template <typename W, int kMr, int kNv>
NIBBLE_INLINE void byte_step(typename W::Half (&half)[kMr][kNv], const std::byte* a, const std::byte* b) {
  typename W::B column[kNv];
  NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) column[v] = W::load_b(b + v * W::kLanes * 4);
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    const typename W::A row = W::broadcast(a + r * 4);
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) half[r][v] = W::half_step(half[r][v], row, column[v]);
  }
}

/// One tile of kMr rows, of an A panel of kPanelRows. kFetch: and the B panel at `next` is fetched.
template <typename W, int kMr, int kNv, int kSteps, bool kFetch, int kPanelRows>
NIBBLE_INLINE void byte_tile(int64_t groups, const std::byte* a, const std::byte* b, int32_t* c, int64_t ldc, Into into,
                             const std::byte* next) {
  constexpr int kBytesA = kPanelRows * 4, kBytesB = kNv * W::kLanes * 4, kUnroll = 8;
  static_assert(kSteps % kUnroll == 0);  // only the last round has a remainder, so `next` keeps up with b
  bool first = into == Into::kOverwrite;
  do {
    int64_t now = groups < kSteps ? groups : kSteps;
    groups -= now;
    typename W::Half half[kMr][kNv];
    NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
      NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) half[r][v] = W::half_zero();
    }
    // Eight steps per round: GCC 12 spills some sums across the rounds of a plain loop (55 instead of 65 products per
    // cycle).
    for (; now >= kUnroll; now -= kUnroll, a += kUnroll * kBytesA, b += kUnroll * kBytesB) {
      if constexpr (kFetch) {
        fetch<kUnroll * kBytesB>(next);
        next += kUnroll * kBytesB;
      }
      NIBBLE_UNROLL_ALL for (int s = 0; s < kUnroll; ++s)
          byte_step<W, kMr, kNv>(half, a + s * kBytesA, b + s * kBytesB);
    }
    for (; now > 0; --now, a += kBytesA, b += kBytesB) byte_step<W, kMr, kNv>(half, a, b);
    NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
      NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) {
        int32_t* at = c + r * ldc + v * W::kLanes;
        W::store_c(at, W::widen(first ? W::zero() : W::load_c(at), half[r][v]));
      }
    }
    first = false;
  } while (groups > 0);
}

/// So few steps that the sums of 32 bits stay in registers, next to the 16-bit sum of one vector at a time: 103 GMAC/s
/// where sums in memory take 92 (Zen 3, depth 576).
template <typename W, int kMr, int kNv, int kSteps, bool kFetch, int kPanelRows>
NIBBLE_INLINE void bundle_tile(int64_t groups, const std::byte* a, const std::byte* b, int32_t* c, int64_t ldc,
                               Into into, const std::byte* next) {
  constexpr int kBytesA = kPanelRows * 4, kBytesB = kNv * W::kLanes * 4;
  typename W::Acc acc[kMr][kNv];
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) {
      acc[r][v] = into == Into::kAccumulate ? W::load_c(c + r * ldc + v * W::kLanes) : W::zero();
    }
  }
  for (; groups >= kSteps; groups -= kSteps, a += kSteps * kBytesA, b += kSteps * kBytesB) {
    if constexpr (kFetch) {
      fetch<kSteps * kBytesB>(next);
      next += kSteps * kBytesB;
    }
    NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
      typename W::Half half[kNv];
      NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) half[v] = W::half_zero();
      NIBBLE_UNROLL_ALL for (int s = 0; s < kSteps; ++s) {
        const typename W::A row = W::broadcast(a + s * kBytesA + r * 4);
        NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) half[v] =
            W::half_step(half[v], row, W::load_b(b + s * kBytesB + v * W::kLanes * 4));
      }
      NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) acc[r][v] = W::widen(acc[r][v], half[v]);
    }
  }
  for (; groups > 0; --groups, a += kBytesA, b += kBytesB) step_group<W, kMr, kNv>(acc, a, b);
  NIBBLE_UNROLL_ALL for (int r = 0; r < kMr; ++r) {
    NIBBLE_UNROLL_ALL for (int v = 0; v < kNv; ++v) W::store_c(c + r * ldc + v * W::kLanes, acc[r][v]);
  }
}

template <typename W, int kMr, int kNv, int kSteps, bool kFetch, int kPanelRows = kMr>
NIBBLE_INLINE void byte_or_bundle_tile(int64_t groups, const std::byte* a, const std::byte* b, int32_t* c, int64_t ldc,
                                       Into into, const std::byte* next) {
  if constexpr (kSteps < 8)
    bundle_tile<W, kMr, kNv, kSteps, kFetch, kPanelRows>(groups, a, b, c, ldc, into, next);
  else
    byte_tile<W, kMr, kNv, kSteps, kFetch, kPanelRows>(groups, a, b, c, ldc, into, next);
}

/// As run_tiles.
template <typename W, int kMr, int kNv, int kSteps>
void run_byte_tiles(int k, int rows, const void* a, int64_t a_panel_bytes, const void* b, int32_t* c, int64_t ldc,
                    Into into, const void* next_b) {
  using Tile = void (*)(int64_t, const std::byte*, const std::byte*, int32_t*, int64_t, Into, const std::byte*);
  static constexpr auto kShort =
      by_rows<Tile>([](auto m) -> Tile { return &byte_or_bundle_tile<W, m, kNv, kSteps, true, kMr>; },
                    std::make_integer_sequence<int, kMr - 1>{});
  const auto *const panel = static_cast<const std::byte*>(b), *const next = static_cast<const std::byte*>(next_b);
  const auto* of_panel = static_cast<const std::byte*>(a);
  const int panels = (rows + kMr - 1) / kMr;
  for (int p = 0; p < panels; ++p, of_panel += a_panel_bytes, rows -= kMr, c += kMr * ldc) {
    const bool fetching = next != nullptr && fetches(p, panels);
    if (rows < kMr)
      kShort[rows](k / 4, of_panel, panel, c, ldc, into, fetching ? next : panel);
    else if (fetching)
      byte_or_bundle_tile<W, kMr, kNv, kSteps, true>(k / 4, of_panel, panel, c, ldc, into, next);
    else
      byte_or_bundle_tile<W, kMr, kNv, kSteps, false>(k / 4, of_panel, panel, c, ldc, into, nullptr);
  }
}

template <typename Step, typename W, int kMr, int kNv, int kSteps>
constexpr GemmInt byte_gemm() {
  GemmInt g = quad_gemm<Step, W, kMr, kNv>();
  g.run = run_byte_tiles<Step, kMr, kNv, kSteps>;
  return g;
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
