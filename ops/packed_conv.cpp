#include "ops/packed_conv.hpp"

#include "engine/parallel.hpp"
#include "ops/accumulators.hpp"
#include "ops/gather_gemm.hpp"
#include "ops/image_gemm.hpp"
#include "ops/packed_source.hpp"
#include "ops/plane_gemm.hpp"
#include "ops/row_blocks.hpp"

namespace nibble {

namespace {

/// Adds what the sums should have begun with.
void add_start(const int32_t* start, int64_t columns, int32_t* c, int64_t ldc, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < columns; ++o) c[r * ldc + o] += start[o];
}

/// Grid points first, first + step, ...
struct Points {
  int64_t first = 0, count = 0, step = 1;
};

/// The layer's gather for this input.
Gather gather_of(const LayerWeights& layer, const Tensor& x) {
  Gather g = layer.forward_gather();
  g.n = shape_with_batch(layer, x).n;
  return g;
}

/// Whether the product is made pixel by pixel of 32 images: the pads of signed codes are not zeros.
bool by_images(const LayerWeights& layer, const Gather& g) {
  return layer.strided() && !layer.row_folded && !layer.start.defined() && images_innermost(g);
}

/// Runs the forward product and hands every block to `epilogue(task, points, column, columns, acc, ldc)`, acc s32 or
/// f32.
template <typename Epilogue, typename Around = NothingMore>
void forward_blocks(const LayerWeights& layer, const Tensor& x, const Epilogue& epilogue, const Around& around = {}) {
  const Gather g = gather_of(layer, x);
  const auto run = [&](const auto& gemm, const auto& source, const auto* start, auto element) {
    using C = std::remove_cvref_t<decltype(*start)>;
    using T = decltype(element);
    const auto neighbours = [&](int64_t task, int64_t first, int64_t rows, int64_t column, int64_t n, const C* c,
                                int64_t ldc) {
      epilogue(task, Points{first, rows, 1}, column, n, c, ldc);
    };
    if (by_images(layer, g)) {
      image_gemm<C, T>(
          gemm, g, layer.forward, source,
          [&](int64_t task, int64_t first, int64_t images, int64_t column, int64_t n, const C* c, int64_t ldc) {
            epilogue(task, Points{first, images, g.gh * g.gw}, column, n, c, ldc);
          },
          around);
      return;
    }
    if (layer.strided()) {
      plane_gemm<C, T>(gemm, {g, layer.forward_layout, layer.forward, cut_by_shape(g), start}, source, neighbours,
                       around);
      return;
    }
    gather_gemm<C, T>(
        gemm, g, layer.forward, source,
        [&](int64_t task, int64_t first, int64_t rows, C* c, int64_t ldc) {
          if constexpr (std::is_same_v<C, int32_t>)
            if (start != nullptr) add_start(start, layer.shape.oc, c, ldc, rows);
          neighbours(task, first, rows, 0, layer.shape.oc, c, ldc);
        },
        around);
  };
  if (layer.integer())
    run(*layer.int_gemm, CodeSource(x, layer.quantizer, g), layer.start_data(), uint8_t{});
  else
    run(*layer.float_gemm, Bf16Source(x, g), static_cast<const float*>(nullptr), bf16{});
}

/// What a task has streamed is visible to a thread that waits for the product.
struct Published : NothingMore {
  void end(int64_t, int64_t, int64_t) const { kernels::active().ew.publish(); }
};

/// What a product by images leaves to do: the channel sums of y, task by task and point by point as the other products
/// make them along with y.
struct SummedLater {
  const Gather& g;
  const Tensor& y;
  const Tensor& partial;
  std::vector<float> zeros = std::vector<float>(static_cast<size_t>(y.shape().back()));

  void begin(Scratch&, int64_t, int64_t, int64_t) const {}
  void end(int64_t task, int64_t g0, int64_t g1) const {
    const int64_t rows = grid_rows_per_task(g);
    for (; g0 < g1; g0 += rows, ++task) {
      const kernels::Rows<const bf16> part{y.row<bf16>(g0 * g.gw), y.stride()};
      // With a mean of zero, batch norm's sums of y and y are those of y and y squared.
      kernels::active().ew.norm_backward_sums(part, part, std::min(rows, g1 - g0) * g.gw, y.shape().back(),
                                              zeros.data(), partial.row<float>(2 * task),
                                              partial.row<float>(2 * task + 1));
    }
  }
};

}  // namespace

MacUnit forward_unit(const LayerWeights& layer) {
  if (!layer.integer()) return MacUnit::kBf16;
  return layer.int_gemm == &layer.table->u8s8 ? MacUnit::kCode8 : MacUnit::kCode4;
}

Tensor conv_accumulators(const LayerWeights& layer, const Tensor& x) {
  const ConvShape s = shape_with_batch(layer, x);
  Tensor out(layer.integer() ? DType::s32 : DType::f32, {s.n, s.oh(), s.ow(), s.oc});
  forward_blocks(layer, x, [&](int64_t, const Points& at, int64_t column, int64_t n, const auto* c, int64_t ldc) {
    static_assert(sizeof *c == 4);
    for (int64_t r = 0; r < at.count; ++r)
      std::memcpy(out.raw() + ((at.first + r * at.step) * s.oc + column) * 4, c + r * ldc, static_cast<size_t>(n) * 4);
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
  const Gather g = gather_of(layer, x);
  const int64_t tasks = task_count(g);
  Tensor partial = Tensor::zeros(DType::f32, {tasks, 2, s.oc});
  const bool sums_later = by_images(layer, g);
  const kernels::Store store = sums_later ? kernels::Store::kCached : store_of(y);
  const auto& ew = kernels::active().ew;
  const auto epilogue = [&](int64_t task, const Points& at, int64_t column, int64_t n, const auto* c, int64_t ldc) {
    float* const sum = sums_later ? nullptr : partial.row<float>(2 * task) + column;
    float* const sum_sq = sums_later ? nullptr : sum + s.oc;
    const float* scale = layer.rescale.empty() ? nullptr : layer.rescale.data() + column;
    const kernels::Rows<bf16> out{y.row<bf16>(at.first) + column, at.step * y.stride()};
    kernel_for(c, ew.rescale_stats_s32, ew.rescale_stats_f32)(c, ldc, at.count, n, scale, out, store, sum, sum_sq);
  };
  if (sums_later)
    forward_blocks(layer, x, epilogue, SummedLater{g, y, partial});
  else
    forward_blocks(layer, x, epilogue, Published{});
  sums.sum.assign(static_cast<size_t>(s.oc), 0.0);
  sums.sum_sq.assign(static_cast<size_t>(s.oc), 0.0);
  sums.count = s.out_pixels();
  add_partial_sums(partial, tasks, s.oc, sums.sum.data(), sums.sum_sq.data());
  return y;
}

Variable packed_conv(Tape* tape, const Variable& x, const LayerWeights& layer, const Tensor& d_weights,
                     ChannelSums& sums, std::shared_ptr<GradientStage> next) {
  Variable y(packed_conv_forward(layer, x.value(), sums), tape != nullptr ? Grad::kWanted : Grad::kNone);
  if (tape != nullptr) {
    if (takes_gradient_rows(layer)) y.take_grad_rows();
    // y = conv(x, w)  =>  d_w = x^T d_y,  d_x = d_y w^T
    tape->record([x, y, &layer, d_weights, next = std::move(next)] {
      GradientStage* const stage = hands_over_rows(layer) ? next.get() : nullptr;
      if (y.grad_rows() != nullptr) {
        x.set_grad(packed_conv_backward(layer, x.value(), *y.grad_rows(), d_weights, x.grad(), stage));
      } else if (!y.grad().defined()) {
        d_weights.zero();  // nothing has used the output
      } else {
        // In parallel: a weight gradient goes chunk by chunk, so that two threads of one shard wait for each other in
        // it (one shard of 32 at 224 px on a Zen 5: 29 images per second one after the other, 35 like this).
        Tensor d_x;
        parallel_for(layer.input_gradient.empty() ? 1 : 2, [&](int64_t product) {
          if (product == 0)
            packed_conv_backward_weights(layer, x.value(), y.grad(), d_weights);
          else
            d_x = packed_conv_backward_input(layer, y.grad(), x.shape(), x.grad(), stage);
        });
        if (!layer.input_gradient.empty()) x.set_grad(d_x);
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
  forward_blocks(
      layer, x.value(), [&](int64_t, const Points& at, int64_t column, int64_t count, const auto* c, int64_t ldc) {
        const kernels::Rows<float> out{logits.value().row<float>(at.first) + column, at.step * oc};
        const float* add = bias.data<float>() + column;
        kernel_for(c, ew.affine_f32_s32, ew.affine_f32_f32)(c, ldc, at.count, count, scale + column, add, out);
      });
  if (tape != nullptr) {
    // logits = acc * rescale + bias  =>  d_bias = sum d_logits;  d_y carries 1/scale as packed_conv's does
    tape->record([x, logits, &layer, d_weights, d_bias, n, oc] {
      d_bias.zero();
      if (!logits.grad().defined()) {
        d_weights.zero();
        return;
      }
      const std::vector<float> scale_back = y_gradient_scale(layer);
      Tensor d_y(DType::bf16, {n, 1, 1, oc}, Tensor::round_stride(DType::bf16, oc));
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
