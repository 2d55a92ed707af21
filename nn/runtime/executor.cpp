#include "nn/runtime/executor.hpp"

#include <algorithm>
#include <cstring>

#include "engine/profiler.hpp"

namespace nibble {

namespace {
/// Most images that share one walk through the network: enough to reuse each layer's weights, few enough for the cache.
constexpr int64_t kGroup = 8;
/// Columns an epilogue gets at a time: 48 rows of 64 sums are 12 KiB, still in L1 when they are read.
constexpr int64_t kBlockColumns = 64;
/// A value is read by conv1 and a projection at most, each with bits and signedness of its own.
constexpr size_t kMostQuantizers = 4;
}  // namespace

/// One group's buffers. A slot of an image group lies at offset * capacity, so slots never overlap.
struct Executor::Context {
  Tensor arena;
  int64_t capacity = 0;
  std::vector<Gather> gathers;  // per unit, n set per call
  int64_t workers = 1;          // threads that walk with this group, set per call

  template <typename T>
  T* at(const ValueSlot& slot) const {
    return reinterpret_cast<T*>(arena.raw() + slot.offset * capacity);
  }
};

Executor::Executor(ServedModel model) : model_(std::make_unique<const ServedModel>(std::move(model))) {
  set_float_mode();
  layers_ = pack_served(*model_);
  plan_ = make_plan(*model_, layers_);
  const UnitSpec& first = model_->network.units.front();
  image_values_.resize(3 * 256);
  if (layers_.front().integer())
    image_codes_ = image_code_table(model_->quantizers[static_cast<size_t>(first.quantizer)]);
  for (int c = 0; c < 3; ++c)
    for (int b = 0; b < 256; ++b) image_values_[static_cast<size_t>(c * 256 + b)] = to_bf16(normalised(b, c));
}

Executor::~Executor() = default;

std::unique_ptr<Executor::Context> Executor::take(int64_t images) {
  {
    const std::lock_guard lock(mutex_);
    for (auto& c : free_) {
      if (c->capacity < images) continue;
      std::swap(c, free_.back());
      auto found = std::move(free_.back());
      free_.pop_back();
      return found;
    }
  }
  auto fresh = std::make_unique<Context>();
  fresh->capacity = images;
  fresh->arena = Tensor::zeros(DType::u8, {images, plan_.arena_bytes_per_image});
  for (const ExecutionPlan::Step& step : plan_.steps) fresh->gathers.push_back(step.gather);
  return fresh;
}

void Executor::give_back(std::unique_ptr<Context> context) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(context));
}

Tensor Executor::run(const Tensor& images) {
  const UnitSpec& first = model_->network.units.front();
  if (images.shape().rank() != 4 || images.dim(1) != first.shape.h || images.dim(2) != first.shape.w ||
      images.dim(3) != 3)
    throw ShapeError("[executor] the model reads {}x{} RGB images, got {}", first.shape.h, first.shape.w,
                     images.shape().str());
  const int64_t n = images.dim(0), classes = model_->network.units.back().shape.oc;
  const Tensor logits(DType::f32, {n, classes});
  const int64_t per_image = images.dim(1) * images.dim(2) * 3;
  // Every thread walks the network with groups of its own, as many as the others, and meets nobody on the way: a
  // barrier per layer cost a fifth of the time of a batch of 8 on two threads.
  const int64_t round = threads() * kGroup, groups = std::min(n, (n + round - 1) / round * threads());
  parallel_for(groups, [&](int64_t g) {
    const int64_t i0 = g * n / groups, i1 = (g + 1) * n / groups;
    run_group(images.data<uint8_t>() + i0 * per_image, i1 - i0, (threads() + groups - 1) / groups,
              logits.row<float>(i0));
  });
  return logits;
}

void Executor::run_group(const uint8_t* images, int64_t n, int64_t workers, float* logits) {
  std::unique_ptr<Context> context = take(n);
  context->workers = workers;
  for (Gather& g : context->gathers) g.n = n;
  write_input(*context, images, n);
  for (size_t u = 0; u < layers_.size(); ++u) {
    if (model_->network.units[u].average_pool) average_pool(*context, u, n);
    convolve(*context, u, logits);
    if (model_->network.units[u].max_pool) max_pool(*context, u, n);
  }
  give_back(std::move(context));
}

void Executor::write_input(Context& context, const uint8_t* images, int64_t n) const {
  const ConvShape& s = model_->network.units.front().shape;
  const int64_t pads = s.pad_before + s.pad_after, ph = s.h + pads, pw = s.w + pads;
  const Zone zone("executor, image codes");
  const auto fill = [&](auto* to, const auto& table, auto pad) {
    parallel_for(n * ph, [&](int64_t row) {
      const int64_t y = row % ph - s.pad_before;
      auto* line = to + row * pw * 3;
      std::fill_n(line, pw * 3, pad);
      if (y < 0 || y >= s.h) return;
      const uint8_t* from = images + (row / ph * s.h + y) * s.w * 3;
      line += s.pad_before * 3;
      for (int64_t x = 0; x < s.w * 3; ++x) line[x] = table[static_cast<size_t>(x % 3 * 256 + from[x])];
    });
  };
  const ValueSlot& input = plan_.steps.front().input;
  if (layers_.front().integer())
    fill(context.at<uint8_t>(input), image_codes_, kSignedOffset);
  else
    fill(context.at<bf16>(input), image_values_, bf16{});
}

namespace {

/// The epilogue of one unit: accumulators of a block of output pixels become what the consumers read.
struct Epilogue {
  const UnitSpec& unit;
  const ServedLayer& layer;
  const ServedModel& model;
  const ExecutionPlan::Step& step;
  bf16* plain = nullptr;
  const bf16* shortcut = nullptr;
  float* logits = nullptr;
  struct Codes {
    const ActivationQuantizer* quantizer = nullptr;
    uint8_t* to = nullptr;
  };
  Codes codes[kMostQuantizers] = {};
  size_t code_count = 0;

  /// Rows [first, first + rows) of columns [c0, c0 + n).
  template <typename Acc>
  void operator()(int64_t first, int64_t rows, int64_t c0, int64_t n, const Acc* c, int64_t ldc) const {
    constexpr bool kInteger = std::is_same_v<Acc, int32_t>;
    const auto& ew = kernels::active().ew;
    const float *m = layer.m.data() + c0, *a = layer.a.data() + c0;
    if (logits != nullptr) {
      const kernels::Rows<float> out{logits + first * unit.shape.oc + c0, unit.shape.oc};
      if constexpr (kInteger)
        ew.affine_f32_s32(c, ldc, rows, n, m, a, out);
      else
        ew.affine_f32_f32(c, ldc, rows, n, m, a, out);
      return;
    }
    const int64_t plain_stride = Tensor::round_stride(DType::bf16, unit.shape.oc);
    if (!unit.relu) {
      const kernels::Rows<bf16> out{plain + first * plain_stride + c0, plain_stride};
      if constexpr (kInteger)
        ew.affine_bf16_s32(c, ldc, rows, n, m, a, out);
      else
        ew.affine_bf16_f32(c, ldc, rows, n, m, a, out);
      return;
    }
    const int64_t stride = code_stride(unit.shape.oc);
    if (!step.rounded && code_count > 0) {
      kernels::UnsignedQuantizer q = codes[0].quantizer->kernel();
      q.scale += c0;
      const kernels::Rows<uint8_t> out{codes[0].to + first * stride + c0, stride};
      if constexpr (kInteger)
        ew.affine_quantize_s32(c, ldc, rows, n, m, a, q, out);
      else
        ew.affine_quantize_f32(c, ldc, rows, n, m, a, q, out);
      return;
    }
    // A block output: bf16 first (kept where something reads it, else only for this block), then codes from it.
    Scratch scratch;
    kernels::Rows<bf16> z{};
    if (plain != nullptr)
      z = {plain + first * plain_stride + c0, plain_stride};
    else
      z = {scratch.get<bf16>(static_cast<size_t>(rows * round_up(n, 32))), round_up(n, 32)};
    kernels::Rows<const bf16> side{};
    if (shortcut != nullptr) side = {shortcut + first * plain_stride + c0, plain_stride};
    if constexpr (kInteger)
      ew.affine_add_relu_bf16_s32(c, ldc, rows, n, m, a, side, z);
    else
      ew.affine_add_relu_bf16_f32(c, ldc, rows, n, m, a, side, z);
    if (unit.max_pool) return;
    for (size_t i = 0; i < code_count; ++i)
      quantize_block(*codes[i].quantizer, z, rows, c0, n, {codes[i].to + first * stride + c0, stride});
  }

  /// Codes of channels [c0, c0 + n).
  static void quantize_block(const ActivationQuantizer& q, const kernels::Rows<bf16>& z, int64_t rows, int64_t c0,
                             int64_t n, const kernels::Rows<uint8_t>& to) {
    const kernels::Rows<const bf16> from{z.data, z.stride};
    if (q.is_signed) {
      quantize_signed_rows(from, rows, c0, n, q, to);
      return;
    }
    kernels::UnsignedQuantizer part = q.kernel();
    part.scale += c0;
    kernels::active().ew.quantize_bf16(from, rows, n, part, to);
  }
};

}  // namespace

/// Codes and bf16 values as they lie in the arena.
ZoneWork Executor::work_of(size_t u, int64_t n) const {
  const UnitSpec& unit = model_->network.units[u];
  const ConvShape& s = unit.shape;
  const LayerWeights& layer = layers_[u];
  const ExecutionPlan::Step& step = plan_.steps[u];
  const int64_t pads = layer.row_folded ? s.pad_before + s.pad_after : 0;
  const int64_t pixel = layer.row_folded  ? s.ic * (layer.integer() ? 1 : 2)
                        : layer.integer() ? code_stride(s.ic)
                                          : 2 * Tensor::round_stride(DType::bf16, s.ic);
  const bool plain = step.plain.offset >= 0, shortcut = step.shortcut.offset >= 0 && !unit.average_pool;
  int64_t out = ((plain ? 2 : 0) + (shortcut ? 2 : 0)) * Tensor::round_stride(DType::bf16, s.oc);
  if (!unit.max_pool) out += static_cast<int64_t>(step.codes.size()) * code_stride(s.oc);
  if (unit.kind == UnitKind::kLinear) out = 4 * s.oc;
  return {.macs = n * s.macs(),
          .unit = forward_unit(layer),
          .bytes = n * ((s.h + pads) * (s.w + pads) * pixel + s.oh() * s.ow() * out) +
                   static_cast<int64_t>(layer.forward.storage.bytes())};
}

void Executor::convolve(Context& context, size_t u, float* logits) const {
  const UnitSpec& unit = model_->network.units[u];
  const LayerWeights& layer = layers_[u];
  const ExecutionPlan::Step& step = plan_.steps[u];
  const Gather& g = context.gathers[u];
  Zone zone("executor, convolution", unit.name);
  zone.count([&] { return work_of(u, g.n); });
  Epilogue epilogue{.unit = unit, .layer = model_->layers[u], .model = *model_, .step = step};
  for (const auto& [q, slot] : step.codes)
    epilogue.codes[epilogue.code_count++] = {&model_->quantizers[static_cast<size_t>(q)], context.at<uint8_t>(slot)};
  if (step.plain.offset >= 0) epilogue.plain = context.at<bf16>(step.plain);
  if (step.shortcut.offset >= 0 && !unit.average_pool) epilogue.shortcut = context.at<const bf16>(step.shortcut);
  if (unit.kind == UnitKind::kLinear) epilogue.logits = logits;

  const int64_t stride = layer.row_folded  ? 3
                         : layer.integer() ? code_stride(unit.shape.ic)
                                           : Tensor::round_stride(DType::bf16, unit.shape.ic);
  const ServingGemmArgs args{
      .gather = g, .panels = layer.forward, .workers = context.workers, .block_columns = kBlockColumns};
  if (!layer.integer()) {
    const bf16* base = context.at<const bf16>(step.input);
    serving_gemm<float, bf16>(
        *layer.float_gemm, args, nullptr,
        [&](Scratch&, RowRange range) {
          return SourceRows<bf16>{base + range.begin * g.sw * stride, range.begin, stride,
                                  reinterpret_cast<const bf16*>(step.pad.data())};
        },
        epilogue);
    return;
  }
  const uint8_t* base = context.at<const uint8_t>(step.input);
  serving_gemm<int32_t, uint8_t>(
      *layer.int_gemm, args, step.start.empty() ? nullptr : step.start.data(),
      [&](Scratch& scratch, RowRange range) {
        const uint8_t* from = base + range.begin * g.sw * stride;
        if (!step.factor.empty()) {
          const int64_t pixels = (range.end - range.begin) * g.sw;
          uint8_t* to = scratch.get<uint8_t>(static_cast<size_t>(pixels * stride));
          for (int64_t p = 0; p < pixels; ++p)
            kernels::active().ew.multiply_u8(from + p * stride, step.factor.data(), stride, to + p * stride);
          from = to;
        }
        return SourceRows<uint8_t>{from, range.begin, stride, step.pad.data()};
      },
      epilogue);
}

void Executor::max_pool(Context& context, size_t u, int64_t n) const {
  const UnitSpec& unit = model_->network.units[u];
  const ExecutionPlan::Step& step = plan_.steps[u];
  const Zone zone("executor, max pool");
  const int64_t h = unit.shape.oh(), w = unit.shape.ow(), c = unit.shape.oc,
                pad = stem_pool_pad(model_->network.options, h);
  const int64_t side = (h + pad + 1 - 3) / 2 + 1, stride = Tensor::round_stride(DType::bf16, c);
  const bf16* z = context.at<const bf16>(step.plain);
  bf16* pooled = context.at<bf16>(step.pooled);
  parallel_for(n * side, [&](int64_t row) {
    const int64_t image = row / side, oy = row % side;
    for (int64_t ox = 0; ox < side; ++ox) {
      const bf16* taps[9];
      int count = 0;
      for (int64_t k = 0; k < 9; ++k) {
        const int64_t y = oy * 2 - pad + k / 3, x = ox * 2 - pad + k % 3;
        if (y >= 0 && y < h && x >= 0 && x < w) taps[count++] = z + ((image * h + y) * w + x) * stride;
      }
      kernels::active().ew.max_rows_bf16(taps, count, c, pooled + (row * side + ox) * stride, nullptr);
    }
    for (const auto& [q, slot] : step.codes)
      Epilogue::quantize_block(model_->quantizers[static_cast<size_t>(q)], {pooled + row * side * stride, stride}, side,
                               0, c, {context.at<uint8_t>(slot) + row * side * code_stride(c), code_stride(c)});
  });
}

void Executor::average_pool(Context& context, size_t u, int64_t n) const {
  const UnitSpec& unit = model_->network.units[u];
  const ExecutionPlan::Step& step = plan_.steps[u];
  const ConvShape& before = model_->network.units[static_cast<size_t>(unit.input - 1)].shape;
  const Zone zone("executor, average pool");
  const int64_t pixels = before.oh() * before.ow(), c = unit.shape.ic, stride = Tensor::round_stride(DType::bf16, c);
  const float inverse = 1.0f / static_cast<float>(pixels);
  const bf16* z = context.at<const bf16>(step.shortcut);
  bf16* pooled = context.at<bf16>(step.pooled);
  parallel_for(n, [&](int64_t i) {
    Scratch scratch;
    float* sum = scratch.get<float>(static_cast<size_t>(c));
    kernels::active().ew.sum_rows_bf16({z + i * pixels * stride, stride}, pixels, c, sum);
    for (int64_t k = 0; k < c; ++k) pooled[i * stride + k] = to_bf16(sum[k] * inverse);
    if (layers_[u].integer())
      Epilogue::quantize_block(*layers_[u].quantizer, {pooled + i * stride, stride}, 1, 0, c,
                               {context.at<uint8_t>(step.input) + i * code_stride(c), code_stride(c)});
  });
}

}  // namespace nibble
