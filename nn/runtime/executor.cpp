#include "nn/runtime/executor.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "engine/profiler.hpp"
#include "nn/runtime/epilogue.hpp"
#include "ops/plane_gemm.hpp"
#include "ops/pool_activate.hpp"
#include "ops/serving_gemm.hpp"
#include "ops/winograd.hpp"

namespace nibble {

namespace {
/// Most images that share one walk through the network: enough to reuse each layer's weights, few enough for the cache.
constexpr int64_t kGroup = 8;
// Tried on amx: prefetching the next layer's weights into L2, a few lines after every product. 3x3 convolutions of
// stage 2 took a tenth less, the layers before them as much more; with weights of 1 MiB and more it lost.
/// Columns an epilogue gets at a time: 48 rows of 64 sums are 12 KiB, still in L1 when they are read.
constexpr int64_t kBlockColumns = 64;

/// Rows of bf16 values that a layer reads. `width`: pixels of a row of its input.
struct ValueSource {
  Pixels<const bf16> input;
  int64_t width;
  const ExecutionPlan::Step& step;

  SourceRows<bf16> operator()(Scratch&, RowRange range) const {
    return {.data = input.at(range.begin * width),
            .first_row = range.begin,
            .stride = input.stride,
            .pad = reinterpret_cast<const bf16*>(step.pad.data()),
            .pad_is_zero = true};
  }
};

/// The same of codes, multiplied on the way by their channels' powers of two where a layer has these.
struct LayerCodes {
  Pixels<const uint8_t> input;
  int64_t width;
  const ExecutionPlan::Step& step;

  SourceRows<uint8_t> operator()(Scratch& scratch, RowRange range) const {
    const uint8_t* from = input.at(range.begin * width);
    if (!step.factor.empty()) {
      const int64_t stride = input.stride, pixels = (range.end - range.begin) * width;
      uint8_t* to = scratch.get<uint8_t>(static_cast<size_t>(pixels * stride));
      for (int64_t p = 0; p < pixels; ++p)
        kernels::active().ew.multiply_u8(from + p * stride, step.factor.data(), stride, to + p * stride);
      from = to;
    }
    return {.data = from,
            .first_row = range.begin,
            .stride = input.stride,
            .pad = step.pad.data(),
            .pad_is_zero = step.pad[0] == 0};
  }
};

/// A map of h x w pixels and what a pool of it leaves, side x side.
struct PooledMap {
  const PoolShape& pool;
  int64_t h, w, side;

  /// Calls max(taps, count, pixel, pixels) for the pixels of output row `row` (flattened over images): one by one where
  /// an edge cuts their windows, the others at once, whose taps are the pool's stride apart.
  template <typename T, typename Max>
  void windows(int64_t row, const Pixels<T>& map, const Max& max) const {
    const int64_t image = row / side, oy = row % side;
    const int64_t whole_begin = std::min(side, ceil_div(pool.pad_before, pool.stride));
    const int64_t whole_end = std::max(whole_begin, (w - pool.window + pool.pad_before) / pool.stride + 1);
    for (int64_t ox = 0, pixels = 0; ox < side; ox += pixels) {
      pixels = ox == whole_begin ? std::max<int64_t>(1, std::min(side, whole_end) - whole_begin) : 1;
      T* taps[PoolShape::kMostTaps];
      int count = 0;
      for (int64_t y = std::max<int64_t>(0, pool.begin(oy)); y < std::min(h, pool.begin(oy) + pool.window); ++y)
        for (int64_t x = std::max<int64_t>(0, pool.begin(ox)); x < std::min(w, pool.begin(ox) + pool.window); ++x)
          taps[count++] = map.at((image * h + y) * w + x);
      max(taps, count, row * side + ox, pixels);
    }
  }
};

}  // namespace

/// What a step computes: all rows of all images of the group, or rows [begin, end) of one image.
struct Executor::Part {
  int64_t images = 0;  // > 0: all of that many
  int64_t image = 0, begin = 0, end = 0;
  PerReading live{};  // rows of the output's map that are still read, and that hold anything, as in RowStep
  int64_t filled = 0;

  bool whole() const { return images > 0; }
};

/// One group's buffers. A slot of an image group lies at offset * capacity, so slots never overlap.
struct Executor::Context {
  const ExecutionPlan* plan = nullptr;
  Tensor arena, windows;
  int64_t capacity = 0;
  int64_t workers = 1;                // threads that walk with this group, set per call
  std::vector<int64_t> window_first;  // row at the front of each window
  std::vector<Gather> gathers;        // per unit, n set per call
  std::vector<Gather> row_gathers;    // the same for one image
  std::vector<Gather> part_gathers;   // the same for the rows of a part, set per step

  /// A form of a value as whole maps: for the image at that place in the group.
  template <typename T>
  T* at(const ValueSlot& slot, int64_t image = 0) const {
    return reinterpret_cast<T*>(arena.raw() + slot.offset * capacity + image * slot.bytes);
  }

  template <typename T>
  Pixels<T> pixels(const ValueSlot& slot, const Part& part, int64_t width, int64_t stride) const {
    if (slot.offset < 0) return {};
    if (slot.window < 0) return {at<T>(slot, part.whole() ? 0 : part.image), 0, stride};
    return {reinterpret_cast<T*>(windows.raw() + slot.offset), window_first[static_cast<size_t>(slot.window)] * width,
            stride};
  }

  /// The source of unit u. Images lie side by side without the rounding of other slots' sizes.
  template <typename T>
  Pixels<T> input(const ValueSlot& slot, const Part& part, const Gather& g, size_t u, int64_t stride) const {
    if (u > 0 || part.whole()) return pixels<T>(slot, part, g.sw, stride);
    return {at<T>(slot) + part.image * g.sh * g.sw * stride, 0, stride};
  }

  /// The grid of unit u, for all images of the group or for one.
  const Gather& gather(size_t u, const Part& part) const { return part.whole() ? gathers[u] : row_gathers[u]; }

  /// The grid of a part of an image, whose first row is that of the part; in memory that was there before.
  const Gather& part_gather(size_t u, const Part& part) {
    const Gather& image = row_gathers[u];
    Gather& rows = part_gathers[u];
    rows.gh = part.end - part.begin;
    for (size_t t = 0; t < rows.taps.size(); ++t) rows.taps[t].dh = image.taps[t].dh + part.begin * image.step;
    return rows;
  }

  /// Moves the rows of a window that are still read to its front where the part's rows do not fit after them.
  void make_room(const ValueSlot& slot, const Part& part) {
    if (slot.window < 0) return;
    int64_t& first = window_first[static_cast<size_t>(slot.window)];
    if ((std::max(part.end, part.filled) - first) * slot.row_bytes <= slot.bytes) return;
    const int64_t live = part.live[static_cast<size_t>(slot.read_as)];
    std::byte* const window = windows.raw() + slot.offset;
    std::memmove(window, window + (live - first) * slot.row_bytes,
                 static_cast<size_t>((part.filled - live) * slot.row_bytes));
    first = live;
  }
};

Executor::Executor(ServedModel model, const RowPlanOptions& options)
    : model_(std::make_unique<ServedModel>(std::move(model))), input_(*model_) {
  const FloatModeScope mode;
  layers_ = pack_served(*model_);
  for (ServedLayer& layer : model_->layers) layer.codes.codes = layer.weights = Tensor();
  plan_ = make_plan(*model_, layers_);
  row_plan_ = make_row_plan(*model_, layers_, options);
}

Executor::~Executor() = default;

std::unique_ptr<Executor::Context> Executor::take(int64_t images, bool by_rows) {
  const ExecutionPlan& plan = by_rows ? row_plan_ : plan_;
  // The smallest that suffices: a larger one is for a larger group. If none does, the new one takes the place of a
  // smaller one, so that, for rows and for whole maps each, there are never more than groups that ran at once.
  std::unique_ptr<Context> found;
  {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Context>* best = nullptr;
    for (auto& c : free_) {
      if (c->plan != &plan) continue;
      const bool suffices = c->capacity >= images, best_suffices = best != nullptr && (*best)->capacity >= images;
      if (best == nullptr || (suffices && (!best_suffices || c->capacity < (*best)->capacity))) best = &c;
    }
    if (best != nullptr) {
      std::swap(*best, free_.back());
      found = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (found != nullptr && found->capacity >= images) return found;
  found.reset();
  auto fresh = std::make_unique<Context>();
  fresh->plan = &plan;
  fresh->capacity = images;
  fresh->arena = Tensor::zeros(DType::u8, {images, plan.arena_bytes_per_image});
  fresh->windows = Tensor::zeros(DType::u8, {plan.window_bytes});
  fresh->window_first.resize(static_cast<size_t>(plan.windows));
  for (const ExecutionPlan::Step& step : plan.steps) {
    fresh->gathers.push_back(step.gather);
    fresh->row_gathers.push_back(step.gather);
    fresh->row_gathers.back().n = 1;
  }
  fresh->part_gathers = fresh->row_gathers;
  return fresh;
}

void Executor::give_back(std::unique_ptr<Context> context) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(context));
}

Tensor Executor::run(const Tensor& images, Walk walk) {
  check_images("executor", model_->network, images);
  const Tensor logits(DType::f32, {images.dim(0), model_->network.units.back().shape.oc});
  run_images(images.data<uint8_t>(), images.dim(0), walk, logits.data<float>());
  return logits;
}

void Executor::run(std::span<const uint8_t> images, std::span<float> logits, Walk walk) {
  const ConvShape& s = model_->network.units.front().shape;
  const int64_t n = std::ssize(images) / (s.h * s.w * 3), classes = model_->network.units.back().shape.oc;
  if (n < 1 || std::ssize(images) != n * s.h * s.w * 3 || std::ssize(logits) != n * classes)
    throw ShapeError(
        "[executor] {} bytes of images and {} logits: the model takes {} bytes per image ({}x{} RGB) and gives {} "
        "logits; hand over both for the same number of images",
        images.size(), logits.size(), s.h * s.w * 3, s.h, s.w, classes);
  run_images(images.data(), n, walk, logits.data());
}

void Executor::run_images(const uint8_t* images, int64_t n, Walk walk, float* logits) {
  const ConvShape& s = model_->network.units.front().shape;
  const int64_t per_image = s.h * s.w * 3, classes = model_->network.units.back().shape.oc;
  // Every thread walks the network with groups of its own, as many as the others, and meets nobody on the way: a
  // barrier per layer cost a fifth of the time of a batch of 8 on two threads.
  const int64_t round = threads() * kGroup, groups = std::min(n, ceil_div(n, round) * threads());
  // Tried: a group alone inside the pool, which keeps the other threads awake between its layers; an image at a time
  // took 4 % longer (two threads of an EPYC).
  parallel_for(groups, [&](int64_t g) {
    const int64_t i0 = g * n / groups, i1 = (g + 1) * n / groups;
    const int64_t workers = ceil_div<int64_t>(threads(), groups);
    // Threads that share a group meet after every layer: few, whole ones.
    const bool by_rows = walk == Walk::kFastest ? workers == 1 : walk == Walk::kByRows;
    run_group(images + i0 * per_image, i1 - i0, workers, by_rows, logits + i0 * classes);
  });
}

void Executor::run_group(const uint8_t* images, int64_t n, int64_t workers, bool by_rows, float* logits) {
  std::unique_ptr<Context> context = take(n, by_rows);
  const ExecutionPlan& plan = *context->plan;
  context->workers = workers;
  for (Gather& g : context->gathers) g.n = n;
  write_input(*context, images, n);
  for (int64_t i = 0; i < n && !plan.schedule.steps.empty(); ++i) run_rows(*context, i);
  const Part all{.images = n};
  for (size_t u = plan.schedule.end; u < layers_.size(); ++u) {
    if (model_->network.units[u].average_pool) average_pool(*context, u, n);
    convolve(*context, u, all, logits);
    if (model_->network.units[u].max_pool) max_pool(*context, u, all);
  }
  give_back(std::move(context));
}

void Executor::run_rows(Context& context, int64_t image) const {
  std::fill(context.window_first.begin(), context.window_first.end(), 0);
  for (const RowStep& row : context.plan->schedule.steps) {
    const ExecutionPlan::Step& step = context.plan->steps[row.unit];
    const bool pooled = model_->network.units[row.unit].max_pool.has_value();
    const Part part{.image = image, .begin = row.begin, .end = row.end, .live = row.live, .filled = row.filled};
    context.make_room(row.pool ? step.pooled : step.plain, part);
    if (!row.pool) context.make_room(step.map_codes, part);
    if (row.pool == pooled)
      for (const auto& [q, slot] : step.codes) context.make_room(slot, part);
    if (row.pool)
      max_pool(context, row.unit, part);
    else
      convolve(context, row.unit, part, nullptr);
  }
}

void Executor::write_input(Context& context, const uint8_t* images, int64_t n) const {
  const ConvShape& s = model_->network.units.front().shape;
  Zone zone("executor, image codes");
  zone.count([&] { return ZoneWork{.bytes = n * (3 * s.h * s.w + input_.bytes_per_image())}; });
  input_.write(images, n, context.at<std::byte>(context.plan->steps.front().input));
}

/// Codes and bf16 values as they are stored, for `rows` rows of the output (flattened over images); no weights.
ZoneWork Executor::work_of(size_t u, int64_t rows) const {
  const UnitSpec& unit = model_->network.units[u];
  const ConvShape& s = unit.shape;
  const LayerWeights& layer = layers_[u];
  const ExecutionPlan::Step& step = plan_.steps[u];
  const int64_t of = std::max<int64_t>(1, s.oh());
  const int64_t pixels = layer.input_shape(1).rows();
  const int64_t pixel = layer.row_folded  ? s.ic * (layer.integer() ? 1 : 2)
                        : layer.integer() ? code_stride(s.ic)
                                          : 2 * Tensor::round_stride(DType::bf16, s.ic);
  const bool plain = step.plain.offset >= 0, shortcut = step.shortcut.offset >= 0;
  int64_t out = ((plain ? 2 : 0) + (shortcut ? 2 : 0)) * Tensor::round_stride(DType::bf16, s.oc);
  if (!unit.max_pool) out += static_cast<int64_t>(step.codes.size()) * code_stride(s.oc);
  if (step.map_codes.offset >= 0) out += code_stride(s.oc);
  if (unit.kind == UnitKind::kLinear) out = 4 * s.oc;
  return {
      .macs = rows * s.macs() / of, .unit = forward_unit(layer), .bytes = rows * (pixels * pixel / of + s.ow() * out)};
}

Epilogue Executor::epilogue_of(const Context& context, size_t u, const Part& part, float* logits) const {
  const UnitSpec& unit = model_->network.units[u];
  const ExecutionPlan::Step& step = context.plan->steps[u];
  const int64_t width = unit.shape.ow(), codes = code_stride(unit.shape.oc);
  const int64_t plain = Tensor::round_stride(DType::bf16, unit.shape.oc);
  Epilogue epilogue{.unit = unit, .layer = model_->layers[u], .step = step, .ew = kernels::active().ew};
  const auto add_codes = [&](int quantizer, const ValueSlot& slot) {
    epilogue.codes[epilogue.code_count++] = {&model_->quantizers[static_cast<size_t>(quantizer)],
                                             context.pixels<uint8_t>(slot, part, width, codes)};
  };
  if (!unit.max_pool)
    for (const auto& [quantizer, slot] : step.codes) add_codes(quantizer, slot);
  if (step.map_codes.offset >= 0) add_codes(step.codes.front().first, step.map_codes);
  epilogue.plain = context.pixels<bf16>(step.plain, part, width, plain);
  epilogue.shortcut = context.pixels<const bf16>(step.shortcut, part, width, plain);
  if (unit.kind == UnitKind::kLinear) epilogue.logits = logits;
  return epilogue;
}

template <typename Sum, typename Element, typename Gemm, typename Source>
void Executor::multiply(Context& context, size_t u, const Part& part, const Gemm& gemm, const Source& source,
                        const Sum* start, const Epilogue& epilogue) const {
  const LayerWeights& layer = layers_[u];
  const Gather& g = context.gather(u, part);
  if (layer.strided()) {
    const PlaneCut cut =
        part.whole() ? cut_for_workers(g, layer.forward, context.workers)
                     : PlaneCut{.row_begin = part.begin, .row_end = part.end, .rows_per_part = part.end - part.begin};
    plane_gemm<Sum, Element>(gemm, {g, layer.forward_layout, layer.forward, cut, start}, source, epilogue);
    return;
  }
  const ServingGemmArgs args{.gather = part.whole() ? g : context.part_gather(u, part),
                             .panels = layer.forward,
                             .workers = context.workers,
                             .block_columns = kBlockColumns};
  const int64_t skipped = part.begin * g.gw;  // points of the image before the part
  const auto block = [&](int64_t first, int64_t rows, int64_t column, int64_t n, const Sum* sums, int64_t ld,
                         NextBlock next) {
    if (next.point >= 0) next.point += skipped;
    epilogue(0, skipped + first, rows, column, n, sums, ld, next);
  };
  if constexpr (std::is_same_v<Element, uint8_t>) {
    if (layer.fewer_products()) {
      layer.with_fewer_products(
          [&](const auto& kernel) { winograd::serving_gemm(kernel, layer.served_edge, args, start, source, block); });
      return;
    }
  }
  serving_gemm<Sum, Element>(gemm, args, start, source, block);
}

void Executor::convolve(Context& context, size_t u, const Part& part, float* logits) const {
  const UnitSpec& unit = model_->network.units[u];
  const LayerWeights& layer = layers_[u];
  const ExecutionPlan::Step& step = context.plan->steps[u];
  const Gather& g = context.gather(u, part);
  Zone zone("executor, convolution", unit.name);
  zone.count([&] {
    ZoneWork work = work_of(u, part.whole() ? g.n * g.gh : part.end - part.begin);
    if (part.begin == 0 && part.image == 0) work.bytes += stored_bytes(layer.forward.storage);  // once a group
    return work;
  });
  const Epilogue epilogue = epilogue_of(context, u, part, logits);
  const int64_t stride = layer.row_folded  ? 3
                         : layer.integer() ? code_stride(unit.shape.ic)
                                           : Tensor::round_stride(DType::bf16, unit.shape.ic);
  if (layer.integer()) {
    const LayerCodes source{context.input<const uint8_t>(step.input, part, g, u, stride), g.sw, step};
    multiply<int32_t, uint8_t>(context, u, part, *layer.int_gemm, source, layer.start_data(), epilogue);
  } else {
    const ValueSource source{context.input<const bf16>(step.input, part, g, u, stride), g.sw, step};
    multiply<float, bf16>(context, u, part, *layer.float_gemm, source, nullptr, epilogue);
  }
}

void Executor::max_pool(Context& context, size_t u, const Part& part) const {
  const UnitSpec& unit = model_->network.units[u];
  const ExecutionPlan::Step& step = context.plan->steps[u];
  Zone zone("executor, max pool");
  const PoolShape& pool = *unit.max_pool;
  const PooledMap map{.pool = pool, .h = unit.shape.oh(), .w = unit.shape.ow(), .side = unit.output_side()};
  const int64_t c = unit.shape.oc, side = map.side, stride = Tensor::round_stride(DType::bf16, c);
  const bool codes_alone = step.map_codes.offset >= 0;
  const Pixels<const bf16> z = context.pixels<const bf16>(step.plain, part, map.w, stride);
  const Pixels<const uint8_t> z_codes = context.pixels<const uint8_t>(step.map_codes, part, map.w, code_stride(c));
  const Pixels<bf16> pooled = context.pixels<bf16>(step.pooled, part, side, stride);
  const int64_t begin = part.whole() ? 0 : part.begin, rows = part.whole() ? part.images * side : part.end - begin;
  zone.count([&] {
    const int64_t plain = codes_alone ? 0 : int64_t{sizeof(bf16)} * stride, codes = code_stride(c);
    return ZoneWork{.bytes = rows * (map.h * map.w / side * (codes_alone ? codes : plain) +
                                     side * (plain + static_cast<int64_t>(step.codes.size()) * codes))};
  });
  const auto& ew = kernels::active().ew;
  const auto pool_row = [&](int64_t i) {
    const int64_t row = begin + i;
    if (codes_alone) {
      const Pixels<uint8_t> codes = context.pixels<uint8_t>(step.codes.front().second, part, side, code_stride(c));
      map.windows(row, z_codes, [&](const uint8_t* const* taps, int count, int64_t pixel, int64_t pixels) {
        ew.max_rows_u8({taps, pool.stride * z_codes.stride}, count, pixels, code_stride(c),
                       {codes.at(pixel), codes.stride});
      });
      return;
    }
    map.windows(row, z, [&](const bf16* const* first, int count, int64_t pixel, int64_t pixels) {
      for (int64_t p = 0; p < pixels; ++p) {
        const bf16* taps[PoolShape::kMostTaps];
        std::transform(first, first + count, taps, [&](const bf16* tap) { return tap + pool.stride * p * stride; });
        ew.max_rows_bf16(taps, count, c, pooled.at(pixel + p), nullptr);
      }
    });
    for (const auto& [q, slot] : step.codes) {
      const Pixels<uint8_t> codes = context.pixels<uint8_t>(slot, part, side, code_stride(c));
      Epilogue::quantize_block(model_->quantizers[static_cast<size_t>(q)], {pooled.at(row * side), stride}, side, 0, c,
                               {codes.at(row * side), codes.stride});
    }
  };
  if (part.whole())
    parallel_for(rows, pool_row);
  else
    for (int64_t i = 0; i < rows; ++i) pool_row(i);
}

void Executor::average_pool(Context& context, size_t u, int64_t n) const {
  const UnitSpec& unit = model_->network.units[u];
  const ExecutionPlan::Step& step = context.plan->steps[u];
  const ConvShape& before = model_->network.units[static_cast<size_t>(unit.input - 1)].shape;
  Zone zone("executor, average pool");
  const int64_t pixels = before.oh() * before.ow(), c = unit.shape.ic, stride = Tensor::round_stride(DType::bf16, c);
  const bf16* z = context.at<const bf16>(step.averaged);
  bf16* mean = context.at<bf16>(step.mean);
  zone.count([&] {
    return ZoneWork{
        .bytes = n * ((pixels + 1) * stride * int64_t{sizeof(bf16)} + (layers_[u].integer() ? code_stride(c) : 0))};
  });
  parallel_for(n, [&](int64_t i) {
    average_pixels({z + i * pixels * stride, stride}, pixels, c, mean + i * stride);
    if (layers_[u].integer())
      Epilogue::quantize_block(*layers_[u].quantizer, {mean + i * stride, stride}, 1, 0, c,
                               {context.at<uint8_t>(step.input) + i * code_stride(c), code_stride(c)});
  });
}

}  // namespace nibble
