// Gradients of the packed convolution: bf16 products with fp32 sums (DESIGN 2.4).
#include "ops/packed_conv.hpp"
#include "ops/packed_source.hpp"

namespace nibble {

namespace {

/// Pointers to the rows behind one kernel position, advanced to channel `m0`.
template <typename T>
void advance(const T* const* from, int64_t count, int64_t m0, const T** to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] + m0;
}

/// One chunk of a weight gradient: source rows transposed (left operand) times d_y (right operand), by tap and channel.
template <typename T>
struct WeightChunk {
  const kernels::GemmFloat<bf16>& gemm;
  void (*pack_a)(const T* const* rows, int k, int columns, void* panel);
  const T* const* pointers;  // [tap][point]
  int64_t points;
  int64_t k;  // channels behind a tap
  int64_t taps;
  const Panels& d_y;
};

/// Rows of C that one task makes: 8 panels of 6 on AVX2 share each panel of d_y while it is in L1.
constexpr int64_t kTaskChannels = 48;
/// Depth of one run: a panel of d_y, 16 columns of floats, then takes half of a 32 KiB L1.
constexpr int64_t kSliceDepth = 256;

/// c[channel - m0][o] += or = the products of `panels` row panels from channel m0 on behind one tap.
template <typename T>
void multiply_task(const WeightChunk<T>& w, int64_t tap, int64_t m0, int64_t panels, float* c, kernels::Into into) {
  const auto& gemm = w.gemm;
  const int64_t depth = round_up(w.points, gemm.kr), slice = round_up(kSliceDepth, gemm.kr);
  const int64_t a_panel_bytes = round_up(gemm.mr * depth * gemm.a_bytes, static_cast<int64_t>(kAlignment));
  Scratch scratch;
  auto* a = scratch.get<std::byte>(static_cast<size_t>(panels * a_panel_bytes));
  const T** shifted = scratch.get<const T*>(static_cast<size_t>(w.points));
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t m = m0 + p * gemm.mr;
    advance(w.pointers + tap * w.points, w.points, m, shifted);
    w.pack_a(shifted, static_cast<int>(w.points), static_cast<int>(std::min<int64_t>(gemm.mr, w.k - m)),
             a + p * a_panel_bytes);
  }
  const int64_t ld = w.d_y.padded_columns();
  for (int64_t k0 = 0; k0 < depth; k0 += slice) {
    const int run = static_cast<int>(std::min(slice, depth - k0));
    for (int64_t n = 0; n < w.d_y.count(); ++n)
      gemm.run(run, static_cast<int>(panels), a + k0 * gemm.mr * gemm.a_bytes, a_panel_bytes,
               w.d_y.panel(n) + k0 * gemm.nr * gemm.b_bytes, c + n * gemm.nr, ld,
               k0 > 0 ? kernels::Into::kAccumulate : into);
  }
}

/// Calls task(tap, first channel, row panels) for all of C, in parallel.
template <typename Task>
void for_each_task(const kernels::GemmFloat<bf16>& gemm, int64_t taps, int64_t k, const Task& task) {
  const int64_t m_panels = (k + gemm.mr - 1) / gemm.mr, per = std::max<int64_t>(1, kTaskChannels / gemm.mr);
  const int64_t groups = (m_panels + per - 1) / per;
  parallel_for(taps * groups, [&](int64_t job) {
    const int64_t first = job % groups * per;
    task(job / groups, first * gemm.mr, std::min(per, m_panels - first));
  });
}

/// Signed image codes as bf16 (code - 128 is exact); the padded image already holds 128 in its rim.
Tensor signed_codes(const Tensor& x) {
  Tensor out(DType::bf16, x.shape(), x.stride());
  const uint8_t* from = x.data<uint8_t>();
  bf16* to = out.data<bf16>();
  const int64_t per_image = x.dim(1) * x.dim(2) * x.stride();
  parallel_for(x.dim(0), [&](int64_t i) {
    for (int64_t e = i * per_image; e < (i + 1) * per_image; ++e)
      to[e] = to_bf16(static_cast<float>(from[e] - kSignedOffset));
  });
  return out;
}

/// Where the products go: d_weights[o][tap][c] += column[o] * row[c] * sum[c][o]; empty scales are 1.
struct WeightSink {
  const Tensor& d_weights;  // [oc][taps][k]
  int64_t oc, taps, k;
  const std::vector<float>& column;
  std::vector<float> row;

  /// Adds channels [c0, c0 + channels) of one tap for outputs [o0, o1), from sum[channel - c0][o], rows ld apart.
  void add(const float* sum, int64_t ld, int64_t tap, int64_t c0, int64_t channels, int64_t o0, int64_t o1) const {
    for (int64_t o = o0; o < o1; ++o) {
      // Along c, the contiguous side of d_weights: its rows are often 8 KiB apart, the same few sets of a cache.
      float* to = d_weights.data<float>() + (o * taps + tap) * k + c0;
      const float scale = column.empty() ? 1.0f : column[static_cast<size_t>(o)];
      const float* from = sum + o;
      if (row.empty())
        for (int64_t c = 0; c < channels; ++c) to[c] += scale * from[c * ld];
      else
        for (int64_t c = 0; c < channels; ++c) to[c] += scale * row[static_cast<size_t>(c0 + c)] * from[c * ld];
    }
  }
};

constexpr int64_t kSinkColumns = 16;  // one line of the sum: it stays in L1 for all of them

/// A layer of one chunk (deep layers: many weights, few pixels) goes to d_weights while its block is in cache: no sum
/// over all of the weights is written, cleared and read again.
template <typename T>
void add_whole(const WeightChunk<T>& w, const WeightSink& sink) {
  const int64_t ld = w.d_y.padded_columns();
  for_each_task(w.gemm, w.taps, w.k, [&](int64_t tap, int64_t m0, int64_t panels) {
    Scratch scratch;
    float* c = scratch.get<float>(static_cast<size_t>(panels * w.gemm.mr * ld));
    multiply_task(w, tap, m0, panels, c, kernels::Into::kOverwrite);
    const int64_t channels = std::min(panels * w.gemm.mr, w.k - m0);
    for (int64_t o = 0; o < sink.oc; o += kSinkColumns)
      sink.add(c, ld, tap, m0, channels, o, std::min(sink.oc, o + kSinkColumns));
  });
}

/// All chunks of a layer, one behind the other, so that the sums do not depend on the number of threads.
template <typename Source, typename T>
void add_products(const kernels::GemmFloat<bf16>& gemm, const Gather& g, const Source& source,
                  void (*pack_a)(const T* const*, int, int, void*), const Tensor& d_y, const WeightSink& sink) {
  const int64_t per = grid_rows_per_task(g), all = g.n * g.gh, rows_per_tap = round_up(sink.k, gemm.mr);
  Tensor sum;
  const std::vector<Tap> one_tap(1);
  for (int64_t g0 = 0; g0 < all; g0 += per) {
    const int64_t g1 = std::min(all, g0 + per), first = g0 * g.gw, points = (g1 - g0) * g.gw;
    const Panels right = pack_panels(gemm, d_y.row<bf16>(first), one_tap, 0, d_y.stride(), 1, points, sink.oc);
    Scratch scratch;
    const SourceRows<T> rows_from = source(scratch, source_rows(g, g0, g1));
    const T** pointers = scratch.get<const T*>(static_cast<size_t>(points * sink.taps));
    point_rows(g, rows_from, first, points, pointers);
    const WeightChunk<T> chunk{gemm, pack_a, pointers, points, sink.k, sink.taps, right};
    if (all <= per) return add_whole(chunk, sink);
    const int64_t ld = right.padded_columns();
    if (!sum.defined()) sum = Tensor::zeros(DType::f32, {sink.taps * rows_per_tap, ld});
    for_each_task(gemm, sink.taps, sink.k, [&](int64_t tap, int64_t m0, int64_t panels) {
      multiply_task(chunk, tap, m0, panels, sum.row<float>(tap * rows_per_tap + m0), kernels::Into::kAccumulate);
    });
  }
  if (!sum.defined()) return;  // an empty batch
  parallel_for((sink.oc + kSinkColumns - 1) / kSinkColumns, [&](int64_t block) {
    const int64_t o = block * kSinkColumns, end = std::min(sink.oc, o + kSinkColumns);
    for (int64_t tap = 0; tap < sink.taps; ++tap)
      for (int64_t c = 0; c < sink.k; c += kTaskChannels)
        sink.add(sum.row<float>(tap * rows_per_tap + c), sum.stride(), tap, c, std::min(kTaskChannels, sink.k - c), o,
                 end);
  });
}

void check_gradient(const LayerWeights& layer, const ConvShape& s, const Tensor& d_y) {
  if (d_y.shape() != Shape{s.n, s.oh(), s.ow(), s.oc})
    throw ShapeError("[conv] {} makes [{},{},{},{}], but its gradient is {}", layer.name, s.n, s.oh(), s.ow(), s.oc,
                     d_y.shape().str());
}

}  // namespace

std::vector<float> y_gradient_scale(const LayerWeights& layer) {
  std::vector<float> inverse;
  for (float s : layer.scale) inverse.push_back(1.0f / s);
  return inverse;
}

Tensor packed_conv_backward_input(const LayerWeights& layer, const Tensor& d_y, const Shape& x_shape) {
  Zone zone("conv backward, input", layer.name);
  ConvShape s = layer.shape;
  s.n = x_shape[0];
  if (x_shape != Shape{s.n, s.h, s.w, s.ic})
    throw ShapeError("[conv] {} reads [n,{},{},{}], but the gradient of {} is wanted", layer.name, s.h, s.w, s.ic,
                     x_shape.str());
  check_gradient(layer, s, d_y);
  if (layer.gradient_classes.empty())
    throw ShapeError("[conv] {} has no panels for the gradient of its input; prepare it with kForwardAndBackward",
                     layer.name);
  Tensor d_x(DType::bf16, x_shape, Tensor::round_stride(DType::bf16, s.ic));
  zone.count([&] {
    int64_t bytes = stored_bytes(d_y) + stored_bytes(d_x);
    for (const Panels& p : layer.backward) bytes += stored_bytes(p.storage);
    return ZoneWork{.macs = s.macs(), .unit = MacUnit::kBf16, .bytes = bytes};
  });
  std::vector<float> inverse_fold;
  if (layer.quantizer != nullptr)
    for (float f : layer.quantizer->fold) inverse_fold.push_back(1.0f / f);
  const float* scale = inverse_fold.empty() ? nullptr : inverse_fold.data();
  const auto& ew = kernels::active().ew;
  for (size_t i = 0; i < layer.gradient_classes.size(); ++i) {
    const InputGradientClass& phase = layer.gradient_classes[i];
    Gather g = phase.gather;
    g.n = d_y.dim(0);
    // Grid point -> input pixel; a class without taps (stride larger than the kernel) has a zero gradient.
    const auto pixel = [&](int64_t point) {
      const int64_t j = point % g.gw, row = point / g.gw, y = row % g.gh * s.stride + phase.row_phase;
      return (row / g.gh * s.h + y) * s.w + j * s.stride + phase.column_phase;
    };
    if (g.taps.empty()) {
      parallel_for(g.n * g.gh, [&](int64_t row) {
        for (int64_t j = 0; j < g.gw; ++j) std::fill_n(d_x.row<bf16>(pixel(row * g.gw + j)), s.ic, bf16{});
      });
      continue;
    }
    const Bf16Source source(d_y, g);
    gather_gemm<float, bf16>(*layer.float_gemm, g, layer.backward[i], source,
                             [&](int64_t, int64_t first, int64_t rows, const float* c, int64_t ldc) {
                               if (s.stride == 1) {
                                 ew.scale_bf16_f32(c, ldc, rows, s.ic, scale, {d_x.row<bf16>(first), d_x.stride()},
                                                   kernels::Into::kOverwrite);
                                 return;
                               }
                               for (int64_t r = 0; r < rows; ++r)
                                 ew.scale_bf16_f32(c + r * ldc, ldc, 1, s.ic, scale,
                                                   {d_x.row<bf16>(pixel(first + r)), d_x.stride()},
                                                   kernels::Into::kOverwrite);
                             });
  }
  return d_x;
}

void packed_conv_backward_weights(const LayerWeights& layer, const Tensor& x, const Tensor& d_y,
                                  const Tensor& d_weights) {
  Zone zone("conv backward, weights", layer.name);
  const ConvShape s = shape_with_batch(layer, x);
  zone.count([&] {  // d_weights is added to: read and written
    return ZoneWork{.macs = s.macs(),
                    .unit = MacUnit::kBf16,
                    .bytes = stored_bytes(x) + stored_bytes(d_y) + 2 * stored_bytes(d_weights)};
  });
  check_gradient(layer, s, d_y);
  const kernels::GemmFloat<bf16>& gemm = *layer.float_gemm;
  const Gather g = layer.row_folded ? row_folded_gather(s) : forward_gather(s);
  const int64_t k = layer.row_folded ? s.kw * s.ic : s.ic, taps = static_cast<int64_t>(g.taps.size());
  WeightSink sink{.d_weights = d_weights, .oc = s.oc, .taps = taps, .k = k, .column = layer.scale, .row = {}};
  // Codes without the shift: x_hat = code / s_c whatever the multiplier saw.
  if (layer.quantizer != nullptr)
    for (int64_t c = 0; c < k; ++c) sink.row.push_back(1.0f / layer.quantizer->scale[static_cast<size_t>(c % s.ic)]);

  const bool signed_input = layer.quantizer != nullptr && layer.quantizer->is_signed;
  if (x.dtype() == DType::bf16 || signed_input) {
    const Tensor x_bf16 = signed_input ? signed_codes(x) : x;
    add_products(gemm, g, Bf16Source(x_bf16, g), gemm.pack_a_transposed, d_y, sink);
  } else {
    add_products(gemm, g, CodeSource(x, nullptr, g), gemm.pack_a_transposed_u8, d_y, sink);
  }
}

}  // namespace nibble
