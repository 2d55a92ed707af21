#include "ops/winograd.hpp"

#include <array>
#include <cassert>
#include <type_traits>

namespace nibble::winograd {

namespace {

/// Twice G of tiles with an edge of 2, R, and what is added to their transformed bytes except at one position.
constexpr int kTwiceG[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 2}};
constexpr int kR[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};
constexpr int64_t kBytePositions = 16, kByteOutputs = 4, kOffset = 30, kWithoutOffset = 5;
/// G of tiles with an edge of 4, without its denominators.
constexpr int kWholeG[6][3] = {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {1, 2, 4}, {1, -2, 4}, {0, 0, 1}};

/// Products of an h x w map in tiles, per input and output channel; 9 * h * w without Winograd.
int64_t products(int64_t edge, int64_t h, int64_t w) {
  return (edge + 2) * (edge + 2) * ceil_div(h, edge) * ceil_div(w, edge);
}

/// Tiles of a served block: eight panels of six on AVX2, as kBlockRows; fewer where their transformed channels would be
/// more than 512 KiB, the smallest second-level cache we know. With 512 channels in 16 bits, 32 tiles took 13.0 ms
/// where 16, which read the weights twice as often, took 16.3, and 48 no less than 32 (8 images of 7x7, Zen 3; tiles
/// with an edge of 4 were not tried).
int64_t served_tiles(int64_t positions, int64_t channel_bytes) {
  return std::clamp<int64_t>((int64_t{512} << 10) / (positions * channel_bytes), 8, kBlockRows);
}

/// Points of a map from which on tiles of 4x4 are used. The weights of such a layer are 36 values for 9, for gradients
/// made again at every step and read once per shard.
constexpr int64_t kLargeMap = 64;
/// Pairs of channels of a served layer up to which they are used. With 256 channels, 4.5 MiB of weights, batch 1 took
/// 1.14 times as long where there is a dot product of bytes and batch 32 no less; 1.01 to 1.04 times and as long on
/// avx2 and avx512 (Zen 5).
constexpr int64_t kMostPairs = 128 * 128;
/// Bytes of sums over tiles of 4x4 (144 per pair of channels), of which a shard has one set and the weights of the
/// input's gradient are as many: with 256 channels, 9 MiB, layers gain by them, with 512 they would be 36 MiB.
constexpr int64_t kMostSumBytes = int64_t{16} << 20;
/// The same on levels whose plain products are of pairs of bf16 (kr 2): with 256 channels the weights' gradients took
/// 0.9 to 1.15 times as long in tiles of 4x4 on a Zen 5, the input's 0.93, without the transform of the weights; with
/// 128 channels 0.66 and 0.78, with 64 0.79 and 0.73. Tiles of 2x2 took 1.08 to 1.3 times and 0.9 to 1.15 times as long
/// on a Zen 4.
constexpr int64_t kMostSumBytesOfPairs = int64_t{4} << 20;
/// The same for tiles of 2x2: with 1,024 channels, twice as many as layers were timed with; with 4,096 a set would be a
/// GiB.
constexpr int64_t kMostSumBytesOfSmall = int64_t{64} << 20;

/// The tap of the first row and column that a grid point reads.
Tap top_left(const Gather& g) {
  Tap corner = g.taps.front();
  for (const Tap& t : g.taps) {
    corner.dh = std::min(corner.dh, t.dh);
    corner.dw = std::min(corner.dw, t.dw);
  }
  return corner;
}

}  // namespace

/// Outputs of a map that is one tile with an edge of 2 (the last stage's at 64 px and less). An image then is one row
/// for each of 16 matrices instead of four for each of nine: by plain products w4a4-fl8, x1, takes 0.93 and 0.66 of the
/// time for one image at 64 and 32 px, for 32 images 1.00 and 0.88 (two threads of a Zen 5; avx2 0.98, 0.88, 1.02,
/// 0.93).
constexpr int64_t kOneTile = 4;

Form form_of(const ConvShape& s, int64_t largest_multiplier, int weight_bits) {
  // In tiles with an edge of 2 a sum of products fits int32 (k * 63 * 60, k * 1020 * 1152), and so does an output times
  // four (k * 4 * 9 * 255 * 128, which is as much as the latter); for the others fits_larger_tiles tells.
  constexpr int64_t kMostChannels = 32768, kMostWide = 1024;
  if (s.kh != 3 || s.kw != 3 || s.stride != 1 || s.ic > kMostChannels) return Form::kNone;
  if (s.oh() * s.ow() <= kOneTile) return Form::kNone;
  if (weight_bits > 4) return s.ic <= kMostWide ? Form::kWide : Form::kNone;
  return largest_multiplier <= 15 ? Form::kBytes : Form::kNone;  // u8s4 is fast enough
}

int64_t wide_edge(const ConvShape& s, bool dot_of_bytes) {
  const int64_t h = s.oh(), w = s.ow();
  const bool suited = h * w >= kLargeMap && s.ic * s.oc <= kMostPairs;
  // Two of these products take as long as one of bytes, and transforms come on top.
  if (dot_of_bytes) return suited && 4 * 2 * products(4, h, w) <= 3 * 9 * h * w ? 4 : 0;
  return suited && products(4, h, w) < products(2, h, w) ? 4 : 2;
}

bool fits_larger_tiles(const int8_t* codes, int64_t filters, int64_t k, int64_t largest_multiplier) {
  constexpr int64_t kLimit = int64_t{1} << 25;
  for (int64_t o = 0; o < filters; ++o, codes += k) {
    int64_t positive = 0, negative = 0;
    for (int64_t i = 0; i < k; ++i) (codes[i] > 0 ? positive : negative) += codes[i];
    if (std::max(positive, -negative) * largest_multiplier >= kLimit) return false;
  }
  return true;
}

template <typename T>
void transform_weights(int64_t edge, const int8_t* codes, int64_t count, int64_t ic, T* out) {
  assert(edge == 2 || sizeof(T) > 1);
  const int64_t side = edge + 2;
  const int(*const lines)[3] = edge == 2 ? kTwiceG : kWholeG;
  for (int64_t o = 0; o < count; ++o, codes += 9 * ic) {
    for (int64_t p = 0; p < side * side; ++p) {
      T* const to = out + (p * count + o) * ic;
      const auto& by_row = lines[p / side];
      const auto& by_column = lines[p % side];
      int factor[9];
      for (int t = 0; t < 9; ++t) factor[t] = by_row[t / 3] * by_column[t % 3];
      for (int64_t c = 0; c < ic; ++c) {
        int sum = 0;
        for (int t = 0; t < 9; ++t) sum += factor[t] * codes[t * ic + c];
        to[c] = static_cast<T>(sum);
      }
    }
  }
}

template void transform_weights(int64_t, const int8_t*, int64_t, int64_t, int8_t*);
template void transform_weights(int64_t, const int8_t*, int64_t, int64_t, int16_t*);

void set_offset_start(const int8_t* transformed, int64_t count, int64_t ic, int32_t* start, int64_t stride) {
  for (int64_t o = 0; o < count; ++o) {
    int32_t added[kBytePositions];
    for (int64_t p = 0; p < kBytePositions; ++p) {
      const int8_t* const row = transformed + (p * count + o) * ic;
      int32_t sum = 0;
      for (int64_t c = 0; c < ic; ++c) sum += row[c];
      added[p] = p == kWithoutOffset ? 0 : sum * static_cast<int32_t>(kOffset);
    }
    for (int64_t q = 0; q < kByteOutputs; ++q) {
      int32_t sum = 0;
      for (int64_t p = 0; p < kBytePositions; ++p) sum += kR[q / 2][p / 4] * kR[q % 2][p % 4] * added[p];
      start[q * stride + o] = sum;
    }
  }
}

int64_t gradient_edge(const ConvShape& s, int kr) {
  if (s.kh != 3 || s.kw != 3 || s.stride != 1) return 0;
  // Of the maps of the input and of the output.
  const auto both = [&](const auto& holds) { return holds(s.h, s.w) && holds(s.oh(), s.ow()); };
  const auto at_most = [&](int64_t edge, int64_t parts, int64_t of) {
    return both([&](int64_t h, int64_t w) { return of * products(edge, h, w) <= parts * 9 * h * w; });
  };
  const bool large =
      both([](int64_t h, int64_t w) { return h * w >= kLargeMap && products(4, h, w) < products(2, h, w); });
  const int64_t sum_bytes = 36 * s.ic * s.oc * int64_t{sizeof(float)};
  if (kr > 1) return large && at_most(4, 1, 3) && sum_bytes <= kMostSumBytesOfPairs ? 4 : 0;
  if (!at_most(2, 3, 4) || 16 * s.ic * s.oc * int64_t{sizeof(float)} > kMostSumBytesOfSmall)
    return 0;  // maps of 1x1 and 3x3, and lines
  return large && sum_bytes <= kMostSumBytes ? 4 : 2;
}

void transform_gradient_weights(const Tiles& tiles, const bf16* weights, int64_t count, int64_t ic, float* out) {
  const Tap corner = top_left(tiles.g);
  const auto transform = gradient_transforms(kernels::active().ew, tiles.edge).weights;
  for (int64_t o = 0; o < count; ++o, weights += 9 * ic) {
    const bf16* taps[9];
    for (const Tap& t : tiles.g.taps) taps[(t.dh - corner.dh) * 3 + t.dw - corner.dw] = weights + t.weight_tap * ic;
    transform(taps, ic, out + o * ic, count * ic);
  }
}

int64_t rows_per_block(const Tiles& tiles, int64_t count) {
  return std::clamp<int64_t>(count / std::max<int64_t>(1, tiles.across()), 1,
                             std::max<int64_t>(1, tiles.g.n * tiles.down()));
}

Cut cut_for_serving(const Tiles& tiles, const Panels& b, int64_t workers, int64_t mr, int64_t a_bytes) {
  Cut cut;
  const Gather& g = tiles.g;
  cut.tile_rows = g.n * tiles.down();
  cut.rows_per_block = rows_per_block(tiles, round_up(served_tiles(tiles.positions(), b.segment_k * a_bytes), mr));
  const ServingCut plain = nibble::cut_for_serving(g, b, workers);
  cut.row_parts = std::min(plain.point_parts, std::max<int64_t>(1, cut.tile_rows));
  cut.panel_parts = plain.panel_parts;
  // More threads than rows of tiles share these by columns, and each transforms them for itself.
  if (cut.row_parts < std::min(plain.point_parts, workers))
    cut.panel_parts = std::clamp<int64_t>(workers / cut.row_parts, plain.panel_parts, b.count());
  return cut;
}

template <typename S>
void point_tiles(const Tiles& tiles, const SourceRows<S>& rows_from, int64_t begin, int64_t end, const S** pixels) {
  const Gather& g = tiles.g;
  const int64_t across = tiles.across(), down = tiles.down(), side = tiles.pixels_across();
  const Tap corner = top_left(g);
  // After the last row that the grid's points read there may be none: a part of a map may have any number of rows.
  const int64_t rows_end = std::min(g.sh, g.gh + corner.dh + 2);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t image = row / down, top = row % down * tiles.edge + corner.dh;
    for (int64_t i = 0; i < across; ++i) {
      const int64_t left = i * tiles.edge + corner.dw;
      for (int64_t y = top; y < top + side; ++y)
        for (int64_t x = left; x < left + side; ++x) {
          const bool inside = y >= 0 && y < rows_end && x >= 0 && x < g.sw;
          *pixels++ = inside ? rows_from.data + ((image * g.sh + y - rows_from.first_row) * g.sw + x) * rows_from.stride
                             : rows_from.pad;
        }
    }
  }
}

template void point_tiles(const Tiles&, const SourceRows<uint8_t>&, int64_t, int64_t, const uint8_t**);
template void point_tiles(const Tiles&, const SourceRows<bf16>&, int64_t, int64_t, const bf16**);

template <typename Gemm, typename S>
void pack_block(const Gemm& gemm, const Tiles& tiles, const Panels& b, const SourceRows<S>& rows_from, int64_t begin,
                int64_t end, const BlockPanels& to) {
  const int64_t all = (end - begin) * tiles.across(), positions = tiles.positions();
  Scratch scratch;
  const S** const pixels = scratch.get<const S*>(static_cast<size_t>(all * positions));
  point_tiles(tiles, rows_from, begin, end, pixels);
  const int64_t chunk = round_up(kChannels, gemm.kr);
  using T = typename Gemm::Left;
  const auto transform = input_transform<T, S>(kernels::active().ew, tiles.edge);
  T* const rows = scratch.get<T>(static_cast<size_t>(positions * gemm.mr * chunk));
  std::array<const T*, 64> panel_rows{};
  std::byte* panel = to.data;
  for (int64_t first = 0; first < all; first += gemm.mr, panel += to.panel_bytes) {
    const int64_t m = std::min<int64_t>(gemm.mr, all - first);
    for (int64_t k0 = 0; k0 < b.k; k0 += chunk) {
      const int64_t k = std::min(chunk, b.k - k0);
      for (int64_t r = 0; r < m; ++r)
        transform(pixels + (first + r) * positions, k0, k, rows + r * chunk, gemm.mr * chunk);
      for (int64_t p = 0; p < positions; ++p) {
        for (int64_t r = 0; r < m; ++r) panel_rows[static_cast<size_t>(r)] = rows + (p * gemm.mr + r) * chunk;
        gemm.pack_a(panel_rows.data(), static_cast<int>(m), static_cast<int>(k),
                    panel + p * to.position_bytes() + gemm.mr * k0 * gemm.a_bytes);
      }
    }
  }
}

template void pack_block(const kernels::GemmInt&, const Tiles&, const Panels&, const SourceRows<uint8_t>&, int64_t,
                         int64_t, const BlockPanels&);
template void pack_block(const kernels::GemmWide&, const Tiles&, const Panels&, const SourceRows<uint8_t>&, int64_t,
                         int64_t, const BlockPanels&);
template void pack_block(const kernels::GemmFloat<float>&, const Tiles&, const Panels&, const SourceRows<bf16>&,
                         int64_t, int64_t, const BlockPanels&);

template <typename C>
void store_block(const Tiles& tiles, int64_t begin, int64_t end, const BlockSums<C>& sums, int nr, const int32_t* start,
                 int64_t start_stride, C* none, C* c, int64_t ldc) {
  const Gather& g = tiles.g;
  const int64_t first = tiles.first_grid_row(begin), edge = tiles.edge;
  const auto& ew = kernels::active().ew;
  const C* from = sums.data;
  std::array<C*, static_cast<size_t>(kMostOutputs)> out{};
  for (int64_t row = begin; row < end; ++row) {
    const int64_t rows_here = std::min(edge, g.gh - row % tiles.down() * edge);
    C* const upper_row = c + (tiles.first_grid_row(row) - first) * g.gw * ldc;
    for (int64_t left = 0; left < g.gw; left += edge, from += nr) {
      for (int64_t y = 0; y < edge; ++y)
        for (int64_t x = 0; x < edge; ++x)
          out[static_cast<size_t>(edge * y + x)] =
              y < rows_here && left + x < g.gw ? upper_row + (y * g.gw + left + x) * ldc : none;
      if constexpr (std::is_same_v<C, float>)
        gradient_transforms(ew, edge).output(from, sums.position_stride, nr, out.data());
      else if (edge == 4)
        ew.winograd_output_4x4(from, sums.position_stride, nr, out.data());
      else
        ew.winograd_output(from, sums.position_stride, nr, start, start_stride, out.data());
    }
  }
}

template void store_block(const Tiles&, int64_t, int64_t, const BlockSums<int32_t>&, int, const int32_t*, int64_t,
                          int32_t*, int32_t*, int64_t);
template void store_block(const Tiles&, int64_t, int64_t, const BlockSums<float>&, int, const int32_t*, int64_t, float*,
                          float*, int64_t);

}  // namespace nibble::winograd
