#include "ops/packed_conv.hpp"

#include "ops/packed_source.hpp"
#include "ops/plane_gemm.hpp"

namespace nibble {

namespace {

/// The multiplier family that is exact and fastest for these code ranges.
const kernels::GemmInt* choose_gemm(const kernels::Table& t, int64_t largest_multiplier, int weight_bits) {
  if (weight_bits > 4) return &t.u8s8;
  return largest_multiplier <= 15 ? &t.u4s4 : &t.u8s4;
}

/// What the sums of signed codes begin with, so that their offset adds nothing.
std::vector<int32_t> signed_start(const WeightCodes& w, int64_t oc, int64_t k, int64_t padded_columns) {
  std::vector<int32_t> start(static_cast<size_t>(padded_columns));
  for (int64_t o = 0; o < oc; ++o) {
    int32_t sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += w.codes.data<int8_t>()[o * k + i];
    start[static_cast<size_t>(o)] = -kSignedOffset * sum;
  }
  return start;
}

Tensor codes_to_bf16(const WeightCodes& w, bool dequantize, const std::vector<float>& fold) {
  Tensor out(DType::bf16, w.codes.shape());
  const int64_t oc = out.dim(0), k = out.size() / std::max<int64_t>(1, oc), ic = out.shape().back();
  parallel_for(oc, [&](int64_t o) {
    const int8_t* from = w.codes.data<int8_t>() + o * k;
    bf16* to = out.data<bf16>() + o * k;
    if (!dequantize) {
      kernels::active().ew.s8_to_bf16(from, k, to);
      return;
    }
    for (int64_t i = 0; i < k; ++i) {
      const float value = static_cast<float>(from[i]) / w.scale[static_cast<size_t>(o)];
      to[i] = to_bf16(fold.empty() ? value : value / fold[static_cast<size_t>(i % ic)]);
    }
  });
  return out;
}

Tensor masters_to_bf16(const Tensor& weights) {
  Tensor out(DType::bf16, weights.shape());
  kernels::active().ew.f32_to_bf16(weights.data<float>(), weights.size(), out.data<bf16>());
  return out;
}

void pack_backward(LayerWeights& layer, const Tensor& bf16_weights) {
  const ConvShape& s = layer.shape;
  layer.gradient_classes = input_gradient_classes(s);
  // Right operand of the input gradient: k = output channel, n = input channel.
  for (const InputGradientClass& c : layer.gradient_classes)
    layer.backward.push_back(
        pack_panels(*layer.float_gemm, bf16_weights.data<bf16>(), c.gather.taps, s.ic, s.taps() * s.ic, 1, s.oc, s.ic));
  for (const InputGradientClass& c : layer.gradient_classes) layer.backward_layouts.push_back(plane_layout(c.gather));
}

/// The right operand of a stem in a folded layout: per tap the kernel rows of a pixel, with zeros where it has others.
template <typename Gemm, typename T>
Panels pack_folded(const Gemm& gemm, const PlaneLayout& layout, const T* weights, const ConvShape& s) {
  const int64_t taps = static_cast<int64_t>(layout.taps.size());
  std::vector<T> spread(static_cast<size_t>(s.oc * taps * layout.pixel));
  for (int64_t o = 0; o < s.oc; ++o)
    for (int64_t row = 0; row < s.kh; ++row)
      std::copy_n(weights + (o * s.kh + row) * layout.segment, layout.segment,
                  spread.begin() + (o * taps + row / layout.folded_rows) * layout.pixel +
                      row % layout.folded_rows * layout.slot);
  std::vector<Tap> of_pixels;
  for (int64_t t = 0; t < taps; ++t) of_pixels.push_back({.weight_tap = t});
  return pack_panels(gemm, spread.data(), of_pixels, layout.pixel, 1, taps * layout.pixel, layout.pixel, s.oc);
}

/// The right operand [k, oc] of the forward product, a segment a tap.
template <typename Gemm, typename T>
void pack_forward(LayerWeights& layer, const Gemm& gemm, const T* weights) {
  const ConvShape& s = layer.shape;
  const Gather g = layer.forward_gather();
  const int64_t segment = layer.row_folded ? s.kw * s.ic : s.ic;
  if (layer.row_folded && layer.strided()) {
    layer.forward_layout = folded_layout(g, segment, sizeof(T));
    layer.forward = pack_folded(gemm, layer.forward_layout, weights, s);
    return;
  }
  layer.forward = pack_panels(gemm, weights, g.taps, segment, 1, s.k(), segment, s.oc);
  layer.forward_layout = plane_layout(g);
}

LayerWeights prepare(const LayerWeightsArgs& args, const WeightCodes* codes) {
  const ConvShape& s = args.shape;
  const kernels::Table& table = kernels::active();
  LayerWeights layer;
  layer.name = args.name;
  layer.shape = s;
  layer.weight_bits = args.weight_bits;
  layer.quantizer = args.quantizer;
  layer.row_folded = args.first_layer && s.ic * s.kw <= 64;
  layer.float_gemm = &table.bf16_gemm;
  static const std::vector<float> kNoFold;
  const std::vector<float>& fold = args.quantizer != nullptr ? args.quantizer->fold : kNoFold;
  if (codes != nullptr && !args.dequantize) layer.scale = codes->scale;

  Tensor as_bf16;
  const bool backward = args.passes == Passes::kForwardAndBackward && !args.first_layer;
  if (args.quantizer == nullptr || backward)
    as_bf16 = codes != nullptr ? codes_to_bf16(*codes, args.dequantize, fold) : masters_to_bf16(args.weights);
  if (args.quantizer != nullptr) {
    if (codes == nullptr)
      throw DTypeError("[conv] {} multiplies codes by bf16 weights; quantize the weights", args.name);
    check_accumulator(args.name.c_str(), s.k(), args.quantizer->largest_multiplier(), args.weight_bits);
    layer.int_gemm = choose_gemm(table, args.quantizer->largest_multiplier(), args.weight_bits);
    pack_forward(layer, *layer.int_gemm, codes->codes.data<int8_t>());
    if (args.quantizer->is_signed) layer.start = signed_start(*codes, s.oc, s.k(), layer.forward.padded_columns());
  } else {
    pack_forward(layer, *layer.float_gemm, as_bf16.data<bf16>());
  }
  const float common = args.quantizer != nullptr ? args.quantizer->common : 1.0f;
  for (float w : layer.scale) layer.rescale.push_back(1.0f / (common * w));
  if (backward) pack_backward(layer, as_bf16);
  return layer;
}

/// Adds what the sums should have begun with.
void add_start(const std::vector<int32_t>& start, int64_t columns, int32_t* c, int64_t ldc, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < columns; ++o) c[r * ldc + o] += start[static_cast<size_t>(o)];
}

/// Runs the forward product and hands every block to `epilogue(task, first, rows, column, columns, acc, ldc)`, acc s32
/// or f32.
template <typename Epilogue, typename Around = NothingMore>
void forward_blocks(const LayerWeights& layer, const Tensor& x, const Epilogue& epilogue, const Around& around = {}) {
  Gather g = layer.forward_gather();
  g.n = shape_with_batch(layer, x).n;
  const auto run = [&](const auto& gemm, const auto& source, const auto* start, auto element) {
    using C = std::remove_cvref_t<decltype(*start)>;
    using T = decltype(element);
    if (layer.strided()) {
      plane_gemm<C, T>(gemm, {g, layer.forward_layout, layer.forward, cut_by_shape(g), start}, source, epilogue,
                       around);
      return;
    }
    gather_gemm<C, T>(
        gemm, g, layer.forward, source,
        [&](int64_t task, int64_t first, int64_t rows, C* c, int64_t ldc) {
          if constexpr (std::is_same_v<C, int32_t>)
            if (start != nullptr) add_start(layer.start, layer.shape.oc, c, ldc, rows);
          epilogue(task, first, rows, 0, layer.shape.oc, c, ldc);
        },
        around);
  };
  if (layer.integer())
    run(*layer.int_gemm, CodeSource(x, layer.quantizer, g), layer.start.empty() ? nullptr : layer.start.data(),
        uint8_t{});
  else
    run(*layer.float_gemm, Bf16Source(x, g), static_cast<const float*>(nullptr), bf16{});
}

/// What a task has streamed is visible to whoever waits for the product.
struct Published : NothingMore {
  void end(int64_t, int64_t, int64_t) const { kernels::active().ew.publish(); }
};

int64_t forward_task_count(const LayerWeights& layer, const Tensor& x) {
  Gather g = layer.forward_gather();
  g.n = shape_with_batch(layer, x).n;
  return task_count(g);
}

}  // namespace

MacUnit forward_unit(const LayerWeights& layer) {
  if (!layer.integer()) return MacUnit::kBf16;
  return layer.int_gemm == &kernels::active().u8s8 ? MacUnit::kCode8 : MacUnit::kCode4;
}

LayerWeights prepare_layer(const LayerWeightsArgs& args) {
  if (args.weight_bits == 16) return prepare(args, nullptr);
  static const std::vector<float> kNoFold;
  const std::vector<float>& fold = args.quantizer != nullptr ? args.quantizer->fold : kNoFold;
  const WeightCodes codes = quantize_weights(args.weights, fold, args.weight_bits, args.name.c_str());
  return prepare(args, &codes);
}

LayerWeights prepare_layer(const LayerWeightsArgs& args, const WeightCodes& codes) {
  return prepare(args, &codes);
}

Tensor conv_accumulators(const LayerWeights& layer, const Tensor& x) {
  const ConvShape s = shape_with_batch(layer, x);
  Tensor out(layer.integer() ? DType::s32 : DType::f32, {s.n, s.oh(), s.ow(), s.oc});
  forward_blocks(
      layer, x, [&](int64_t, int64_t first, int64_t rows, int64_t column, int64_t n, const auto* c, int64_t ldc) {
        static_assert(sizeof *c == 4);
        for (int64_t r = 0; r < rows; ++r)
          std::memcpy(out.raw() + ((first + r) * s.oc + column) * 4, c + r * ldc, static_cast<size_t>(n) * 4);
      });
  return out;
}

Tensor packed_conv_forward(const LayerWeights& layer, const Tensor& x, ChannelSums& sums) {
  Zone zone("conv forward", layer.name);
  const ConvShape s = shape_with_batch(layer, x);
  Tensor y(DType::bf16, {s.n, s.oh(), s.ow(), s.oc}, Tensor::round_stride(DType::bf16, s.oc));
  zone.count([&] {
    return ZoneWork{.macs = s.macs(),
                    .unit = forward_unit(layer),
                    .bytes = stored_bytes(x) + stored_bytes(layer.forward.storage) + stored_bytes(y)};
  });
  const int64_t tasks = forward_task_count(layer, x);
  Tensor partial = Tensor::zeros(DType::f32, {tasks, 2, s.oc});
  const kernels::Store store = store_of(y);
  const auto& ew = kernels::active().ew;
  const auto epilogue = [&](int64_t task, int64_t first, int64_t rows, int64_t column, int64_t n, const auto* c,
                            int64_t ldc) {
    float* sum = partial.row<float>(2 * task) + column;
    const float* scale = layer.rescale.empty() ? nullptr : layer.rescale.data() + column;
    const kernels::Rows<bf16> out{y.row<bf16>(first) + column, y.stride()};
    if constexpr (std::is_same_v<decltype(c), const int32_t*>)
      ew.rescale_stats_s32(c, ldc, rows, n, scale, out, store, sum, sum + s.oc);
    else
      ew.rescale_stats_f32(c, ldc, rows, n, scale, out, store, sum, sum + s.oc);
  };
  forward_blocks(layer, x, epilogue, Published{});
  sums.sum.assign(static_cast<size_t>(s.oc), 0.0);
  sums.sum_sq.assign(static_cast<size_t>(s.oc), 0.0);
  sums.count = s.out_pixels();
  for (int64_t t = 0; t < tasks; ++t) {
    const float* p = partial.row<float>(2 * t);
    for (int64_t o = 0; o < s.oc; ++o) {
      sums.sum[static_cast<size_t>(o)] += static_cast<double>(p[o]);
      sums.sum_sq[static_cast<size_t>(o)] += static_cast<double>(p[s.oc + o]);
    }
  }
  return y;
}

Variable packed_conv(Tape* tape, const Variable& x, const LayerWeights& layer, const Tensor& d_weights,
                     ChannelSums& sums, std::shared_ptr<GradientStage> next) {
  Variable y(packed_conv_forward(layer, x.value(), sums), tape != nullptr ? Grad::kWanted : Grad::kNone);
  if (tape != nullptr) {
    // y = conv(x, w)  =>  d_w = x^T d_y,  d_x = d_y w^T
    tape->record([x, y, &layer, d_weights, next = std::move(next)] {
      packed_conv_backward_weights(layer, x.value(), y.grad(), d_weights);
      if (!layer.backward.empty()) {
        GradientStage* const stage = hands_over_rows(layer) ? next.get() : nullptr;
        x.set_grad(packed_conv_backward_input(layer, y.grad(), x.shape(), x.grad(), stage));
      }
      y.release();
    });
  }
  return y;
}

Variable packed_linear(Tape* tape, const Variable& x, const LayerWeights& layer, const Tensor& bias,
                       const Tensor& d_weights, const Tensor& d_bias) {
  const int64_t n = x.shape()[0], oc = layer.shape.oc;
  Variable logits(Tensor(DType::f32, {n, oc}), tape != nullptr ? Grad::kWanted : Grad::kNone);
  const std::vector<float> ones(static_cast<size_t>(oc), 1.0f);
  const float* scale = layer.rescale.empty() ? ones.data() : layer.rescale.data();
  const auto& ew = kernels::active().ew;
  Zone zone("conv forward", layer.name);
  zone.count([&] {
    return ZoneWork{
        .macs = n * oc * layer.shape.k(),
        .unit = forward_unit(layer),
        .bytes = stored_bytes(x.value()) + stored_bytes(layer.forward.storage) + stored_bytes(logits.value())};
  });
  forward_blocks(layer, x.value(),
                 [&](int64_t, int64_t first, int64_t rows, int64_t column, int64_t count, const auto* c, int64_t ldc) {
                   const kernels::Rows<float> out{logits.value().row<float>(first) + column, oc};
                   const float* add = bias.data<float>() + column;
                   if constexpr (std::is_same_v<decltype(c), const int32_t*>)
                     ew.affine_f32_s32(c, ldc, rows, count, scale + column, add, out);
                   else
                     ew.affine_f32_f32(c, ldc, rows, count, scale + column, add, out);
                 });
  if (tape != nullptr) {
    // logits = acc * rescale + bias  =>  d_bias = sum d_logits;  d_y carries 1/scale as packed_conv's does
    tape->record([x, logits, &layer, d_weights, d_bias, n, oc] {
      const std::vector<float> scale_back = y_gradient_scale(layer);
      Tensor d_y(DType::bf16, {n, 1, 1, oc}, Tensor::round_stride(DType::bf16, oc));
      d_bias.zero();
      for (int64_t i = 0; i < n; ++i) {
        const float* g = logits.grad().row<float>(i);
        for (int64_t o = 0; o < oc; ++o) {
          d_bias.data<float>()[o] += g[o];
          d_y.row<bf16>(i)[o] = to_bf16(scale_back.empty() ? g[o] : g[o] * scale_back[static_cast<size_t>(o)]);
        }
      }
      packed_conv_backward_weights(layer, x.value(), d_y, d_weights);
      x.accumulate(packed_conv_backward_input(layer, d_y, x.shape()));
    });
  }
  return logits;
}

}  // namespace nibble
