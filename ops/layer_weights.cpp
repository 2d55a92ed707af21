#include "ops/layer_weights.hpp"

#include <algorithm>
#include <numeric>
#include <type_traits>

#include "ops/winograd.hpp"

namespace nibble {

namespace {

/// Output channels that are packed together: for the deepest layer (4608 weights per channel) masters, codes, bf16 and
/// their parts of the panels are 1.5 MB, three quarters of the L2 of a CPU with tiles.
constexpr int64_t kSliceOutputs = 32;

/// The multiplier family that is exact and fastest for these code ranges.
const kernels::GemmInt* choose_gemm(const kernels::Table& t, int64_t largest_multiplier, int weight_bits) {
  if (weight_bits > 4) return &t.u8s8;
  return largest_multiplier <= 15 ? &t.u4s4 : &t.u8s4;
}

/// The weights of output channels [first, first + count), dense: codes (null for bf16 weights), and as bf16 (null if
/// they are not multiplied).
struct Slice {
  int64_t first = 0, count = 0;
  const int8_t* codes = nullptr;
  const bf16* values = nullptr;
};

class LayerPacking {
 public:
  /// `codes`: quantized before; null: the masters are quantized, if the layer has bits for it.
  LayerPacking(const LayerWeightsArgs& args, const WeightCodes* codes) : args_(args), ready_(codes) {
    const ConvShape& s = args.shape;
    const kernels::Table& table = args.products != nullptr ? *args.products : kernels::active();
    const int64_t held = codes != nullptr ? codes->codes.size() : args.weights.size();
    if (held != s.oc * s.k())
      throw ShapeError("[conv] {} has {} weights, its shape asks for {}", args.name, held, s.oc * s.k());
    layer_.name = args.name;
    layer_.shape = s;
    layer_.weight_bits = args.weight_bits;
    layer_.quantizer = args.quantizer;
    layer_.row_folded = args.first_layer && s.ic * s.kw <= 64;
    layer_.table = &table;
    layer_.float_gemm = &table.bf16_gemm;
    if (args.quantizer != nullptr) {
      if (!has_codes()) throw DTypeError("[conv] {} multiplies codes by bf16 weights; quantize the weights", args.name);
      check_accumulator(args.name.c_str(), s.k(), args.quantizer->largest_multiplier(), args.weight_bits);
      layer_.int_gemm = choose_gemm(table, args.quantizer->largest_multiplier(), args.weight_bits);
      const winograd::Form form = serving_form();
      if (form == winograd::Form::kBytes) {
        layer_.int_gemm = &table.u6s7;
        plan_fewer_products(table.u6s7, 2);
      } else if (const int64_t edge = form == winograd::Form::kWide ? served_wide_edge(table) : 0; edge > 0) {
        layer_.wide_gemm = &table.s16s14;
        plan_fewer_products(table.s16s14, edge);
      } else {
        plan_forward<uint8_t>(*layer_.int_gemm);
      }
      if (args.quantizer->is_signed) layer_.start = Tensor::zeros(DType::s32, {layer_.forward.padded_columns()});
    } else {
      plan_forward<bf16>(*layer_.float_gemm);
    }
    if (layer_.float_gemm->run_strided == nullptr && !args.first_layer)
      layer_.gradient_edge = winograd::gradient_edge(s, layer_.float_gemm->kr);
    if (layer_.gradient_edge > 0) layer_.gradient_gemm = &table.f32_gemm;
    if (args.passes == Passes::kForwardAndBackward && !args.first_layer) plan_backward();
    if (has_codes()) scale_.resize(static_cast<size_t>(s.oc));
  }

  LayerWeights run() {
    const int64_t oc = layer_.shape.oc, step = slice_outputs();
    parallel_for_refusing(ceil_div(oc, step), [&](int64_t i) {
      Scratch scratch;
      pack(slice(scratch, i * step, std::min(step, oc - i * step)));
    });
    if (has_codes() && !args_.dequantize) layer_.scale = ready_ != nullptr ? ready_->scale : scale_;
    layer_.rescale = product_rescale(layer_.scale, args_.quantizer);
    return std::move(layer_);
  }

 private:
  bool has_codes() const { return ready_ != nullptr || args_.weight_bits < 16; }
  bool has_backward() const { return !layer_.input_gradient.empty(); }
  const std::vector<float>& fold() const {
    static const std::vector<float> kNone;
    return args_.quantizer != nullptr ? args_.quantizer->fold : kNone;
  }
  /// Forward, output channels are the columns of the panels; backward, they are their depth.
  int64_t slice_outputs() const {
    const int kr = layer_.gradient_gemm != nullptr ? layer_.gradient_gemm->kr : layer_.float_gemm->kr;
    return std::lcm(std::lcm(kSliceOutputs, int64_t{layer_.forward.nr}), int64_t{kr});
  }

  /// Where rows are packed anyway: tiles multiply faster than rows could be transformed.
  winograd::Form serving_form() const {
    using winograd::Form;
    if (args_.passes != Passes::kServing || layer_.strided() || args_.quantizer->is_signed) return Form::kNone;
    const Form form = winograd::form_of(args_.shape, args_.quantizer->largest_multiplier(), args_.weight_bits);
    if (form != Form::kBytes || ready_ == nullptr) return form;
    // The quantizer's weights are -7 to 7; a file may hold -8, for which the family has no room.
    const auto* const codes = ready_->codes.data<int8_t>();
    const bool fit = std::all_of(codes, codes + ready_->codes.size(), [](int8_t code) { return code >= -7; });
    return fit ? form : Form::kNone;
  }

  /// The edge of tiles of 16-bit integers; 0: plain products are faster, or the larger tiles are not proved to be
  /// exact.
  int64_t served_wide_edge(const kernels::Table& table) const {
    if (table.s16s14.run == nullptr) return 0;
    const bool dot_of_bytes = table.u8s8.kr == 4;
    const int64_t edge = winograd::wide_edge(layer_.shape, dot_of_bytes);
    if (edge < 4 ||
        (ready_ != nullptr && winograd::fits_larger_tiles(ready_->codes.data<int8_t>(), layer_.shape.oc,
                                                          layer_.shape.k(), args_.quantizer->largest_multiplier())))
      return edge;
    return dot_of_bytes ? 0 : 2;
  }

  /// A segment for every position.
  static std::vector<Tap> segments(int64_t positions) {
    std::vector<Tap> all;
    for (int64_t p = 0; p < positions; ++p) all.push_back({.weight_tap = p});
    return all;
  }

  template <typename Gemm>
  void plan_fewer_products(const Gemm& gemm, int64_t edge) {
    layer_.served_edge = edge;
    const int64_t positions = (edge + 2) * (edge + 2);
    forward_taps_ = segments(positions);
    layer_.forward = make_panels(gemm, positions, args_.shape.ic, args_.shape.oc);
    if (edge == 2) layer_.start = Tensor::zeros(DType::s32, {edge * edge, layer_.forward.padded_columns()});
  }

  template <typename T, typename Gemm>
  void plan_forward(const Gemm& gemm) {
    const ConvShape& s = layer_.shape;
    const Gather g = layer_.forward_gather();
    const int64_t segment = layer_.row_folded ? s.kw * s.ic : s.ic;
    if (layer_.row_folded && layer_.strided()) {
      layer_.forward_layout = folded_layout(g, segment, sizeof(T));
      const PlaneLayout& l = layer_.forward_layout;
      for (size_t t = 0; t < l.taps.size(); ++t) forward_taps_.push_back({.weight_tap = static_cast<int64_t>(t)});
      layer_.forward = make_panels(gemm, static_cast<int64_t>(l.taps.size()), l.pixel, s.oc);
      return;
    }
    layer_.forward_layout = plane_layout(g);
    forward_taps_ = g.taps;
    layer_.forward = make_panels(gemm, static_cast<int64_t>(g.taps.size()), segment, s.oc);
  }

  winograd::Tiles gradient_tiles() const { return {layer_.input_gradient.front().pixels.gather, layer_.gradient_edge}; }

  /// Right operands of the input gradient: k = output channel, n = input channel.
  void plan_backward() {
    const ConvShape& s = layer_.shape;
    for (InputGradientClass& pixels : input_gradient_classes(s))
      layer_.input_gradient.push_back({.pixels = std::move(pixels), .panels = {}, .layout = {}});
    if (layer_.gradient_gemm != nullptr) {
      LayerWeights::GradientOperand& only = layer_.input_gradient.front();
      Gather& g = only.pixels.gather;
      g.rows_together = winograd::rows_together(g.gh, layer_.gradient_edge);
      only.panels = make_panels(*layer_.gradient_gemm, gradient_tiles().positions(), s.oc, s.ic);
      return;
    }
    for (LayerWeights::GradientOperand& to : layer_.input_gradient) {
      const Gather& g = to.pixels.gather;
      to.panels = make_panels(*layer_.float_gemm, std::ssize(g.taps), s.oc, s.ic);
      to.layout = plane_layout(g);
    }
  }

  Slice slice(Scratch& scratch, int64_t first, int64_t count) {
    const int64_t k = layer_.shape.k();
    Slice out{.first = first, .count = count};
    if (ready_ != nullptr) {
      out.codes = ready_->codes.data<int8_t>() + first * k;
    } else if (has_codes()) {
      auto* const codes = scratch.get<int8_t>(static_cast<size_t>(count * k));
      quantize_weight_rows(args_.weights, fold(), {args_.weight_bits, args_.bf16_weights}, args_.name.c_str(), first,
                           first + count, codes, scale_.data() + first);
      out.codes = codes;
    }
    if (args_.quantizer == nullptr || has_backward()) {
      auto* const values = scratch.get<bf16>(static_cast<size_t>(count * k));
      to_bf16_rows(out, values);
      out.values = values;
    }
    return out;
  }

  void to_bf16_rows(const Slice& from, bf16* to) const {
    const int64_t k = layer_.shape.k();
    const auto& ew = kernels::active().ew;
    if (from.codes == nullptr) {
      ew.f32_to_bf16(args_.weights.data<float>() + from.first * k, from.count * k, to);
      return;
    }
    if (!args_.dequantize) {
      ew.s8_to_bf16(from.codes, from.count * k, to);
      return;
    }
    const std::vector<float>& scale = ready_ != nullptr ? ready_->scale : scale_;
    for (int64_t i = 0; i < from.count * k; ++i) {
      to[i] = to_bf16(static_cast<float>(from.codes[i]) / scale[static_cast<size_t>(from.first + i / k)]);
    }
  }

  void pack(const Slice& from) {
    if (layer_.fewer_products()) {
      layer_.with_fewer_products([&](const auto& gemm) { pack_fewer_products(gemm, from); });
      return;
    }
    if (layer_.integer())
      pack_forward(*layer_.int_gemm, from, from.codes);
    else
      pack_forward(*layer_.float_gemm, from, from.values);
    if (layer_.start.defined()) set_start(from);
    if (layer_.gradient_gemm != nullptr && has_backward()) {
      pack_fewer_gradient_products(from);
      return;
    }
    const ConvShape& s = layer_.shape;
    for (const LayerWeights::GradientOperand& to : layer_.input_gradient)
      pack_part(*layer_.float_gemm, to.panels,
                PanelSource<bf16>{.data = from.values, .tap_stride = s.ic, .k_stride = s.taps() * s.ic, .n_stride = 1},
                to.pixels.gather.taps, {.k0 = from.first, .k = from.count, .columns = s.ic});
  }

  /// The right operand [k, oc] of the forward product, a segment per tap.
  template <typename Gemm, typename T>
  void pack_forward(const Gemm& gemm, const Slice& from, const T* weights) const {
    const ConvShape& s = layer_.shape;
    const PanelPart part{.k = layer_.forward.k, .n0 = from.first, .columns = from.count};
    Scratch scratch;
    PanelSource<T> source{.data = weights, .tap_stride = layer_.forward.k, .k_stride = 1, .n_stride = s.k()};
    if (layer_.forward_layout.folded_rows > 0) {
      source.n_stride = layer_.forward.segments * layer_.forward.k;
      source.data = folded(scratch, from.count, weights);
    }
    pack_part(gemm, layer_.forward, source, forward_taps_, part);
  }

  template <typename Gemm>
  void pack_fewer_products(const Gemm& gemm, const Slice& from) {
    using T = typename Gemm::Right;
    const int64_t ic = layer_.shape.ic, columns = layer_.forward.padded_columns();
    Scratch scratch;
    auto* const transformed = scratch.get<T>(static_cast<size_t>(std::ssize(forward_taps_) * from.count * ic));
    winograd::transform_weights(layer_.served_edge, from.codes, from.count, ic, transformed);
    if constexpr (std::is_same_v<T, int8_t>)
      winograd::set_offset_start(transformed, from.count, ic, layer_.start.data<int32_t>() + from.first, columns);
    pack_part(gemm, layer_.forward,
              PanelSource<T>{.data = transformed, .tap_stride = from.count * ic, .k_stride = 1, .n_stride = ic},
              forward_taps_, {.k = ic, .n0 = from.first, .columns = from.count});
  }

  void pack_fewer_gradient_products(const Slice& from) const {
    const int64_t ic = layer_.shape.ic;
    Scratch scratch;
    const winograd::Tiles tiles = gradient_tiles();
    auto* const transformed = scratch.get<float>(static_cast<size_t>(tiles.positions() * from.count * ic));
    winograd::transform_gradient_weights(tiles, from.values, from.count, ic, transformed);
    pack_part(*layer_.gradient_gemm, layer_.input_gradient.front().panels,
              PanelSource<float>{.data = transformed, .tap_stride = from.count * ic, .k_stride = ic, .n_stride = 1},
              segments(tiles.positions()), {.k0 = from.first, .k = from.count, .columns = ic});
  }

  /// The kernel rows of a stem in a folded layout: per tap those of a pixel, with zeros where it has others.
  template <typename T>
  const T* folded(Scratch& scratch, int64_t count, const T* weights) const {
    const ConvShape& s = layer_.shape;
    const PlaneLayout& l = layer_.forward_layout;
    const int64_t taps = static_cast<int64_t>(l.taps.size());
    T* const spread = scratch.get<T>(static_cast<size_t>(count * taps * l.pixel));
    std::fill_n(spread, count * taps * l.pixel, T{});
    for (int64_t o = 0; o < count; ++o)
      for (int64_t row = 0; row < s.kh; ++row)
        std::copy_n(weights + (o * s.kh + row) * l.segment, l.segment,
                    spread + (o * taps + row / l.folded_rows) * l.pixel + row % l.folded_rows * l.slot);
    return spread;
  }

  /// What the sums of signed codes begin with, so that their offset adds nothing.
  void set_start(const Slice& from) {
    const int64_t k = layer_.shape.k();
    for (int64_t o = 0; o < from.count; ++o)
      layer_.start.data<int32_t>()[from.first + o] =
          -kSignedOffset * std::accumulate(from.codes + o * k, from.codes + (o + 1) * k, int32_t{0});
  }

  const LayerWeightsArgs& args_;
  const WeightCodes* const ready_;
  std::vector<float> scale_;  // of the codes made here
  std::vector<Tap> forward_taps_;
  LayerWeights layer_;
};

}  // namespace

LayerWeights prepare_layer(const LayerWeightsArgs& args) {
  return LayerPacking(args, nullptr).run();
}

LayerWeights prepare_layer(const LayerWeightsArgs& args, const WeightCodes& codes) {
  return LayerPacking(args, &codes).run();
}

std::vector<float> product_rescale(const std::vector<float>& scale, const ActivationQuantizer* quantizer) {
  const float common = quantizer != nullptr ? quantizer->common : 1.0f;
  std::vector<float> rescale;
  for (const float w : scale) rescale.push_back(1.0f / (common * w));
  return rescale;
}

}  // namespace nibble
