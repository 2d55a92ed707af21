// Gradient of the packed convolution's weights on tiles: both operands packed chunk by chunk as weight_gradient_plan
// says, multiplied block by block.
#include <algorithm>
#include <span>
#include <vector>

#include "engine/parallel.hpp"
#include "engine/scratch.hpp"
#include "ops/packed_conv_chunks.hpp"
#include "ops/weight_gradient_plan.hpp"

namespace nibble {

using namespace weight_gradient;

namespace {

using kernels::BlockProduct;
using kernels::StepRun;
using kernels::WeightGradient;

/// Products of one call of the kernel, if one panel has fewer (1x1 64 to 256 has two): 41 ns per step instead of 34 to
/// 36 were seen with two, though other things differed too.
constexpr int64_t kCallProducts = 16;
/// Steps of one panel of d_y that are prefetched ahead of their packing: 16 KiB.
constexpr int64_t kAheadPanels = 8;
/// Points of one task that packs d_y.
constexpr int64_t kPackPoints = 256;

/// Where the rows of both operands of one chunk lie, for every panel of them.
struct ChunkRows {
  int64_t points = 0;                // rounded up to a step
  const bf16** d_y = nullptr;        // [points]; rim points have rows of zeros
  std::vector<const void**> pixels;  // [plane][2 * pairs + 1]
  // The steps of the products: a run per slice for all taps, or the runs of every tap by themselves.
  std::vector<StepRun> common;
  const Geometry* by_tap = nullptr;

  int64_t slices() const { return by_tap != nullptr ? by_tap->slices() : std::ssize(common); }
  std::span<const StepRun> runs(int64_t slice, int64_t tap) const {
    if (by_tap == nullptr) return {&common[static_cast<size_t>(slice)], 1};
    return by_tap->runs[static_cast<size_t>(slice * std::ssize(by_tap->taps) + tap)];
  }
};

/// Rows of d_y from grid point `first` on.
struct OutputRows {
  kernels::Rows<const bf16> rows;
  int64_t first = 0;
};

class TiledGradient {
 public:
  /// `rows_per_chunk`: 0 for the best cut; otherwise all panels of the operand that stays are one group.
  TiledGradient(const WeightGradient& kernel, const LayerWeights& layer, const ConvShape& s, const Tensor& x,
                const WeightSink& sink, int64_t rows_per_chunk = 0)
      : kernel_(kernel), shape_(s), x_(x), sink_(sink), g_(geometry(layer, s)) {
    if (rows_per_chunk == 0) {
      plan_ = make_plan(g_, sink.oc, sink.k);
    } else {
      plan_ = uncut_plan(g_, sink.oc, sink.k);
      plan_.cut(g_, rows_per_chunk);
      plan_.group = plan_.staying();
    }
    const bool is_signed = layer.quantizer != nullptr && layer.quantizer->is_signed;
    pack_right_ = x.dtype() == DType::bf16  ? kernel.pack_right_bf16
                  : bits_of(x.dtype()) == 4 ? kernel.pack_right_u4
                  : is_signed               ? kernel.pack_right_signed
                                            : kernel.pack_right_u8;
    zero_output_.resize(static_cast<size_t>(round_up(sink.oc, kOutputs)));
    zero_pixel_.assign(static_cast<size_t>(round_up(sink.k, kChannels) * 2), is_signed ? kSignedOffset : uint8_t{0});
  }

  void run(const OutputRows& d_y) const {
    for (int64_t first = 0; first < plan_.staying(); first += plan_.group) {
      const Group group{first, std::min(plan_.staying(), first + plan_.group)};
      Scratch scratch;
      float* const sums = sums_of(group, scratch);
      for (int64_t chunk = 0; chunk < plan_.chunks; ++chunk) add_chunk(group, chunk, d_y, sums);
    }
  }

  /// Panels [first, last) of the operand that stays.
  struct Group {
    int64_t first = 0, last = 0;
  };
  Group only_group() const { return {0, plan_.staying()}; }
  int64_t chunks() const { return plan_.chunks; }
  /// Where the sums of a group lie from chunk to chunk; with one chunk those of a streaming panel are needed no longer
  /// than its task: null.
  float* sums_of(const Group& group, Scratch& scratch) const {
    return plan_.chunks == 1
               ? nullptr
               : scratch.get<float>(static_cast<size_t>(plan_.streaming() * blocks_a_panel(group) * kBlockFloats));
  }

  /// The products of one chunk, added to the sums; the last chunk writes the sink.
  void add_chunk(const Group& group, int64_t chunk, const OutputRows& d_y, float* sums) const {
    const int64_t first = group.first, last = group.last, row_blocks = blocks_a_panel(group);
    Scratch scratch;
    auto* const stay = scratch.get<std::byte>(static_cast<size_t>((last - first) * plan_.staying_bytes()));
    const ChunkRows rows = chunk_rows(scratch, chunk, d_y);
    pack(plan_.left_stays, rows, first, last, stay);
    parallel_for(ceil_div(plan_.streaming(), plan_.at_once), [&](int64_t task) {
      const int64_t i0 = task * plan_.at_once, i1 = std::min(plan_.streaming(), i0 + plan_.at_once);
      Scratch of_task;
      auto* const panels = of_task.get<std::byte>(static_cast<size_t>((i1 - i0) * plan_.streaming_bytes()));
      const int64_t together = std::min(i1 - i0, ceil_div(kCallProducts, row_blocks));
      float* const own =
          sums == nullptr ? of_task.get<float>(static_cast<size_t>(together * row_blocks * kBlockFloats)) : nullptr;
      if (plan_.left_stays) {
        for (int64_t i = i0; i < i1; ++i) pack_right(rows, i, panels + (i - i0) * plan_.right_bytes);
      } else {
        pack_left(rows, i0, i1, 0, rows.points, panels);
      }
      for (int64_t i = i0; i < i1; i += together) {
        const int64_t end = std::min(i1, i + together);
        float* const c = own != nullptr ? own : sums + i * row_blocks * kBlockFloats;
        multiply(rows, stay, first, last, panels + (i - i0) * plan_.streaming_bytes(), i, end, c, chunk);
        for (int64_t b = 0; b < (end - i) * row_blocks && chunk + 1 == plan_.chunks; ++b)
          flush(place(b, first, last, i), c + b * kBlockFloats);
      }
      kernels::active().ew.publish();
    });
  }

 private:
  int64_t blocks_a_panel(const Group& group) const {
    return (group.last - group.first) * static_cast<int64_t>(g_.taps.size());
  }

  ChunkRows chunk_rows(Scratch& scratch, int64_t chunk, const OutputRows& d_y) const {
    const int64_t r0 = chunk * plan_.rows_per_chunk, r1 = std::min(g_.plane_rows(), r0 + plan_.rows_per_chunk);
    ChunkRows rows;
    rows.points = round_up((r1 - r0) * g_.row_pitch, kStep);
    rows.d_y = scratch.get<const bf16*>(static_cast<size_t>(rows.points));
    if (g_.batch > 0) {
      set_images(scratch, rows, d_y);
      return rows;
    }
    const int64_t steps = rows.points / kStep, per = ceil_div(steps, ceil_div(steps, kSliceSteps));
    for (int64_t at = 0; at < steps; at += per)
      rows.common.push_back({.left = at, .right = at, .steps = std::min(per, steps - at)});
    std::fill_n(rows.d_y, rows.points, zero_output_.data());
    for (int64_t r = r0; r < r1; ++r) {
      const int64_t image = r / g_.image_pitch, i = r % g_.image_pitch;
      if (i >= g_.rows.grid) continue;
      const bf16** const to = rows.d_y + (r - r0) * g_.row_pitch;
      const int64_t point = (image * g_.rows.grid + i) * g_.columns.grid;
      const bf16* from = d_y.rows.data + (point - d_y.first) * d_y.rows.stride;
      for (int64_t j = 0; j < g_.columns.grid; ++j, from += d_y.rows.stride) to[j] = from;
    }
    for (const Plane& plane : g_.planes) {
      const int64_t count = 2 * plane.pairs(rows.points) + 1;
      rows.pixels.push_back(scratch.get<const void*>(static_cast<size_t>(count)));
      std::fill_n(rows.pixels.back(), count, zero_pixel_.data());
      for (int64_t at = 0; at < count; at += g_.row_pitch)
        set_pixels(plane, r0 + at / g_.row_pitch, std::min(g_.row_pitch, count - at), rows.pixels.back() + at);
    }
    return rows;
  }

  /// Pixel by pixel, the points of all images.
  void set_images(Scratch& scratch, ChunkRows& rows, const OutputRows& d_y) const {
    const int64_t map = g_.rows.grid * g_.columns.grid, source = g_.rows.source * g_.columns.source, n = g_.batch;
    rows.by_tap = &g_;
    const bf16** to = rows.d_y;
    for (int64_t at = 0; at < map; ++at)
      for (int64_t b = 0; b < n; ++b) *to++ = d_y.rows.data + (b * map + at - d_y.first) * d_y.rows.stride;
    rows.pixels.push_back(scratch.get<const void*>(static_cast<size_t>(source * n + 1)));
    const void** const pixels = rows.pixels.back();
    pixels[source * n] = zero_pixel_.data();  // after the last pair: no product reads it
    for (int64_t y = 0; y < g_.rows.source; ++y)
      for (int64_t x = 0; x < g_.columns.source; ++x)
        for (int64_t b = 0; b < n; ++b)
          pixels[(y * g_.columns.source + dealt_column(shape_, x)) * n + b] =
              x_.raw() + (b * source + y * g_.columns.source + x) * pixel_bytes();
  }

  /// The first `cells` cells of a row of a plane; those that are pads stay as they are.
  void set_pixels(const Plane& plane, int64_t plane_row, int64_t cells, const void** to) const {
    const int64_t image = plane_row / g_.image_pitch, u = plane_row % g_.image_pitch;
    if (image >= g_.images || u < g_.rows.first(plane.row_phase) || u >= g_.rows.end(plane.row_phase)) return;
    const int64_t y = u * g_.rows.stride + plane.row_phase - g_.rows.before;
    const int64_t x0 = plane.column_phase - g_.columns.before;
    const int64_t end = std::min(cells, g_.columns.end(plane.column_phase));
    const std::byte* const line = x_.raw() + (image * g_.rows.source + y) * g_.columns.source * pixel_bytes();
    for (int64_t v = g_.columns.first(plane.column_phase); v < end; ++v)
      to[v] = line + (v * g_.columns.stride + x0) * pixel_bytes();
  }

  int64_t pixel_bytes() const { return static_cast<int64_t>(x_.row_bytes()); }

  /// Packs panels [first, last) of d_y (left) or x, in parallel.
  void pack(bool left, const ChunkRows& rows, int64_t first, int64_t last, std::byte* to) const {
    if (left) {
      parallel_for(ceil_div(rows.points, kPackPoints), [&](int64_t i) {
        pack_left(rows, first, last, i * kPackPoints, std::min(rows.points, (i + 1) * kPackPoints), to);
      });
    } else {
      parallel_for(last - first, [&](int64_t i) { pack_right(rows, first + i, to + i * plan_.right_bytes); });
    }
  }

  /// Rows of d_y in order and all panels of a row, so that memory is read as it lies.
  void pack_left(const ChunkRows& rows, int64_t first, int64_t last, int64_t begin, int64_t end, std::byte* to) const {
    const int64_t ahead = kStep * ceil_div(kAheadPanels, last - first);
    for (int64_t i = begin; i < end; i += kStep) {
      for (int64_t panel = first; panel < last; ++panel) {
        if (i + ahead + kStep <= rows.points)
          for (int64_t r = i + ahead; r < i + ahead + kStep; ++r) __builtin_prefetch(rows.d_y[r] + panel * kOutputs);
        kernel_.pack_left(rows.d_y + i, panel * kOutputs, kStep,
                          static_cast<int>(std::min(kOutputs, sink_.oc - panel * kOutputs)),
                          to + (panel - first) * plan_.left_bytes + i * kOutputs * 2);
      }
    }
  }

  void pack_right(const ChunkRows& rows, int64_t panel, std::byte* to) const {
    const int channels = static_cast<int>(std::min(kChannels, sink_.k - panel * kChannels));
    for (size_t p = 0; p < g_.planes.size(); ++p) {
      const Plane& plane = g_.planes[p];
      const int64_t pairs = plane.pairs(rows.points), bytes = pairs * kChannels * 4;
      std::byte* const odd = to + (plane.even ? bytes : 0);
      pack_right_(rows.pixels[p], panel * kChannels, channels, pairs, plane.even ? to : nullptr,
                  plane.odd ? odd : nullptr);
      to += plane.bytes_of(rows.points);
    }
  }

  /// The b-th product of a list: by streaming panel, staying panel and tap.
  struct Place {
    int64_t streaming = 0, staying = 0, tap = 0;
    int64_t o0 = 0, c0 = 0;
  };
  Place place(int64_t b, int64_t first, int64_t last, int64_t streaming) const {
    const auto taps = static_cast<int64_t>(g_.taps.size());
    Place p{.streaming = streaming + b / (taps * (last - first)),
            .staying = first + b / taps % (last - first),
            .tap = b % taps};
    p.o0 = (plan_.left_stays ? p.staying : p.streaming) * kOutputs;
    p.c0 = (plan_.left_stays ? p.streaming : p.staying) * kChannels;
    return p;
  }

  /// The products of streaming panels [begin, end) with all that stay, slice by slice; the operand that all of a
  /// panel's products share, or that all taps share, is then in L1.
  void multiply(const ChunkRows& rows, const std::byte* stay, int64_t first, int64_t last, const std::byte* panels,
                int64_t begin, int64_t end, float* sums, int64_t chunk) const {
    const int64_t taps = static_cast<int64_t>(g_.taps.size()), count = (end - begin) * (last - first) * taps;
    Scratch scratch;
    auto* const list = scratch.get<BlockProduct>(static_cast<size_t>(count));
    for (int64_t b = 0; b < count; ++b) {
      const Place at = place(b, first, last, begin);
      const std::byte* const panel = panels + (at.streaming - begin) * plan_.streaming_bytes();
      const std::byte* const staying = stay + (at.staying - first) * plan_.staying_bytes();
      const PlaneTap& tap = g_.taps[static_cast<size_t>(at.tap)];
      list[b] = {.left = plan_.left_stays ? staying : panel,
                 .right = tap_address(plan_.left_stays ? panel : staying, rows, tap),
                 .right_panel_bytes = g_.planes[tap.plane].pairs(rows.points) * kChannels * 2,
                 .sums = sums + b * kBlockFloats,
                 .ahead = sums + (b + 1 < count ? b + 1 : b) * kBlockFloats,
                 .ahead_stride = kChannels};
    }
    // All taps read one left slice; with one tap it is the streaming panel that all products share.
    const auto run = plan_.left_stays && taps == 1 ? kernel_.run_right_again : kernel_.run_left_again;
    for (int64_t slice = 0; slice < rows.slices(); ++slice) {
      for (int64_t b = 0; b < count; ++b) {
        const std::span<const StepRun> runs = rows.runs(slice, b % taps);
        list[b].runs = runs.data();
        list[b].run_count = std::ssize(runs);
      }
      run(list, count, chunk == 0 && slice == 0 ? kernels::Into::kOverwrite : kernels::Into::kAccumulate);
    }
  }

  const std::byte* tap_address(const std::byte* right, const ChunkRows& rows, const PlaneTap& tap) const {
    for (size_t p = 0; p < tap.plane; ++p) right += g_.planes[p].bytes_of(rows.points);
    const Plane& plane = g_.planes[tap.plane];
    const bool odd = tap.offset % 2 != 0;
    return right + (odd && plane.even ? plane.pairs(rows.points) * kChannels * 4 : 0) + tap.offset / 2 * kChannels * 2;
  }

  /// No gradient is read before all of backward is done.
  void flush(const Place& at, const float* sums) const {
    sink_.put(sums, kChannels, at.tap, at.c0, std::min(kChannels, sink_.k - at.c0), at.o0,
              std::min(sink_.oc, at.o0 + kOutputs), kernels::Into::kOverwrite, kernels::Store::kStreamed);
  }

  const WeightGradient& kernel_;
  const ConvShape shape_;
  const Tensor& x_;
  const WeightSink& sink_;
  Geometry g_;
  TiledPlan plan_;
  WeightGradient::PackRight pack_right_ = nullptr;
  std::vector<bf16> zero_output_;
  std::vector<uint8_t> zero_pixel_;
};

}  // namespace

void weight_gradient_tiled(const WeightGradient& kernel, const LayerWeights& layer, const ConvShape& s, const Tensor& x,
                           const Tensor& d_y, const WeightSink& sink) {
  TiledGradient(kernel, layer, s, x, sink).run({{d_y.data<bf16>(), d_y.stride()}, 0});
}

struct WeightGradientChunks::Impl {
  TiledGradient gradient;
  int64_t chunk_points;
  float* sums;
};

WeightGradientChunks::WeightGradientChunks(Scratch& scratch, const kernels::WeightGradient& kernel,
                                           const LayerWeights& layer, const ConvShape& s, const Tensor& x,
                                           const WeightSink& sink, int64_t rows_per_chunk)
    : impl_(new Impl{TiledGradient(kernel, layer, s, x, sink, rows_per_chunk), rows_per_chunk * s.ow(), nullptr}) {
  impl_->sums = impl_->gradient.sums_of(impl_->gradient.only_group(), scratch);
}
WeightGradientChunks::~WeightGradientChunks() = default;

int64_t WeightGradientChunks::count() const {
  return impl_->gradient.chunks();
}

void WeightGradientChunks::add(int64_t chunk, kernels::Rows<const bf16> d_y) const {
  impl_->gradient.add_chunk(impl_->gradient.only_group(), chunk, {d_y, chunk * impl_->chunk_points}, impl_->sums);
}

}  // namespace nibble
