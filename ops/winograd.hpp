// 3x3 convolutions of stride 1 in fewer products (Winograd): served ones, exact, and the gradients of training, in
// fp32, of layers that tiles suit (form_of and wide_edge, gradient_edge).
//
// Winograd's minimal filtering F(2x2, 3x3), as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
// (2015): four outputs of a 2x2 tile from 4x4 pixels d and a kernel g,
//     y = R [(G g G^T) . (S d S^T)] R^T,   S = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]
//     R = [1 1 1 0; 0 1 -1 -1],            G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1]
// where . multiplies position by position, and is summed over channels before R: 16 products per tile instead of 36.
// Served, in integers: 2G instead of G, and a quarter of the result, which has no remainder. Then the products are
// 16 ordinary ones:
//   - of 4-bit codes (0 to 15) and weights of 4 bits (-7 to 7) in bytes, family u6s7. Codes become -30 to 60, stored as
//     0 to 60 (plus 30 but for position 5, whose values are sums), weights -63 to 63. What the 30s add to the sums
//     depends on the weights alone and is subtracted.
//   - of 8 bits in 16-bit integers, family s16s14, small maps on levels without a dot product of bytes.
// Served, 8 bits, larger maps: F(4x4, 3x3), 36 products of 16-bit integers instead of 144, at the usual points
// 0, 1, -1, 2, -2 and infinity, with
//     S = [4 0 -5 0 1 0; 0 -4 -4 1 1 0; 0 4 -4 -1 1 0; 0 -2 -1 2 1 0; 0 2 -1 -2 1 0; 0 4 0 -5 0 1]
//     G = [1 0 0; 1 1 1; 1 -1 1; 1 2 4; 1 -2 4; 0 0 1]
//     R = [6 -4 -4 1 1 0; 0 -4 4 2 -2 0; 0 -4 -4 4 4 0; 0 -4 4 8 -8 24]
// which give 24 * 24 times the outputs. Everything is modulo 2^32, where 9 has an inverse, so a ninth is exact however
// far sums went; a 64th is exact if the output is less than 2^25, which the sum of a filter's codes of either sign
// proves (fits_larger_tiles). Two such products take as long as one of bytes where these have a dot product.
// The input's gradient is such a convolution of the output's gradient. The weights' is F(3x3, 2x2), a 2x2 tile of the
// output's gradient as the kernel, summed over tiles before Q:
//     d_w = Q [(H d_y H^T) . (S d S^T)] Q^T,   H = [1 0; 1/2 1/2; 1/2 -1/2; 0 1],   Q = [1 1 1 0; 0 1 -1 0; 0 1 1 -1]
// Gradients of larger maps are F(4x4, 3x3) and F(3x3, 4x4), 36 products instead of 144, at the points 0, r,
// -r, 1/r, -1/r and infinity with r = sqrt(2):
//     S = [1 0 -5/2 0 1 0; 0 -r/2 -1/2 r 1 0; 0 r/2 -1/2 -r 1 0; 0 -r -2 r/2 1 0; 0 r -2 -r/2 1 0; 0 1 0 -5/2 0 1]
//     R = [1 1 1 1 1 0; 0 r -r r/2 -r/2 0; 0 2 2 1/2 1/2 0; 0 2r -2r r/4 -r/4 1]
//     G = [1 0 0; 1/6 r/6 1/3; 1/6 -r/6 1/3; -2/3 -r/3 -1/3; -2/3 r/3 -1/3; 0 0 1]
//     H = [1 0 0 0; 1/6 r/6 1/3 r/3; 1/6 -r/6 1/3 -r/3; -2/3 -r/3 -1/3 -r/6; -2/3 r/3 -1/3 r/6; 0 0 0 1]
//     Q = [1 1 1 1 1 0; 0 r -r r/2 -r/2 0; 0 2 2 1/2 1/2 1]
// For 256 channels of normal bf16 values and weights the error of an output was 2.6e-6 of its standard deviation
// (4.4e-6 at the usual points 1 and 2, 0.7e-6 of the plain sum in fp32; rounding d_x to bf16 adds 2.8e-3).
#pragma once
#include <type_traits>

#include "ops/gather_gemm.hpp"
#include "ops/serving_gemm.hpp"

namespace nibble::winograd {

/// How a grid is cut into tiles of edge x edge outputs, from (edge + 2)^2 pixels or positions each.
struct Tiles {
  const Gather& g;  // outlives what holds the tiles
  int64_t edge;

  Tiles(const Gather& gather, int64_t tile_edge) : g(gather), edge(tile_edge) {}
  Tiles(const Gather&&, int64_t) = delete;

  int64_t outputs() const { return edge * edge; }
  int64_t pixels_across() const { return edge + 2; }
  int64_t positions() const { return pixels_across() * pixels_across(); }
  int64_t across() const { return ceil_div(g.gw, edge); }
  /// Rows of tiles of an image.
  int64_t down() const { return ceil_div(g.gh, edge); }
  /// The first grid row of a row of tiles; for the one after the last: all grid rows.
  int64_t first_grid_row(int64_t tile_row) const { return tile_row / down() * g.gh + tile_row % down() * edge; }
  /// The row of tiles that begins with a grid row.
  int64_t row_at(int64_t grid_row) const { return grid_row / g.gh * down() + grid_row % g.gh / edge; }
};
/// Of the largest tiles.
inline constexpr int64_t kMostOutputs = 16;

/// In which integers a convolution can be made this way, on a level that has the family.
enum class Form { kNone, kBytes, kWide };
/// kBytes: codes 0 to 15 (the largest multiplier), weights -7 to 7. kWide: weights of more than 4 bits.
Form form_of(const ConvShape& s, int64_t largest_multiplier, int weight_bits);

/// The edge of the tiles in which a convolution of kWide is served; 0: it is not. dot_of_bytes: whether the level has
/// such products; then small maps and many channels are not.
int64_t wide_edge(const ConvShape& s, bool dot_of_bytes);
/// Whether every output of filters of k codes is less than 2^25 in magnitude: then tiles may have an edge of 4.
bool fits_larger_tiles(const int8_t* codes, int64_t filters, int64_t k, int64_t largest_multiplier);

/// Transformed weights [position][output][channel] of `count` outputs [count, 3, 3, ic]. T: int8_t (an edge of 2),
/// int16_t.
template <typename T>
void transform_weights(int64_t edge, const int8_t* codes, int64_t count, int64_t ic, T* out);

/// The edge of the tiles in which the gradients of a convolution are made this way; 0: they are not. kr: of the level's
/// plain products, 1 if these are of fp32, too.
int64_t gradient_edge(const ConvShape& s, int kr);
inline const kernels::GradientTransforms& gradient_transforms(const kernels::Elementwise& ew, int64_t edge) {
  return edge == 2 ? ew.f2x2 : ew.f4x4;
}
/// The kernel of the convolution that is the input's gradient, transformed: [position][output][channel] of `count`
/// outputs [count, 3, 3, ic]. The taps of tiles.g name those of the kernel.
void transform_gradient_weights(const Tiles& tiles, const bf16* weights, int64_t count, int64_t ic, float* out);
/// Grid rows that a task must not divide, so that tiles begin with an image: a row of tiles, or all rows of a map that
/// these do not divide (50 x 50 points, say, where a task has about 512).
inline int64_t rows_together(int64_t gh, int64_t edge) {
  return gh % edge == 0 ? edge : gh;
}

/// What the offsets of the input (of bytes, in tiles with an edge of 2) add to the four outputs before these are
/// quartered: start[q * stride + o].
void set_offset_start(const int8_t* transformed, int64_t count, int64_t ic, int32_t* start, int64_t stride);

/// How a product is cut: rows of tiles (of all images) by threads and into blocks.
struct Cut {
  int64_t tile_rows = 0;  // of all images
  int64_t rows_per_block = 1;
  int64_t row_parts = 1, panel_parts = 1;

  int64_t tasks() const { return row_parts * panel_parts; }
};
/// mr, a_bytes: of the kernel.
Cut cut_for_serving(const Tiles& tiles, const Panels& b, int64_t workers, int64_t mr, int64_t a_bytes);

/// The source pixels of the tiles of rows of tiles [begin, end): pixels[tiles.positions() * tile + position]; the pad
/// row outside the map and after the last row that the grid's points read.
template <typename S>
void point_tiles(const Tiles& tiles, const SourceRows<S>& rows_from, int64_t begin, int64_t end, const S** pixels);

/// The transform of tiles of S to operands of T.
template <typename T, typename S>
auto input_transform(const kernels::Elementwise& ew, int64_t edge) {
  if constexpr (std::is_same_v<T, uint8_t>)
    return ew.winograd_input;
  else if constexpr (std::is_same_v<T, int16_t>)
    return edge == 2 ? ew.winograd_input_wide : ew.winograd_input_4x4;
  else if constexpr (std::is_same_v<S, uint8_t>)
    return gradient_transforms(ew, edge).input_u8;
  else
    return gradient_transforms(ew, edge).input_bf16;
}

/// Channels that are transformed at once, of the tiles of a panel.
inline constexpr int64_t kChannels = 64;

/// The transformed rows of a block of tiles in panels: position p's begin at p * position_bytes.
struct BlockPanels {
  std::byte* data = nullptr;
  int64_t panel_bytes = 0, m_panels = 0;

  int64_t position_bytes() const { return m_panels * panel_bytes; }
};

/// Transforms and packs the tiles of rows of tiles [begin, end) (source: `rows_from`).
template <typename Gemm, typename S>
void pack_block(const Gemm& gemm, const Tiles& tiles, const Panels& b, const SourceRows<S>& rows_from, int64_t begin,
                int64_t end, const BlockPanels& to);

/// The sums of a block and one panel before R: position p's, [tile][nr], p * position_stride further.
template <typename C>
struct BlockSums {
  C* data = nullptr;
  int64_t position_stride = 0;
};

/// The outputs of every tile of the block to c, whose first row is the first grid point of the block. `none`: nr
/// elements for what lies outside the map. start: as set_offset_start's, of the panel; of floats and in tiles with
/// an edge of 4: unused.
template <typename C>
void store_block(const Tiles& tiles, int64_t begin, int64_t end, const BlockSums<C>& sums, int nr, const int32_t* start,
                 int64_t start_stride, C* none, C* c, int64_t ldc);

/// Blocks of rows of tiles, one after another: transformed, multiplied, turned back into outputs, `at_once` panels at a
/// time.
template <typename Gemm, typename C>
class Blocks {
 public:
  Blocks(Scratch& scratch, const Gemm& gemm, const Tiles& tiles, const Panels& b, int64_t rows_per_block,
         int64_t at_once)
      : gemm_(gemm), tiles_(tiles), b_(b), ldc_(at_once * b.nr) {
    panels_.panel_bytes = round_up(gemm.mr * b.segment_k * gemm.a_bytes, int64_t{kAlignment});
    panels_.m_panels = ceil_div<int64_t>(rows_per_block * tiles.across(), gemm.mr);
    panels_.data = scratch.get<std::byte>(static_cast<size_t>(tiles.positions() * panels_.position_bytes()));
    sums_.position_stride = panels_.m_panels * gemm.mr * b.nr;
    sums_.data = scratch.get<C>(static_cast<size_t>(tiles.positions() * sums_.position_stride));
    c_ = scratch.get<C>(static_cast<size_t>(rows_per_block * tiles.edge * tiles.g.gw * ldc_));
    none_ = scratch.get<C>(static_cast<size_t>(b.nr));
  }
  const C* c() const { return c_; }
  int64_t ldc() const { return ldc_; }

  template <typename S>
  void pack(const SourceRows<S>& rows_from, int64_t begin, int64_t end) {
    begin_ = begin;
    end_ = end;
    pack_block(gemm_, tiles_, b_, rows_from, begin, end, panels_);
  }

  /// Outputs of the packed block and panels [n0, last) to c().
  void multiply(int64_t n0, int64_t last, const int32_t* start, const PanelsAhead& ahead) {
    const int here = static_cast<int>((end_ - begin_) * tiles_.across());
    const int64_t k = b_.segment_k, nr = b_.nr, positions = tiles_.positions(), bytes = k * nr * gemm_.b_bytes;
    for (int64_t n = n0; n < last; ++n) {
      const std::byte* const next_panel = n + 1 < last ? b_.panel(n + 1) : ahead.then;
      for (int64_t p = 0; p < positions; ++p)
        gemm_.run(static_cast<int>(k), here, panels_.data + p * panels_.position_bytes(), panels_.panel_bytes,
                  b_.panel(n) + p * bytes, sums_.data + p * sums_.position_stride, nr, kernels::Into::kOverwrite,
                  !ahead.asked        ? nullptr
                  : p + 1 < positions ? b_.panel(n) + (p + 1) * bytes
                                      : next_panel);
      store_block(tiles_, begin_, end_, sums_, b_.nr, start == nullptr ? nullptr : start + n * nr, b_.padded_columns(),
                  none_, c_ + (n - n0) * nr, ldc_);
    }
  }

 private:
  const Gemm& gemm_;
  const Tiles tiles_;
  const Panels& b_;
  const int64_t ldc_;
  BlockPanels panels_;
  BlockSums<C> sums_;
  C* c_ = nullptr;
  C* none_ = nullptr;
  int64_t begin_ = 0, end_ = 0;
};

/// serving_gemm for such a layer: b has a segment for every position, start is set_offset_start's [4, padded columns],
/// zeros for wide ones, unused for an edge of 4; source and epilogue as there. Gemm: GemmInt (u6s7) or GemmWide.
template <typename Gemm, typename Source, typename Epilogue>
void serving_gemm(const Gemm& gemm, int64_t edge, const ServingGemmArgs& args, const int32_t* start,
                  const Source& source, const Epilogue& epilogue) {
  const Gather& g = args.gather;
  const Tiles tiles{g, edge};
  const Panels& b = args.panels;
  const Cut cut = cut_for_serving(tiles, b, args.workers, gemm.mr, gemm.a_bytes);
  parallel_for(cut.tasks(), [&](int64_t task) {
    const int64_t part = task / cut.panel_parts, side = task % cut.panel_parts;
    const int64_t r0 = part * cut.tile_rows / cut.row_parts, r1 = (part + 1) * cut.tile_rows / cut.row_parts;
    const int64_t n0 = side * b.count() / cut.panel_parts, n1 = (side + 1) * b.count() / cut.panel_parts;
    if (r0 == r1 || n0 == n1) return;
    const int64_t hot = args.block_columns > 0 ? ceil_div<int64_t>(args.block_columns, b.nr) : n1 - n0;
    const int64_t at_once = std::min(n1 - n0, hot);
    Scratch scratch;
    const SourceRows<uint8_t> rows_from =
        source(scratch, source_rows(g, tiles.first_grid_row(r0), tiles.first_grid_row(r1)));
    Blocks<Gemm, int32_t> blocks(scratch, gemm, tiles, b, cut.rows_per_block, at_once);
    for (int64_t begin = r0; begin < r1; begin += cut.rows_per_block) {
      const int64_t end = std::min(r1, begin + cut.rows_per_block);
      const int64_t first = tiles.first_grid_row(begin) * g.gw, rows = tiles.first_grid_row(end) * g.gw - first;
      blocks.pack(rows_from, begin, end);
      for (int64_t n = n0; n < n1; n += at_once) {
        const int64_t last = std::min(n1, n + at_once);
        blocks.multiply(n, last, start, panels_ahead(b, n0, n1, last, begin == r0, end == r1));
        epilogue(first, rows, n * b.nr, std::min(b.columns, last * b.nr) - n * b.nr, blocks.c(), blocks.ldc(),
                 NextBlock{});
      }
    }
  });
}

/// Rows of tiles of a block of about `count` tiles.
int64_t rows_per_block(const Tiles& tiles, int64_t count);

/// gather_gemm of bf16 rows for such a layer in fp32: b has a segment for every position, tiles.g.rows_together keeps
/// tiles whole. `epilogue(task, first_point, rows, first_column, columns, c, ldc)`.
template <typename Source, typename Epilogue, typename Around>
void gather_gemm(const kernels::GemmFloat<float>& gemm, const Tiles& tiles, const Panels& b, const Source& source,
                 const Epilogue& epilogue, Around&& around) {
  const Gather& g = tiles.g;
  constexpr int64_t kHotColumns = 128;
  const int64_t per = grid_rows_per_task(g), all = g.n * g.gh;
  // Blocks of kBlockRows tiles, though 512 channels of them are 1.5 MiB (256 of tiles with an edge of 4 are 1.7): 18
  // tiles of 2x2, which fit a second-level cache of 512 KiB but read the weights more often, made 54 to 66 GMAC/s where
  // 48 made 94 to 110 (7x7, 512 channels, Zen 3).
  const int64_t block = rows_per_block(tiles, round_up(kBlockRows, gemm.mr));
  const int64_t at_once = std::min(b.count(), std::max<int64_t>(1, kHotColumns / b.nr));
  parallel_for(task_count(g), [&](int64_t task) {
    const int64_t g0 = task * per, g1 = std::min(all, g0 + per);
    Scratch scratch;
    around.begin(scratch, task, g0, g1);
    const SourceRows<bf16> rows_from = source(scratch, source_rows(g, g0, g1));
    Blocks<kernels::GemmFloat<float>, float> blocks(scratch, gemm, tiles, b, block, at_once);
    const int64_t r1 = tiles.row_at(g1);
    for (int64_t begin = tiles.row_at(g0); begin < r1; begin += block) {
      const int64_t end = std::min(r1, begin + block);
      const int64_t first = tiles.first_grid_row(begin) * g.gw, rows = tiles.first_grid_row(end) * g.gw - first;
      blocks.pack(rows_from, begin, end);
      for (int64_t n = 0; n < b.count(); n += at_once) {
        const int64_t last = std::min(b.count(), n + at_once);
        blocks.multiply(n, last, nullptr, panels_ahead(b, 0, b.count(), last, begin == tiles.row_at(g0), end == r1));
        epilogue(task, first, rows, n * b.nr, std::min(b.columns, last * b.nr) - n * b.nr, blocks.c(), blocks.ldc());
      }
    }
    around.end(task, g0, g1);
  });
}

}  // namespace nibble::winograd
