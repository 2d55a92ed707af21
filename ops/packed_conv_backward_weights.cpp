// Gradient of the packed convolution's weights (METHOD.md section 9): which driver makes it, and the one of bf16
// products from packed panels.
//
// d_w[o][tap][c] = sum over points of d_y[point][o] * x[point under tap][c]. The left operand is d_y, transposed once
// for all taps; source rows are the right operand as they lie, and C has the layout of d_w. The other way round every
// tap transposes x and every sum is transposed on its way out: 14 % slower on AVX2 over ResNet-50 at 64 px, half the
// speed in stage 4.
#include <array>
#include <bit>

#include "ops/packed_conv_weight_gradient.hpp"
#include "ops/packed_source.hpp"

namespace nibble {

namespace {

/// Depth of one run: a panel of source rows, 16 columns of floats, then takes half of a 32 KiB L1.
constexpr int64_t kSliceDepth = 256;
/// Channels of one task: 4 right panels on AVX2, 128 KiB for 512 points, stay in L2 for all of its outputs.
constexpr int64_t kTaskChannels = 64;
/// Outputs of one task: what packing the panels above costs is then below 2 % of the products.
constexpr int64_t kTaskOutputs = 256;
/// Rows of C between two visits to d_weights: 8 left panels of 6 on AVX2 share a right panel while it is in L1.
constexpr int64_t kBlockOutputs = 48;
/// Outputs whose panels are packed together, those of a line of d_y, and points at a time, a multiple of every kr: the
/// second panel finds the lines in L1. Layers of 256 outputs at 56 px take 0.96 and 0.97 of their time (avx512bf16 and
/// avx2 on a Zen 5), others 0.97 to 1.01.
constexpr int64_t kLineOutputs = 32, kPackedPoints = 64;

/// The left operand: d_y of one chunk, transposed, in panels of mr outputs, packed by jobs.
class GradientPanels {
 public:
  GradientPanels(Scratch& scratch, const kernels::GemmFloat<bf16>& gemm, const Tensor& d_y, int64_t first,
                 int64_t points, int64_t outputs)
      : gemm_(gemm),
        d_y_(d_y),
        first_(first),
        points_(points),
        outputs_(outputs),
        panel_bytes_(round_up(gemm.mr * round_up(points, gemm.kr) * gemm.a_bytes, static_cast<int64_t>(kAlignment))),
        data_(scratch.get<std::byte>(static_cast<size_t>(count() * panel_bytes_))) {}

  int64_t count() const { return ceil_div(outputs_, gemm_.mr); }
  int64_t panel_bytes() const { return panel_bytes_; }
  const std::byte* panel(int64_t p) const { return data_ + p * panel_bytes_; }

  int64_t jobs() const { return ceil_div(count(), together()); }
  void pack(int64_t job) const {
    const int64_t p0 = job * together(), p1 = std::min(count(), p0 + together());
    std::array<const bf16*, static_cast<size_t>(kPackedPoints)> rows{};
    for (int64_t i0 = 0; i0 < points_; i0 += kPackedPoints) {
      const int64_t points = std::min(kPackedPoints, points_ - i0);
      for (int64_t p = p0; p < p1; ++p) {
        const int64_t m = p * gemm_.mr;
        const bf16* from = d_y_.row<bf16>(first_ + i0) + m;
        for (int64_t i = 0; i < points; ++i, from += d_y_.stride()) rows[static_cast<size_t>(i)] = from;
        gemm_.pack_a_transposed(rows.data(), static_cast<int>(points),
                                static_cast<int>(std::min<int64_t>(gemm_.mr, outputs_ - m)),
                                data_ + p * panel_bytes_ + i0 * gemm_.mr * gemm_.a_bytes);
      }
    }
  }

 private:
  int64_t together() const { return std::max<int64_t>(1, kLineOutputs / gemm_.mr); }

  const kernels::GemmFloat<bf16>& gemm_;
  const Tensor& d_y_;
  int64_t first_, points_, outputs_, panel_bytes_;
  std::byte* data_;
};

/// One chunk of a weight gradient: d_y transposed times source rows, by tap and channel.
template <typename T>
struct WeightChunk {
  const kernels::GemmFloat<bf16>& gemm;
  void (*pack_rows)(const T* const* rows, int64_t offset, int k, int columns, void* panel);
  const T* const* pointers;  // [tap][point]
  int64_t points;
  const GradientPanels& d_y;
  const WeightSink& sink;
  kernels::Into into;  // the first chunk overwrites
  const ChunkAhead& next;

  /// The products of left panels [m0, m1) and channels from c0 on under one tap. No sum over all of the weights exists:
  /// a block goes to d_weights while it is in cache.
  void add_products(int64_t tap, int64_t c0, int64_t m0, int64_t m1, ChunkAhead ahead) const {
    const int64_t channels = std::min(kTaskChannels, sink.k - c0), panels = ceil_div(channels, gemm.nr);
    const int64_t depth = round_up(points, gemm.kr), slice = round_up(kSliceDepth, gemm.kr);
    const int64_t panel_bytes = round_up(gemm.nr * depth * gemm.b_bytes, static_cast<int64_t>(kAlignment));
    const int64_t ld = panels * gemm.nr, block = std::max<int64_t>(1, kBlockOutputs / gemm.mr);
    Scratch scratch;
    auto* b = scratch.get<std::byte>(static_cast<size_t>(panels * panel_bytes));
    float* c = scratch.get<float>(static_cast<size_t>(block * gemm.mr * ld));
    for (int64_t n = 0; n < panels; ++n)
      pack_rows(pointers + tap * points, c0 + n * gemm.nr, static_cast<int>(points),
                static_cast<int>(std::min<int64_t>(gemm.nr, channels - n * gemm.nr)), b + n * panel_bytes);
    for (int64_t m = m0; m < m1; m += block) {
      const int64_t count = std::min(block, m1 - m), o0 = m * gemm.mr, o1 = std::min(sink.oc, (m + count) * gemm.mr);
      sink.prefetch(tap, c0, channels, o0, o1);
      for (int64_t k0 = 0; k0 < depth; k0 += slice)
        for (int64_t n = 0; n < panels; ++n)
          gemm.run(static_cast<int>(std::min(slice, depth - k0)), static_cast<int>(o1 - o0),
                   d_y.panel(m) + k0 * gemm.mr * gemm.a_bytes, d_y.panel_bytes(),
                   b + n * panel_bytes + k0 * gemm.nr * gemm.b_bytes, c + n * gemm.nr, ld,
                   k0 > 0 ? kernels::Into::kAccumulate : kernels::Into::kOverwrite, ahead.take(piece_bytes()));
      sink.put(c, ld, tap, c0, channels, o0, o1, into, kernels::Store::kCached);
    }
  }

  /// What a run over a whole slice reads of its right panel, and so may prefetch.
  int64_t piece_bytes() const { return round_up(kSliceDepth, gemm.kr) * gemm.nr * gemm.b_bytes; }

  /// All of the chunk, in parallel: every task owns a block of d_weights.
  void add_all() const {
    const int64_t channel_groups = ceil_div(sink.k, kTaskChannels);
    const int64_t panels = d_y.count(), per = ceil_div(panels, ceil_div(sink.oc, kTaskOutputs));
    const int64_t output_groups = ceil_div(panels, per), units = sink.taps * channel_groups * panels;  // of equal work
    const auto ahead_of = [&](int64_t first, int64_t last) {
      ChunkAhead ahead = next.part(first, units, piece_bytes());
      const ChunkAhead end = next.part(last - 1, units, piece_bytes());
      ahead.d_y.end = end.d_y.end;
      ahead.x.end = end.x.end;
      return ahead;
    };
    parallel_for(sink.taps * channel_groups * output_groups, [&](int64_t job) {
      const int64_t m0 = job % output_groups * per, group = job / output_groups;
      const int64_t m1 = std::min(panels, m0 + per);
      add_products(group / channel_groups, group % channel_groups * kTaskChannels, m0, m1,
                   ahead_of(group * panels + m0, group * panels + m1));
    });
  }
};

/// Signed image codes as bf16 (code - 128 is exact); the padded image already holds 128 in its rim.
Tensor signed_codes(const Tensor& x) {
  Tensor out(DType::bf16, x.shape(), x.stride());
  const uint8_t* from = x.data<uint8_t>();
  bf16* to = out.data<bf16>();
  const int64_t per_image = x.dim(1) * x.dim(2) * x.stride();
  parallel_for(x.dim(0), [&](int64_t i) {
    for (int64_t e = i * per_image; e < (i + 1) * per_image; ++e)
      to[e].bits = static_cast<uint16_t>(
          std::bit_cast<uint32_t>(static_cast<float>(int32_t{from[e]} - int32_t{kSignedOffset})) >> 16);
  });
  return out;
}

/// Whether the taps of a point become one row: where the ends of panels would be more than an eighth of the products,
/// as for 21 elements of a stem's kernel row or 39 channels.
bool joins_taps(const kernels::GemmFloat<bf16>& gemm, int64_t taps, int64_t k) {
  return round_up(k, gemm.nr) * taps * 8 > round_up(taps * k, gemm.nr) * 9;
}

/// Copies a few dozen bytes, 16 at a time: a call of memcpy for every 21 codes takes longer than their products.
inline void copy_short(const void* from, size_t bytes, void* to) {
  constexpr size_t kStep = 16;
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  if (bytes < kStep) {
    for (size_t i = 0; i < bytes; ++i) target[i] = source[i];
    return;
  }
  for (size_t i = 0; i + kStep < bytes; i += kStep) std::memcpy(target + i, source + i, kStep);
  std::memcpy(target + bytes - kStep, source + bytes - kStep, kStep);
}

/// Copies the k elements under every tap of a point side by side, and points to the copies.
template <typename T>
const T** join_taps(Scratch& scratch, const T* const* pointers, int64_t points, int64_t taps, int64_t k) {
  T* to = scratch.get<T>(static_cast<size_t>(points * taps * k));
  const T** rows = scratch.get<const T*>(static_cast<size_t>(points));
  for (int64_t i = 0; i < points; ++i) {
    rows[i] = to;
    for (int64_t t = 0; t < taps; ++t, to += k)
      copy_short(pointers[t * points + i], static_cast<size_t>(k) * sizeof(T), to);
  }
  return rows;
}

/// The chunks of some rows, one after another, so that the sums do not depend on the number of threads. d_weights is
/// [oc][taps of g][k], or the same bytes as [oc][1][taps * k] when the sink says so.
template <typename T, typename Source, typename Pack>
void add_chunks(const kernels::GemmFloat<bf16>& gemm, const Gather& g, const Source& source, Pack pack,
                const Tensor& d_y, RowRange part, const WeightSink& sink) {
  const int64_t per = grid_rows_per_task(g), all = part.end, taps = static_cast<int64_t>(g.taps.size());
  for (int64_t g0 = part.begin; g0 < all; g0 += per) {
    const int64_t g1 = std::min(all, g0 + per), first = g0 * g.gw, points = (g1 - g0) * g.gw;
    Scratch scratch;
    const GradientPanels left(scratch, gemm, d_y, first, points, sink.oc);
    const auto codes = source.expansion(scratch, source_rows(g, g0, g1));
    parallel_for(left.jobs() + codes.jobs,
                 [&](int64_t job) { job < left.jobs() ? left.pack(job) : codes.run(job - left.jobs()); });
    const T** pointers = scratch.get<const T*>(static_cast<size_t>(points * taps));
    point_rows(g, codes.rows, first, points, pointers);
    if (sink.taps != taps) pointers = join_taps(scratch, pointers, points, taps, sink.k / taps);
    const kernels::Into into = g0 == part.begin ? kernels::Into::kOverwrite : kernels::Into::kAccumulate;
    const int64_t g2 = std::min(all, g1 + per);
    ChunkAhead next;
    if (g1 < g2) next = {rows_ahead(d_y, g1 * g.gw, g2 * g.gw), source.ahead(source_rows(g, g1, g2))};
    WeightChunk<T>{gemm, pack, pointers, points, left, sink, into, next}.add_all();
  }
}

/// All rows, in parts where a chunk has few jobs.
template <typename T, typename Source, typename Pack>
void add_all_chunks(const kernels::GemmFloat<bf16>& gemm, const Gather& g, const Source& source, Pack pack,
                    const Tensor& d_y, const WeightSink& sink) {
  const int64_t jobs = sink.taps * ceil_div(sink.k, kTaskChannels) * ceil_div(sink.oc, kTaskOutputs);
  sum_parts(gradient_parts(jobs, task_count(g)), g.n * g.gh, grid_rows_per_task(g), sink,
            [&](RowRange part, const WeightSink& sum) { add_chunks<T>(gemm, g, source, pack, d_y, part, sum); });
}

}  // namespace

int64_t gradient_parts(int64_t jobs, int64_t chunks) {
  constexpr int64_t kEnoughJobs = 16;  // 1x1 64 to 256 has one, 256 to 64 four, 3x3 eighteen
  constexpr int64_t kLeastChunks = 8;  // of a part: adding its sums is then below a hundredth of making them
  return std::max<int64_t>(1, std::min(kEnoughJobs / jobs, chunks / kLeastChunks));
}

void sum_parts(int64_t parts, int64_t rows, int64_t rows_per_chunk, const WeightSink& sink,
               FunctionRef<void(RowRange, const WeightSink&)> body) {
  std::vector<Tensor> sums{sink.d_weights};
  while (std::ssize(sums) < parts) sums.emplace_back(DType::f32, sink.d_weights.shape());
  const int64_t chunks = ceil_div(rows, rows_per_chunk);
  parallel_for(parts, [&](int64_t p) {
    const RowRange part{p * chunks / parts * rows_per_chunk, std::min(rows, (p + 1) * chunks / parts * rows_per_chunk)};
    body(part, sink.part(sums[static_cast<size_t>(p)]));
  });
  if (parts == 1) return;
  constexpr int64_t kElementsAtOnce = int64_t{1} << 14;
  const int64_t size = sink.d_weights.size();
  parallel_for(ceil_div(size, kElementsAtOnce), [&](int64_t task) {
    const int64_t first = task * kElementsAtOnce, count = std::min(kElementsAtOnce, size - first);
    float* const to = sums.front().data<float>() + first;
    for (size_t p = 1; p < sums.size(); ++p) {
      const float* const from = sums[p].data<float>() + first;
      for (int64_t i = 0; i < count; ++i) to[i] += from[i];
    }
  });
}

WeightSink weight_sink(const LayerWeights& layer, const Tensor& d_weights, int64_t taps, int64_t k) {
  WeightSink sink{.d_weights = d_weights, .oc = layer.shape.oc, .taps = taps, .k = k, .column = layer.scale, .row = {}};
  // Codes without the shift: x_hat = code / s_c whatever the multiplier saw.
  if (layer.quantizer != nullptr)
    for (int64_t c = 0; c < k; ++c)
      sink.row.push_back(1.0f / layer.quantizer->scale[static_cast<size_t>(c % layer.shape.ic)]);
  return sink;
}

void packed_conv_backward_weights(const LayerWeights& layer, const Tensor& x, const Tensor& d_y,
                                  const Tensor& d_weights) {
  Zone zone("conv backward, weights", layer.name);
  const ConvShape s = shape_with_batch(layer, x);
  zone.count([&] {
    return ZoneWork{.macs = s.macs(),
                    .unit = MacUnit::kBf16,
                    .bytes = stored_bytes(x) + stored_bytes(d_y) + stored_bytes(d_weights)};
  });
  check_gradient(layer, s, d_y);
  if (d_weights.dtype() != DType::f32 || d_weights.size() != s.oc * s.k() || !d_weights.dense())
    throw ShapeError("[conv] {} has {} weights, but their gradient is {} {}; pass a dense f32 tensor of as many",
                     layer.name, s.oc * s.k(), name_of(d_weights.dtype()), d_weights.shape().str());
  if (d_y.rows() == 0) {
    d_weights.zero();
    return;
  }
  const kernels::GemmFloat<bf16>& gemm = *layer.float_gemm;
  const kernels::WeightGradient& tiled = layer.table->weight_gradient;
  const Gather g = layer.row_folded ? row_folded_gather(s) : forward_gather(s);
  int64_t k = layer.row_folded ? s.kw * s.ic : s.ic, taps = static_cast<int64_t>(g.taps.size());
  if (tiled.run_left_again == nullptr && layer.gradient_gemm == nullptr && joins_taps(gemm, taps, k)) {
    k *= taps;
    taps = 1;
  }
  const WeightSink sink = weight_sink(layer, d_weights, taps, k);

  if (tiled.run_left_again != nullptr) {
    weight_gradient_tiled(tiled, layer, s, x, d_y, sink);
    return;
  }
  const bool signed_input = layer.quantizer != nullptr && layer.quantizer->is_signed;
  const Tensor from = signed_input ? signed_codes(x) : x;
  if (layer.gradient_gemm != nullptr)
    weight_gradient_winograd(*layer.gradient_gemm, {g, layer.gradient_edge}, from, d_y, sink);
  else if (from.dtype() == DType::bf16)
    add_all_chunks<bf16>(gemm, g, Bf16Source(from, g), gemm.pack_b_rows, d_y, sink);
  else
    add_all_chunks<uint8_t>(gemm, g, CodeSource(from, nullptr, g), gemm.pack_b_rows_u8, d_y, sink);
}

}  // namespace nibble
