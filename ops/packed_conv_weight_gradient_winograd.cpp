// Gradient of the packed convolution's weights by Winograd (ops/winograd.hpp): 16 sums over tiles of 2x2 outputs,
// or 36 over tiles of 4x4, of transformed output gradients times transformed source pixels, where the plain one has
// nine sums over all points.
#include <algorithm>
#include <array>
#include <vector>

#include "ops/packed_conv_weight_gradient.hpp"
#include "ops/packed_source.hpp"

namespace nibble {

namespace {

using winograd::Tiles;
using Gemm = kernels::GemmFloat<float>;

/// Tiles of a chunk, which is the depth of a run, times positions: 256 tiles of 2x2 outputs, 113 of 4x4. Right panels
/// on AVX2, 16 columns, are then a quarter to half of a 32 KiB L1; both operands of 128 channels are 4 MiB. With twice
/// as much, 28x28 points of 128 channels take 1.1 to 1.35 times as long, with half of it the same (Zen 5).
constexpr int64_t kChunkPositions = 4096;
/// Tiles and channels that are transformed before they are packed: 36 positions of them take 54 KiB. Eight tiles take
/// 1.05 to 1.13 times as long on AVX2.
constexpr int64_t kTransformTiles = 6, kTransformChannels = 64;
/// Rows of sums of one run of the kernel: 8 left panels of 6 on AVX2 share a right panel while it is in L1.
constexpr int64_t kRunOutputs = 48;
/// Outputs of one task, of all channels at a position.
constexpr int64_t kJobOutputs = 256;

/// One operand of a chunk: for each position panels of `width` rows or columns, each a tile deep.
struct TilePanels {
  int64_t positions = 0, width = 0, count = 0, panel_bytes = 0;
  std::byte* data = nullptr;

  TilePanels(Scratch& scratch, int64_t all_positions, int64_t panel_width, int64_t elements, int64_t tiles)
      : positions(all_positions),
        width(panel_width),
        count(ceil_div(elements, panel_width)),
        panel_bytes(round_up(panel_width * tiles * int64_t{sizeof(float)}, int64_t{kAlignment})),
        data(scratch.get<std::byte>(static_cast<size_t>(positions * count * panel_bytes))) {}
  /// Panels that are filled together, and how many times.
  int64_t per_group() const { return std::max<int64_t>(1, kTransformChannels / width); }
  int64_t groups() const { return ceil_div(count, per_group()); }
  std::byte* panel(int64_t position, int64_t p) const { return data + (position * count + p) * panel_bytes; }
};

/// Fills a group of panels.
/// transform(pixels, offset, n, out, stride) makes all positions of n elements of a tile from its `per_tile` pixels;
/// pack(rows, offset, tiles, columns, panel) packs the elements from `offset` on.
template <typename S, typename Transform, typename Pack>
void fill_panels(const TilePanels& to, const S* const* pixels, int64_t per_tile, int64_t tiles, int64_t elements,
                 int64_t group, const Transform& transform, const Pack& pack) {
  const int64_t per = to.per_group(), first = group * per;
  const int64_t last = std::min(to.count, first + per), e0 = first * to.width,
                n = std::min(elements, last * to.width) - e0;
  Scratch scratch;
  float* const made = scratch.get<float>(static_cast<size_t>(to.positions * kTransformTiles * per * to.width));
  const int64_t ld = per * to.width, position_stride = kTransformTiles * ld;
  std::array<const float*, static_cast<size_t>(kTransformTiles)> rows{};
  for (int64_t t0 = 0; t0 < tiles; t0 += kTransformTiles) {
    const int64_t count = std::min(kTransformTiles, tiles - t0);
    for (int64_t t = 0; t < count; ++t) transform(pixels + (t0 + t) * per_tile, e0, n, made + t * ld, position_stride);
    for (int64_t position = 0; position < to.positions; ++position) {
      for (int64_t t = 0; t < count; ++t) rows[static_cast<size_t>(t)] = made + position * position_stride + t * ld;
      for (int64_t p = first; p < last; ++p) {
        const int64_t offset = (p - first) * to.width;
        pack(rows.data(), offset, static_cast<int>(count), static_cast<int>(std::min(to.width, n - offset)),
             to.panel(position, p) + t0 * to.width * int64_t{sizeof(float)});
      }
    }
  }
}

class WinogradGradient {
 public:
  WinogradGradient(const Gemm& gemm, const Tiles& tiles, const Tensor& d_y, const WeightSink& sink)
      : gemm_(gemm),
        tiles_(tiles),
        transforms_(winograd::gradient_transforms(kernels::active().ew, tiles.edge)),
        d_y_(d_y),
        sink_(sink),
        zero_(static_cast<size_t>(d_y.stride())),
        sums_(DType::f32, {tiles.positions(), round_up(sink.oc, gemm.mr), round_up(sink.k, gemm.nr)}) {}

  /// The chunks of some rows of tiles, one after another, so that the sums do not depend on the number of threads.
  template <typename S, typename Source>
  void run(const Source& source, RowRange rows) const {
    const int64_t per = rows_per_chunk(tiles_);
    for (int64_t begin = rows.begin; begin < rows.end; begin += per)
      add_chunk<S>(source, begin, std::min(rows.end, begin + per), std::min(rows.end, begin + 2 * per),
                   begin == rows.begin ? kernels::Into::kOverwrite : kernels::Into::kAccumulate);
    finish();
  }

  static int64_t rows_per_chunk(const Tiles& tiles) {
    return std::max<int64_t>(1, kChunkPositions / tiles.positions() / std::max<int64_t>(1, tiles.across()));
  }
  /// In which threads share the work of a chunk where they share least: the transforms.
  static int64_t jobs(const Gemm& gemm, const WeightSink& sink) {
    const auto groups = [](int64_t elements, int64_t width) {
      return ceil_div(elements, std::max<int64_t>(1, kTransformChannels / width) * width);
    };
    return groups(sink.oc, gemm.mr) + groups(sink.k, gemm.nr);
  }

 private:
  RowRange grid_rows(int64_t begin, int64_t end) const {
    return {tiles_.first_grid_row(begin), tiles_.first_grid_row(end)};
  }

  /// Rows of tiles [begin, end); the next chunk ends with row `next_end`.
  template <typename S, typename Source>
  void add_chunk(const Source& source, int64_t begin, int64_t end, int64_t next_end, kernels::Into into) const {
    const int64_t count = (end - begin) * tiles_.across(), positions = tiles_.positions();
    Scratch scratch;
    const RowRange here = grid_rows(begin, end);
    const auto codes = source.expansion(scratch, source_rows(tiles_.g, here.begin, here.end));
    parallel_for(codes.jobs, codes.run);
    const S** const pixels = scratch.get<const S*>(static_cast<size_t>(count * positions));
    winograd::point_tiles(tiles_, codes.rows, begin, end, pixels);
    const bf16** const outputs = scratch.get<const bf16*>(static_cast<size_t>(count * tiles_.outputs()));
    point_outputs(begin, end, outputs);
    const TilePanels left(scratch, positions, gemm_.mr, sink_.oc, count),
        right(scratch, positions, gemm_.nr, sink_.k, count);

    const int64_t left_groups = left.groups();
    parallel_for(left_groups + right.groups(), [&](int64_t job) {
      if (job < left_groups)
        fill_panels(left, outputs, tiles_.outputs(), count, sink_.oc, job, transforms_.d_y,
                    [&](const float* const* rows, int64_t offset, int k, int columns, std::byte* panel) {
                      std::array<const float*, static_cast<size_t>(kTransformTiles)> shifted{};
                      for (int t = 0; t < k; ++t) shifted[static_cast<size_t>(t)] = rows[t] + offset;
                      gemm_.pack_a_transposed(shifted.data(), k, columns, panel);
                    });
      else
        fill_panels(right, pixels, positions, count, sink_.k, job - left_groups, input_transform<S>(),
                    gemm_.pack_b_rows);
    });
    ChunkAhead next;
    if (end < next_end) {
      const RowRange rows = grid_rows(end, next_end);
      next = {rows_ahead(d_y_, rows.begin * tiles_.g.gw, rows.end * tiles_.g.gw),
              source.ahead(source_rows(tiles_.g, rows.begin, rows.end))};
    }
    multiply(left, right, count, into, next);
  }

  template <typename S>
  auto input_transform() const {
    if constexpr (std::is_same_v<S, uint8_t>)
      return transforms_.input_u8;
    else
      return transforms_.input_bf16;
  }

  /// The outputs of every tile, zeros outside the map.
  void point_outputs(int64_t begin, int64_t end, const bf16** outputs) const {
    const Gather& g = tiles_.g;
    const int64_t edge = tiles_.edge;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = tiles_.first_grid_row(row), rows_here = std::min(edge, g.gh - row % tiles_.down() * edge);
      for (int64_t left = 0; left < g.gw; left += edge)
        for (int64_t y = 0; y < edge; ++y)
          for (int64_t x = left; x < left + edge; ++x)
            *outputs++ = y < rows_here && x < g.gw ? d_y_.row<bf16>((first + y) * g.gw + x) : zero_.data();
    }
  }

  void multiply(const TilePanels& left, const TilePanels& right, int64_t tiles, kernels::Into into,
                const ChunkAhead& next) const {
    const int64_t per = ceil_div(left.count, ceil_div(left.count * left.width, kJobOutputs));
    const int64_t parts = ceil_div(left.count, per);
    const int64_t block = std::max<int64_t>(1, kRunOutputs / left.width), rows = sums_.dim(1), ld = sums_.dim(2);
    const int64_t jobs = tiles_.positions() * parts, piece_bytes = right.panel_bytes;
    parallel_for(jobs, [&](int64_t job) {
      const int64_t position = job / parts, m1 = std::min(left.count, (job % parts + 1) * per);
      ChunkAhead ahead = next.part(job, jobs, piece_bytes);
      for (int64_t m = job % parts * per; m < m1; m += block)
        for (int64_t n = 0; n < right.count; ++n)
          gemm_.run(static_cast<int>(tiles), static_cast<int>(std::min(block, m1 - m) * left.width),
                    left.panel(position, m), left.panel_bytes, right.panel(position, n),
                    sums_.data<float>() + (position * rows + m * left.width) * ld + n * right.width, ld, into,
                    ahead.take(piece_bytes));
    });
  }

  /// Positions to taps, output by output.
  void finish() const {
    constexpr int64_t kTaps = 9, kFinishedOutputs = 8;
    const int64_t rows = sums_.dim(1), ld = sums_.dim(2);
    parallel_for(ceil_div(sink_.oc, kFinishedOutputs), [&](int64_t job) {
      Scratch scratch;
      float* const taps = scratch.get<float>(static_cast<size_t>(kTaps * ld));
      for (int64_t o = job * kFinishedOutputs; o < std::min(sink_.oc, (job + 1) * kFinishedOutputs); ++o) {
        transforms_.d_w(sums_.data<float>() + o * ld, rows * ld, sink_.k, taps, ld);
        for (int64_t t = 0; t < kTaps; ++t)
          sink_.put(taps + t * ld, ld, t, 0, sink_.k, o, o + 1, kernels::Into::kOverwrite, kernels::Store::kCached);
      }
    });
  }

  const Gemm& gemm_;
  const Tiles tiles_;
  const kernels::GradientTransforms& transforms_;
  const Tensor& d_y_;
  const WeightSink& sink_;
  const std::vector<bf16> zero_;
  const Tensor sums_;  // [position][output][channel]
};

}  // namespace

void weight_gradient_winograd(const Gemm& gemm, const Tiles& tiles, const Tensor& x, const Tensor& d_y,
                              const WeightSink& sink) {
  const int64_t rows = tiles.g.n * tiles.down(), per = WinogradGradient::rows_per_chunk(tiles);
  sum_parts(gradient_parts(WinogradGradient::jobs(gemm, sink), ceil_div(rows, per)), rows, per, sink,
            [&](RowRange part, const WeightSink& sum) {
              const WinogradGradient gradient(gemm, tiles, d_y, sum);
              if (x.dtype() == DType::bf16)
                gradient.run<bf16>(Bf16Source(x, tiles.g), part);
              else
                gradient.run<uint8_t>(CodeSource(x, nullptr, tiles.g), part);
            });
}

}  // namespace nibble
