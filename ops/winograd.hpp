// 3x3 convolutions of stride 1 with 16 products where 36 are asked for, exact (serving only).
//
// Winograd's minimal filtering F(2x2, 3x3), as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
// (2015): four outputs of a 2x2 tile from 4x4 pixels d and a kernel g,
//     y = R [(G g G^T) . (S d S^T)] R^T,   S = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]
//     R = [1 1 1 0; 0 1 -1 -1],            G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1]
// where . multiplies position by position, and is summed over channels before R. In integers: 2G instead of G, and a
// quarter of the result, which has no remainder. Then the products are 16 ordinary ones:
//   - of 4-bit codes (0 to 15) and weights of 4 bits (-7 to 7) in bytes, family u6s7. Codes become -30 to 60, stored as
//     0 to 60 (plus 30 but for position 5, whose values are sums), weights -63 to 63. What the 30s add to the sums
//     depends on the weights alone and is subtracted.
//   - of 8 bits in 16-bit integers, family s11s12, on levels that multiply plain 8-bit codes no faster.
#pragma once
#include "ops/gather_gemm.hpp"

namespace nibble::winograd {

inline constexpr int64_t kPositions = 16, kOutputs = 4;

/// In which integers a convolution can be made so, on a level that has the family.
enum class Form { kNone, kBytes, kWide };
/// kBytes: codes 0 to 15 (the largest multiplier), weights -7 to 7. kWide: weights of more than 4 bits.
Form form_of(const ConvShape& s, int64_t largest_multiplier, int weight_bits);

/// Transformed weights [position][output][channel] of `count` outputs [count, 3, 3, ic]. T: int8_t, int16_t.
template <typename T>
void transform_weights(const int8_t* codes, int64_t count, int64_t ic, T* out);

/// What the offsets of the input (of bytes) add to the four outputs before these are quartered: start[q * stride + o].
void set_offset_start(const int8_t* transformed, int64_t count, int64_t ic, int32_t* start, int64_t stride);

/// How a product is cut: rows of tiles (two grid rows each, of all images) by threads and into blocks.
struct Cut {
  int64_t tiles_across = 0, tile_rows = 0;  // of a row of tiles; of all images
  int64_t rows_per_block = 1;
  int64_t row_parts = 1, panel_parts = 1;

  int64_t tasks() const { return row_parts * panel_parts; }
};
/// mr, a_bytes: of the kernel.
Cut cut_for_serving(const Gather& g, const Panels& b, int64_t workers, int64_t mr, int64_t a_bytes);

/// The first grid row of a row of tiles; of the one behind the last: all grid rows.
inline int64_t first_grid_row(const Gather& g, int64_t tile_row) {
  const int64_t per_image = ceil_div<int64_t>(g.gh, 2);
  return tile_row / per_image * g.gh + tile_row % per_image * 2;
}

/// Channels that are transformed at once: 48 tiles of 16 positions take 48 KiB, in 16 bits twice as much.
inline constexpr int64_t kChannels = 64;

/// The transformed rows of a block of tiles in panels: position p's begin at p * position_bytes.
struct BlockPanels {
  std::byte* data = nullptr;
  int64_t panel_bytes = 0, m_panels = 0;

  int64_t position_bytes() const { return m_panels * panel_bytes; }
};

/// Transforms and packs the tiles of rows of tiles [begin, end) (source: `rows_from`).
template <typename Gemm>
void pack_block(const Gemm& gemm, const Gather& g, const Panels& b, const SourceRows<uint8_t>& rows_from, int64_t begin,
                int64_t end, const BlockPanels& to);

/// The four outputs of every tile of the block from the sums of one panel [position][tile][nr] to c, whose first row is
/// the first grid point of the block. `none`: nr elements for what lies outside of the map.
void store_block(const Gather& g, int64_t begin, int64_t end, const int32_t* sums, int64_t position_stride, int nr,
                 const int32_t* start, int64_t start_stride, int32_t* none, int32_t* c, int64_t ldc);

/// serving_gemm for such a layer: b has a segment for every position, start is set_offset_start's [4, padded columns],
/// zeros for wide ones; source and epilogue as there. Gemm: GemmInt (u6s7) or GemmWide.
template <typename Gemm, typename Source, typename Epilogue>
void serving_gemm(const Gemm& gemm, const ServingGemmArgs& args, const int32_t* start, const Source& source,
                  const Epilogue& epilogue) {
  const Gather& g = args.gather;
  const Panels& b = args.panels;
  const Cut cut = cut_for_serving(g, b, args.workers, gemm.mr, gemm.a_bytes);
  const int64_t most_tiles = cut.rows_per_block * cut.tiles_across, m_panels = ceil_div<int64_t>(most_tiles, gemm.mr);
  const int64_t padded_tiles = m_panels * gemm.mr, nr = b.nr;
  parallel_for(cut.tasks(), [&](int64_t task) {
    const int64_t part = task / cut.panel_parts, side = task % cut.panel_parts;
    const int64_t r0 = part * cut.tile_rows / cut.row_parts, r1 = (part + 1) * cut.tile_rows / cut.row_parts;
    const int64_t n0 = side * b.count() / cut.panel_parts, n1 = (side + 1) * b.count() / cut.panel_parts;
    if (r0 == r1 || n0 == n1) return;
    const int64_t hot = args.block_columns > 0 ? ceil_div(args.block_columns, nr) : n1 - n0;
    const int64_t at_once = std::min(n1 - n0, hot), ldc = at_once * nr;
    Scratch scratch;
    const SourceRows<uint8_t> rows_from = source(scratch, source_rows(g, first_grid_row(g, r0), first_grid_row(g, r1)));
    BlockPanels panels{.panel_bytes = round_up(gemm.mr * b.segment_k * gemm.a_bytes, int64_t{kAlignment}),
                       .m_panels = m_panels};
    panels.data = scratch.get<std::byte>(static_cast<size_t>(kPositions * panels.position_bytes()));
    int32_t* const sums = scratch.get<int32_t>(static_cast<size_t>(kPositions * padded_tiles * nr));
    int32_t* const c = scratch.get<int32_t>(static_cast<size_t>(cut.rows_per_block * 2 * g.gw * ldc));
    int32_t* const none = scratch.get<int32_t>(static_cast<size_t>(nr));
    for (int64_t begin = r0; begin < r1; begin += cut.rows_per_block) {
      const int64_t end = std::min(r1, begin + cut.rows_per_block);
      const int64_t here = ceil_div<int64_t>((end - begin) * cut.tiles_across, gemm.mr);
      const int64_t first = first_grid_row(g, begin) * g.gw, rows = first_grid_row(g, end) * g.gw - first;
      pack_block(gemm, g, b, rows_from, begin, end, panels);
      for (int64_t n = n0; n < n1; n += at_once) {
        const int64_t last = std::min(n1, n + at_once);
        for (int64_t panel = n; panel < last; ++panel) {
          for (int64_t p = 0; p < kPositions; ++p)
            gemm.run(static_cast<int>(b.segment_k), static_cast<int>(here), panels.data + p * panels.position_bytes(),
                     panels.panel_bytes, b.panel(panel) + p * b.segment_k * nr * gemm.b_bytes,
                     sums + p * padded_tiles * nr, nr, kernels::Into::kOverwrite);
          store_block(g, begin, end, sums, padded_tiles * nr, b.nr, start + panel * nr, b.padded_columns(), none,
                      c + (panel - n) * nr, ldc);
        }
        epilogue(first, rows, n * nr, std::min(b.columns, last * nr) - n * nr, c, ldc, NextBlock{});
      }
    }
  });
}

}  // namespace nibble::winograd
