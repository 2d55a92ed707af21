#include "ops/winograd.hpp"

#include <array>
#include <type_traits>

namespace nibble::winograd {

namespace {

/// Twice G: rows of a transformed kernel from those of the kernel.
constexpr int kTwiceG[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 2}};
constexpr int kR[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};
constexpr int64_t kOffset = 30, kWithoutOffset = 5;  // the position

/// Tiles of a served block: eight panels of six on AVX2, as kBlockRows; fewer where their transformed channels would be
/// more than 512 KiB, the smallest second-level cache we know. Of 512 channels in 16 bits, 32 tiles took 13.0 ms where
/// 16, which read the weights twice as often, took 16.3, and 48 no less than 32 (8 images of 7x7, Zen 3).
int64_t served_tiles(int64_t channel_bytes) {
  return std::clamp<int64_t>((int64_t{512} << 10) / (kPositions * channel_bytes), 8, kBlockRows);
}

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

Form form_of(const ConvShape& s, int64_t largest_multiplier, int weight_bits) {
  // A sum of products fits int32 (k * 63 * 60, k * 1020 * 1152), and so does an output times four (k * 4 * 9 * 255 *
  // 128, which is as much as the latter).
  constexpr int64_t kMostChannels = 32768, kMostWide = 1024;
  if (s.kh != 3 || s.kw != 3 || s.stride != 1 || s.ic > kMostChannels) return Form::kNone;
  if (weight_bits > 4) return s.ic <= kMostWide ? Form::kWide : Form::kNone;
  return largest_multiplier <= 15 ? Form::kBytes : Form::kNone;  // u8s4 is fast enough
}

template <typename T>
void transform_weights(const int8_t* codes, int64_t count, int64_t ic, T* out) {
  for (int64_t o = 0; o < count; ++o, codes += 9 * ic) {
    for (int64_t p = 0; p < kPositions; ++p) {
      T* const to = out + (p * count + o) * ic;
      const auto& by_row = kTwiceG[p / 4];
      const auto& by_column = kTwiceG[p % 4];
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

template void transform_weights(const int8_t*, int64_t, int64_t, int8_t*);
template void transform_weights(const int8_t*, int64_t, int64_t, int16_t*);

void set_offset_start(const int8_t* transformed, int64_t count, int64_t ic, int32_t* start, int64_t stride) {
  for (int64_t o = 0; o < count; ++o) {
    int32_t added[kPositions];
    for (int64_t p = 0; p < kPositions; ++p) {
      const int8_t* const row = transformed + (p * count + o) * ic;
      int32_t sum = 0;
      for (int64_t c = 0; c < ic; ++c) sum += row[c];
      added[p] = p == kWithoutOffset ? 0 : sum * static_cast<int32_t>(kOffset);
    }
    for (int64_t q = 0; q < kOutputs; ++q) {
      int32_t sum = 0;
      for (int64_t p = 0; p < kPositions; ++p) sum += kR[q / 2][p / 4] * kR[q % 2][p % 4] * added[p];
      start[q * stride + o] = sum;
    }
  }
}

bool suits_gradients(const ConvShape& s) {
  if (s.kh != 3 || s.kw != 3 || s.stride != 1) return false;
  // At most three quarters of the products: not on maps of 1x1 or 3x3, nor on lines.
  const auto products = [](int64_t h, int64_t w) {
    return kPositions * ceil_div<int64_t>(h, 2) * ceil_div<int64_t>(w, 2);
  };
  const auto pays = [&](int64_t h, int64_t w) { return 4 * products(h, w) <= 3 * 9 * h * w; };
  return pays(s.h, s.w) && pays(s.oh(), s.ow());
}

void transform_gradient_weights(const Gather& g, const bf16* weights, int64_t count, int64_t ic, float* out) {
  const Tap corner = top_left(g);
  const auto& ew = kernels::active().ew;
  for (int64_t o = 0; o < count; ++o, weights += 9 * ic) {
    const bf16* taps[9];
    for (const Tap& t : g.taps) taps[(t.dh - corner.dh) * 3 + t.dw - corner.dw] = weights + t.weight_tap * ic;
    ew.winograd_weights_bf16(taps, ic, out + o * ic, count * ic);
  }
}

int64_t rows_per_block(const Gather& g, int64_t tiles) {
  return std::clamp<int64_t>(tiles / std::max<int64_t>(1, tiles_across(g)), 1,
                             std::max<int64_t>(1, g.n * tiles_down(g)));
}

Cut cut_for_serving(const Gather& g, const Panels& b, int64_t workers, int64_t mr, int64_t a_bytes) {
  Cut cut;
  cut.tile_rows = g.n * tiles_down(g);
  cut.rows_per_block = rows_per_block(g, round_up(served_tiles(b.segment_k * a_bytes), mr));
  const ServingCut plain = nibble::cut_for_serving(g, b, workers);
  cut.row_parts = std::min(plain.point_parts, std::max<int64_t>(1, cut.tile_rows));
  cut.panel_parts = plain.panel_parts;
  // More threads than rows of tiles share these by columns, and each transforms them for itself.
  if (cut.row_parts < std::min(plain.point_parts, workers))
    cut.panel_parts = std::clamp<int64_t>(workers / cut.row_parts, plain.panel_parts, b.count());
  return cut;
}

template <typename S>
void point_tiles(const Gather& g, const SourceRows<S>& rows_from, int64_t begin, int64_t end, const S** pixels) {
  const int64_t across = tiles_across(g), down = tiles_down(g);
  const Tap corner = top_left(g);
  // Behind the last row that the grid's points read there may be none: a part of a map has an odd number of rows, too.
  const int64_t rows_end = std::min(g.sh, g.gh + corner.dh + 2);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t image = row / down, top = row % down * 2 + corner.dh;
    for (int64_t i = 0; i < across; ++i, pixels += kPositions) {
      const int64_t left = i * 2 + corner.dw;
      for (int64_t p = 0; p < kPositions; ++p) {
        const int64_t y = top + p / 4, x = left + p % 4;
        const bool inside = y >= 0 && y < rows_end && x >= 0 && x < g.sw;
        pixels[p] = inside ? rows_from.data + ((image * g.sh + y - rows_from.first_row) * g.sw + x) * rows_from.stride
                           : rows_from.pad;
      }
    }
  }
}

template void point_tiles(const Gather&, const SourceRows<uint8_t>&, int64_t, int64_t, const uint8_t**);
template void point_tiles(const Gather&, const SourceRows<bf16>&, int64_t, int64_t, const bf16**);

template <typename Gemm, typename S>
void pack_block(const Gemm& gemm, const Gather& g, const Panels& b, const SourceRows<S>& rows_from, int64_t begin,
                int64_t end, const BlockPanels& to) {
  const int64_t tiles = (end - begin) * tiles_across(g);
  Scratch scratch;
  const S** const pixels = scratch.get<const S*>(static_cast<size_t>(tiles * kPositions));
  point_tiles(g, rows_from, begin, end, pixels);
  const int64_t chunk = round_up(kChannels, gemm.kr);
  using T = typename Gemm::Left;
  const auto transform = input_transform<T, S>(kernels::active().ew);
  T* const rows = scratch.get<T>(static_cast<size_t>(kPositions * tiles * chunk));
  std::array<const T*, 64> panel_rows{};
  for (int64_t k0 = 0; k0 < b.k; k0 += chunk) {
    const int64_t k = std::min(chunk, b.k - k0);
    for (int64_t t = 0; t < tiles; ++t) transform(pixels + t * kPositions, k0, k, rows + t * chunk, tiles * chunk);
    for (int64_t p = 0; p < kPositions; ++p) {
      std::byte* panel = to.data + p * to.position_bytes() + gemm.mr * k0 * gemm.a_bytes;
      for (int64_t t = 0; t < tiles; t += gemm.mr, panel += to.panel_bytes) {
        const int64_t m = std::min<int64_t>(gemm.mr, tiles - t);
        for (int64_t r = 0; r < m; ++r) panel_rows[static_cast<size_t>(r)] = rows + (p * tiles + t + r) * chunk;
        gemm.pack_a(panel_rows.data(), static_cast<int>(m), static_cast<int>(k), panel);
      }
    }
  }
}

template void pack_block(const kernels::GemmInt&, const Gather&, const Panels&, const SourceRows<uint8_t>&, int64_t,
                         int64_t, const BlockPanels&);
template void pack_block(const kernels::GemmWide&, const Gather&, const Panels&, const SourceRows<uint8_t>&, int64_t,
                         int64_t, const BlockPanels&);
template void pack_block(const kernels::GemmFloat<float>&, const Gather&, const Panels&, const SourceRows<bf16>&,
                         int64_t, int64_t, const BlockPanels&);

template <typename C>
void store_block(const Gather& g, int64_t begin, int64_t end, const BlockSums<C>& sums, int nr, const int32_t* start,
                 int64_t start_stride, C* none, C* c, int64_t ldc) {
  const int64_t first = first_grid_row(g, begin);
  const auto& ew = kernels::active().ew;
  const C* from = sums.data;
  for (int64_t row = begin; row < end; ++row) {
    const bool lower = row % tiles_down(g) * 2 + 1 < g.gh;
    C* const upper_row = c + (first_grid_row(g, row) - first) * g.gw * ldc;
    for (int64_t i = 0; i < tiles_across(g); ++i, from += nr) {
      const bool right = 2 * i + 1 < g.gw;
      C* const at = upper_row + 2 * i * ldc;
      C* const out[] = {at, right ? at + ldc : none, lower ? at + g.gw * ldc : none,
                        right && lower ? at + (g.gw + 1) * ldc : none};
      if constexpr (std::is_same_v<C, float>)
        ew.winograd_output_f32(from, sums.position_stride, nr, out);
      else
        ew.winograd_output(from, sums.position_stride, nr, start, start_stride, out);
    }
  }
}

template void store_block(const Gather&, int64_t, int64_t, const BlockSums<int32_t>&, int, const int32_t*, int64_t,
                          int32_t*, int32_t*, int64_t);
template void store_block(const Gather&, int64_t, int64_t, const BlockSums<float>&, int, const int32_t*, int64_t,
                          float*, float*, int64_t);

}  // namespace nibble::winograd
