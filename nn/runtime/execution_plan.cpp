#include "nn/runtime/execution_plan.hpp"

#include <algorithm>

#include "nn/first_layer_input.hpp"
#include "ops/tensor_memory.hpp"

namespace nibble {

namespace {

/// First-fit allocation of intervals that live from one step to another.
class ArenaPlanner {
 public:
  /// Room of `bytes` per image, alive from step `first` to step `last` (inclusive).
  ValueSlot place(int64_t bytes, size_t first, size_t last) {
    bytes = rounded(bytes);
    int64_t offset = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (const Interval& i : placed_) {
        const bool together = first <= i.last && i.first <= last;
        if (!together || offset + bytes <= i.offset || i.offset + i.bytes <= offset) continue;
        offset = i.offset + i.bytes;
        moved = true;
      }
    }
    placed_.push_back({offset, bytes, first, last});
    total_ = std::max(total_, offset + bytes);
    return {.offset = offset, .bytes = bytes};
  }
  /// Keeps room whose life would end with step `until` alive to step `last`.
  void extend(const ValueSlot& slot, size_t until, size_t last) {
    for (Interval& i : placed_)
      if (i.offset == slot.offset && i.last == until) i.last = last;
  }
  int64_t total() const { return total_; }
  static int64_t rounded(int64_t bytes) {
    return round_up(std::max<int64_t>(bytes, 1), static_cast<int64_t>(kAlignment));
  }

 private:
  struct Interval {
    int64_t offset, bytes;
    size_t first, last;
  };
  std::vector<Interval> placed_;
  int64_t total_ = 0;
};

class Planner {
 public:
  Planner(const ServedModel& model, const std::vector<LayerWeights>& layers, RowSchedule schedule)
      : model_(model),
        net_(model.network),
        layers_(layers),
        schedule_(std::move(schedule)),
        plain_(net_.units.size() + 1),
        codes_(net_.quantizers.size()),
        plain_windows_(net_.units.size()),
        code_windows_(net_.units.size()) {}

  ExecutionPlan run() {
    ExecutionPlan plan;
    plan.steps.resize(net_.units.size());
    place_input();
    for (size_t u = 0; u < net_.units.size(); ++u) fill(plan.steps[u], u);
    plan.arena_bytes_per_image = arena_.total();
    plan.window_bytes = window_bytes_;
    plan.windows = windows_;
    plan.schedule = std::move(schedule_);
    return plan;
  }

 private:
  bool quantized(const UnitSpec& unit) const { return model_.input_quantizer(unit) != nullptr; }

  size_t last_codes(int quantizer, size_t none) const {
    size_t last = none;
    for (size_t u = 0; u < net_.units.size(); ++u)
      if (net_.units[u].quantizer == quantizer) last = u;
    return last;
  }

  static int64_t plain_bytes(int64_t pixels, int64_t channels) {
    return pixels * Tensor::round_stride(DType::bf16, channels) * 2;
  }

  void place_input() {
    plain_[kImageValue] = arena_.place(FirstLayerInput(model_).bytes_per_image(), 0, last_of_schedule(0));
  }

  void fill(ExecutionPlan::Step& step, size_t u) {
    const UnitSpec& unit = net_.units[u];
    const LayerWeights& layer = layers_[u];
    const ConvShape& s = unit.shape;
    step.gather = layer.forward_gather();
    step.rounded = rounded_before_codes(net_, static_cast<int>(u) + 1);
    const bool is_signed = layer.quantizer != nullptr && layer.quantizer->is_signed;
    step.pad.assign(static_cast<size_t>(2 * std::max<int64_t>(code_stride(s.ic), 64)),
                    is_signed ? kSignedOffset : uint8_t{0});
    if (layer.quantizer != nullptr && !layer.quantizer->factor.empty()) {
      step.factor = layer.quantizer->factor;
      step.factor.resize(static_cast<size_t>(code_stride(s.ic)), 1);
    }
    if (unit.average_pool) {
      step.averaged = plain_[static_cast<size_t>(unit.input)];
      step.mean = arena_.place(plain_bytes(1, s.ic), u, u);
      if (quantized(unit)) codes_[static_cast<size_t>(unit.quantizer)] = arena_.place(code_stride(s.ic), u, u);
    }
    if (unit.shortcut != kNoValue) step.shortcut = plain_[static_cast<size_t>(unit.shortcut)];
    if (quantized(unit) && u > 0)
      step.input = codes_[static_cast<size_t>(unit.quantizer)];
    else
      step.input = unit.average_pool ? step.mean : plain_[static_cast<size_t>(unit.input)];
    if (unit.kind == UnitKind::kConv) place_outputs(step, u);
  }

  /// Images pass through the schedule one by one, so what it reads or leaves behind lives until its last image is done.
  size_t last_of_schedule(size_t u) const { return schedule_.contains(u) ? schedule_.end - 1 : u; }

  /// A form of a map: `rows` of `row_bytes` each, written by unit u and read until unit `last`.
  struct MapForm {
    int64_t rows = 0, row_bytes = 0;
    size_t u = 0, last = 0;
    ReadAs read_as = ReadAs::kEither;
    bool pooled = false;
  };

  /// Room for it: a window where it lives inside the schedule, else the whole map.
  ValueSlot place_map(const MapForm& f) {
    if (!schedule_.contains(f.u)) return arena_.place(f.rows * f.row_bytes, f.u, f.last);
    if (!schedule_.contains(f.last)) return arena_.place(f.rows * f.row_bytes, schedule_.begin, f.last);
    const PerReading& rows = (f.pooled ? schedule_.pooled_rows : schedule_.map_rows)[schedule_.map_of[f.u]];
    const int64_t alive = rows[static_cast<size_t>(f.read_as)];
    // Half as many rows again: then the window is full, and its live rows move to its front, every other step or so.
    const int64_t window = std::min(f.rows, alive + alive / 2);
    const int64_t bytes = round_up(window * f.row_bytes, kWindowAlignment);
    const ValueSlot slot{
        .offset = window_bytes_, .bytes = bytes, .window = windows_++, .row_bytes = f.row_bytes, .read_as = f.read_as};
    window_bytes_ += bytes + kWindowGap;
    return slot;
  }

  /// The same for a block's output, which takes the place of its shortcut where it can: that is in the cache already.
  ValueSlot place_plain(const MapForm& f) {
    const int shortcut = net_.units[f.u].shortcut;
    if (!schedule_.contains(f.u) && shortcut != kNoValue && model_.last_plain_reader(shortcut) == f.u) {
      const ValueSlot& slot = plain_[static_cast<size_t>(shortcut)];
      if (slot.offset >= 0 && slot.window < 0 && slot.bytes == ArenaPlanner::rounded(f.rows * f.row_bytes)) {
        arena_.extend(slot, f.u, f.last);
        return slot;
      }
    }
    MapForm shared = f;
    if (schedule_.contains(f.u)) shared.read_as = reading_of_map(schedule_.map_of[f.u]);
    return place_shared(plain_windows_, 0, shared);
  }

  /// Window `index` of the map that f is a form of: made by the first of the units that share the map.
  ValueSlot place_shared(std::vector<std::vector<ValueSlot>>& windows, size_t index, const MapForm& f) {
    if (!schedule_.contains(f.u) || !schedule_.contains(f.last)) return place_map(f);
    std::vector<ValueSlot>& of_map = windows[schedule_.map_of[f.u]];
    of_map.resize(std::max(of_map.size(), index + 1));
    if (of_map[index].offset < 0) of_map[index] = place_map(f);
    return of_map[index];
  }

  /// In what role the bf16 form of a value is read.
  ReadAs reading_of_plain(int value) const {
    bool input = false, shortcut = false;
    for (const UnitSpec& unit : net_.units) {
      input |= unit.input == value && !quantized(unit);
      shortcut |= unit.shortcut == value;
    }
    return input && shortcut ? ReadAs::kEither : input ? ReadAs::kInput : ReadAs::kShortcut;
  }

  /// The same for all values that share a map: the outputs of a stage's blocks are read as shortcuts, the last one also
  /// by the next stage where that reads bf16.
  ReadAs reading_of_map(size_t map) const {
    bool input = false, shortcut = false;
    for (size_t u = schedule_.begin; u < schedule_.end; ++u) {
      const int value = static_cast<int>(u) + 1;
      if (schedule_.map_of[u] != map || model_.last_plain_reader(value) == u) continue;
      const ReadAs as = reading_of_plain(value);
      input |= as != ReadAs::kShortcut;
      shortcut |= as != ReadAs::kInput;
    }
    return input && shortcut ? ReadAs::kEither : input ? ReadAs::kInput : ReadAs::kShortcut;
  }

  void place_outputs(ExecutionPlan::Step& step, size_t u) {
    const UnitSpec& unit = net_.units[u];
    const int value = static_cast<int>(u) + 1;
    const int64_t c = unit.shape.oc;
    const size_t plain_last = model_.last_plain_reader(value);
    const bool plain_read = plain_last > u;
    const ReadAs plain_as = reading_of_plain(value);
    const int64_t h = unit.shape.oh(), w = unit.shape.ow(), plain_row = plain_bytes(w, c);
    int64_t out_rows = h, out_width = w;
    if (unit.max_pool) {
      if (unit.max_pool->window > PoolShape::kLargestWindow)
        throw UnsupportedError("{0} is pooled over windows of {1}x{1}, but this executor has them up to {2}x{2}",
                               unit.name, unit.max_pool->window, PoolShape::kLargestWindow);
      unit.max_pool->require_pads_below_window();
      const std::vector<int> quantizers = quantizers_of(net_, value);
      const bool codes_alone = model_.calibrated() && !plain_read && quantizers.size() == 1 &&
                               !model_.quantizers[static_cast<size_t>(quantizers[0])].is_signed;
      (codes_alone ? step.map_codes : step.plain) =
          place_map({.rows = h, .row_bytes = codes_alone ? w * code_stride(c) : plain_row, .u = u, .last = u});
      out_rows = out_width = unit.output_side();
      if (!codes_alone)
        step.pooled = place_map({.rows = out_rows,
                                 .row_bytes = plain_bytes(out_width, c),
                                 .u = u,
                                 .last = plain_last,
                                 .read_as = plain_as,
                                 .pooled = true});
      plain_[static_cast<size_t>(value)] = step.pooled;
    } else if (plain_read) {
      step.plain = place_plain({.rows = h, .row_bytes = plain_row, .u = u, .last = plain_last, .read_as = plain_as});
      plain_[static_cast<size_t>(value)] = step.plain;
    }
    if (!model_.calibrated()) return;
    size_t windows = 0;
    for (int q : quantizers_of(net_, value)) {
      if (read_by_average_pool(net_, value)) continue;
      const ValueSlot slot = place_shared(code_windows_, windows++,
                                          {.rows = out_rows,
                                           .row_bytes = out_width * code_stride(c),
                                           .u = u,
                                           .last = last_codes(q, u),
                                           .read_as = ReadAs::kInput,
                                           .pooled = unit.max_pool.has_value()});
      codes_[static_cast<size_t>(q)] = slot;
      step.codes.emplace_back(q, slot);
    }
  }

  static constexpr int64_t kWindowAlignment = 64;
  // Rows of equal numbers in two windows would otherwise lie a multiple of 4 KiB apart, which stalls stores and loads.
  static constexpr int64_t kWindowGap = 64 * 5;

  const ServedModel& model_;
  const Network& net_;
  const std::vector<LayerWeights>& layers_;
  RowSchedule schedule_;
  ArenaPlanner arena_;
  int64_t window_bytes_ = 0;
  int windows_ = 0;
  std::vector<ValueSlot> plain_;
  std::vector<ValueSlot> codes_;
  std::vector<std::vector<ValueSlot>> plain_windows_, code_windows_;  // per map of the schedule
};

}  // namespace

ExecutionPlan make_plan(const ServedModel& model, const std::vector<LayerWeights>& layers, RowSchedule schedule) {
  return Planner(model, layers, std::move(schedule)).run();
}

ExecutionPlan make_row_plan(const ServedModel& model, const std::vector<LayerWeights>& layers,
                            const RowPlanOptions& options) {
  const std::vector<UnitSpec>& units = model.network.units;
  size_t end = 0;
  for (size_t u = 0; u < units.size() && units[u].kind == UnitKind::kConv; ++u) {
    const ConvShape& s = units[u].shape;
    const int64_t bytes = s.oh() * s.ow() * (2 * Tensor::round_stride(DType::bf16, s.oc) + code_stride(s.oc));
    if (bytes > options.large_map && units[u].relu) end = u + 1;
  }
  return make_plan(model, layers, make_row_schedule(model.network, 0, end, options.strip_points));
}

}  // namespace nibble
