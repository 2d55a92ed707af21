// Gradient of the packed convolution's weights in fewer products (ops/winograd.hpp): 16 sums over tiles of 2x2 outputs,
// of transformed output gradients times transformed source pixels, where the plain one has nine sums over four times as
// many points.
#include <algorithm>
#include <array>
#include <vector>

#include "ops/packed_conv_weight_gradient.hpp"
#include "ops/packed_source.hpp"
#include "ops/winograd.hpp"

namespace nibble {

namespace {

using winograd::kPositions;
using Gemm = kernels::GemmFloat<float>;

/// Tiles of a chunk, which is the depth of a run: a right panel on AVX2, 16 columns, is then half of a 32 KiB L1.
constexpr int64_t kChunkTiles = 256;
/// Tiles and channels that are transformed before they are packed: 16 positions of them take 64 KiB.
constexpr int64_t kTransformTiles = 16, kTransformChannels = 64;
/// Rows of sums of one run of the kernel: 8 left panels of 6 on AVX2 share a right panel while it is in L1.
constexpr int64_t kRunOutputs = 48;
/// Outputs of one task, of all channels behind a position.
constexpr int64_t kJobOutputs = 256;

/// One operand of a chunk: for each position panels of `width` rows or columns, a tile deep each.
struct TilePanels {
  int64_t width = 0, count = 0, panel_bytes = 0;
  std::byte* data = nullptr;

  TilePanels(Scratch& scratch, int64_t panel_width, int64_t elements, int64_t tiles)
      : width(panel_width),
        count(ceil_div(elements, panel_width)),
        panel_bytes(round_up(panel_width * tiles * int64_t{sizeof(float)}, int64_t{kAlignment})),
        data(scratch.get<std::byte>(static_cast<size_t>(kPositions * count * panel_bytes))) {}
  /// Panels that are filled together, and how many times.
  int64_t per_group() const { return std::max<int64_t>(1, kTransformChannels / width); }
  int64_t groups() const { return ceil_div(count, per_group()); }
  std::byte* panel(int64_t position, int64_t p) const { return data + (position * count + p) * panel_bytes; }
};

/// Fills a group of panels.
/// transform(pixels, offset, n, out, stride) makes 16 positions of n elements of a tile from its kPixels pixels;
/// pack(rows, offset, tiles, columns, panel) packs the elements from `offset` on.
template <int64_t kPixels, typename S, typename Transform, typename Pack>
void fill_panels(const TilePanels& to, const S* const* pixels, int64_t tiles, int64_t elements, int64_t group,
                 const Transform& transform, const Pack& pack) {
  const int64_t per = to.per_group(), first = group * per;
  const int64_t last = std::min(to.count, first + per), e0 = first * to.width,
                n = std::min(elements, last * to.width) - e0;
  Scratch scratch;
  float* const made = scratch.get<float>(static_cast<size_t>(kPositions * kTransformTiles * per * to.width));
  const int64_t ld = per * to.width, position_stride = kTransformTiles * ld;
  std::array<const float*, static_cast<size_t>(kTransformTiles)> rows{};
  for (int64_t t0 = 0; t0 < tiles; t0 += kTransformTiles) {
    const int64_t count = std::min(kTransformTiles, tiles - t0);
    for (int64_t t = 0; t < count; ++t) transform(pixels + (t0 + t) * kPixels, e0, n, made + t * ld, position_stride);
    for (int64_t position = 0; position < kPositions; ++position) {
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
  WinogradGradient(const Gemm& gemm, const Gather& g, const Tensor& d_y, const WeightSink& sink)
      : gemm_(gemm),
        g_(g),
        d_y_(d_y),
        sink_(sink),
        zero_(static_cast<size_t>(d_y.stride())),
        sums_(DType::f32, {kPositions, round_up(sink.oc, gemm.mr), round_up(sink.k, gemm.nr)}) {}

  /// All chunks, one behind the other, so that the sums do not depend on the number of threads.
  template <typename S, typename Source>
  void run(const Source& source) {
    const int64_t across = winograd::tiles_across(g_), all = g_.n * winograd::tiles_down(g_);
    const int64_t per = std::max<int64_t>(1, kChunkTiles / std::max<int64_t>(1, across));
    for (int64_t begin = 0; begin < all; begin += per)
      add_chunk<S>(source, begin, std::min(all, begin + per), begin == 0);
    finish();
  }

 private:
  template <typename S, typename Source>
  void add_chunk(const Source& source, int64_t begin, int64_t end, bool first) const {
    const int64_t tiles = (end - begin) * winograd::tiles_across(g_);
    Scratch scratch;
    const RowRange range = source_rows(g_, winograd::first_grid_row(g_, begin), winograd::first_grid_row(g_, end));
    const SourceRows<S> rows_from = source(scratch, range);
    const S** const pixels = scratch.get<const S*>(static_cast<size_t>(tiles * kPositions));
    winograd::point_tiles(g_, rows_from, begin, end, pixels);
    const bf16** const outputs = scratch.get<const bf16*>(static_cast<size_t>(tiles * winograd::kOutputs));
    point_outputs(begin, end, outputs);
    const TilePanels left(scratch, gemm_.mr, sink_.oc, tiles), right(scratch, gemm_.nr, sink_.k, tiles);

    const auto& ew = kernels::active().ew;
    const int64_t left_groups = left.groups();
    parallel_for(left_groups + right.groups(), [&](int64_t job) {
      if (job < left_groups)
        fill_panels<winograd::kOutputs>(
            left, outputs, tiles, sink_.oc, job, ew.winograd_d_y_bf16,
            [&](const float* const* rows, int64_t offset, int k, int columns, std::byte* panel) {
              std::array<const float*, static_cast<size_t>(kTransformTiles)> shifted{};
              for (int t = 0; t < k; ++t) shifted[static_cast<size_t>(t)] = rows[t] + offset;
              gemm_.pack_a_transposed(shifted.data(), k, columns, panel);
            });
      else
        fill_panels<kPositions>(right, pixels, tiles, sink_.k, job - left_groups,
                                winograd::input_transform<float, S>(ew), gemm_.pack_b_rows);
    });
    multiply(left, right, tiles, first ? kernels::Into::kOverwrite : kernels::Into::kAccumulate);
  }

  /// The four outputs of every tile, zeros outside of the map.
  void point_outputs(int64_t begin, int64_t end, const bf16** outputs) const {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = winograd::first_grid_row(g_, row);
      const bool lower = row % winograd::tiles_down(g_) * 2 + 1 < g_.gh;
      for (int64_t i = 0; i < winograd::tiles_across(g_); ++i, outputs += winograd::kOutputs)
        for (int64_t q = 0; q < winograd::kOutputs; ++q) {
          const bool inside = (q < 2 || lower) && 2 * i + q % 2 < g_.gw;
          outputs[q] = inside ? d_y_.row<bf16>((first + q / 2) * g_.gw + 2 * i + q % 2) : zero_.data();
        }
    }
  }

  void multiply(const TilePanels& left, const TilePanels& right, int64_t tiles, kernels::Into into) const {
    const int64_t per = std::max<int64_t>(1, kJobOutputs / left.width), parts = ceil_div(left.count, per);
    const int64_t block = std::max<int64_t>(1, kRunOutputs / left.width), rows = sums_.dim(1), ld = sums_.dim(2);
    parallel_for(kPositions * parts, [&](int64_t job) {
      const int64_t position = job / parts, m1 = std::min(left.count, (job % parts + 1) * per);
      for (int64_t m = job % parts * per; m < m1; m += block)
        for (int64_t n = 0; n < right.count; ++n)
          gemm_.run(static_cast<int>(tiles), static_cast<int>(std::min(block, m1 - m)), left.panel(position, m),
                    left.panel_bytes, right.panel(position, n),
                    sums_.data<float>() + (position * rows + m * left.width) * ld + n * right.width, ld, into);
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
        kernels::active().ew.winograd_d_w_f32(sums_.data<float>() + o * ld, rows * ld, sink_.k, taps, ld);
        for (int64_t t = 0; t < kTaps; ++t)
          sink_.put(taps + t * ld, ld, t, 0, sink_.k, o, o + 1, kernels::Into::kOverwrite, kernels::Store::kCached);
      }
    });
  }

  const Gemm& gemm_;
  const Gather& g_;
  const Tensor& d_y_;
  const WeightSink& sink_;
  const std::vector<bf16> zero_;
  const Tensor sums_;  // [position][output][channel]
};

}  // namespace

void weight_gradient_winograd(const Gemm& gemm, const Gather& g, const Tensor& x, const Tensor& d_y,
                              const WeightSink& sink) {
  WinogradGradient gradient(gemm, g, d_y, sink);
  if (x.dtype() == DType::bf16)
    gradient.run<bf16>(Bf16Source(x, g));
  else
    gradient.run<uint8_t>(CodeSource(x, nullptr, g));
}

}  // namespace nibble
