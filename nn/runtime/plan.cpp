// Buffers of the executor: every value gets room in one arena for as long as something reads it.
#include <algorithm>

#include "nn/runtime/executor.hpp"

namespace nibble {

namespace {

/// First-fit allocation of intervals that live from one step to another.
class ArenaPlanner {
 public:
  /// Room of `bytes` per image, alive from step `first` to step `last` (inclusive).
  ValueSlot place(int64_t bytes, size_t first, size_t last) {
    bytes = round_up(std::max<int64_t>(bytes, 1), static_cast<int64_t>(kAlignment));
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
  int64_t total() const { return total_; }

 private:
  struct Interval {
    int64_t offset, bytes;
    size_t first, last;
  };
  std::vector<Interval> placed_;
  int64_t total_ = 0;
};

struct Lifetimes {
  size_t plain = 0;           // last step that reads the bf16 form; 0: nobody
  std::vector<size_t> codes;  // per quantizer
};

class Planner {
 public:
  Planner(const ServedModel& model, const std::vector<LayerWeights>& layers)
      : model_(model),
        net_(model.network),
        layers_(layers),
        plain_(net_.units.size() + 1),
        codes_(net_.quantizers.size()) {}

  ExecutionPlan run() {
    ExecutionPlan plan;
    plan.steps.resize(net_.units.size());
    place_input();
    for (size_t u = 0; u < net_.units.size(); ++u) fill(plan.steps[u], u);
    plan.arena_bytes_per_image = arena_.total();
    return plan;
  }

 private:
  bool quantized(const UnitSpec& unit) const { return unit.quantizer >= 0 && model_.calibrated(); }

  /// Last step that reads value v as bf16 (its pool counts as the reader's step), or `none`.
  size_t last_plain(int value, size_t none) const {
    size_t last = none;
    for (size_t u = 0; u < net_.units.size(); ++u) {
      const UnitSpec& unit = net_.units[u];
      const bool reads = unit.shortcut == value || (unit.input == value && (unit.average_pool || !quantized(unit)));
      if (reads) last = u;
    }
    return last;
  }

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
    const UnitSpec& first = net_.units.front();
    const int64_t pads = first.shape.pad_before + first.shape.pad_after;
    const int64_t pixels = (first.shape.h + pads) * (first.shape.w + pads);
    plain_[kImageValue] = arena_.place(pixels * 3 * (layers_.front().integer() ? 1 : 2), 0, 0);
  }

  void fill(ExecutionPlan::Step& step, size_t u) {
    const UnitSpec& unit = net_.units[u];
    const LayerWeights& layer = layers_[u];
    ConvShape s = unit.shape;
    s.n = 0;
    step.gather = layer.row_folded ? row_folded_gather(s) : forward_gather(s);
    step.rounded = rounded_before_codes(net_, static_cast<int>(u) + 1);
    const bool is_signed = layer.quantizer != nullptr && layer.quantizer->is_signed;
    step.pad.assign(static_cast<size_t>(2 * std::max<int64_t>(code_stride(s.ic), 64)),
                    is_signed ? kSignedOffset : uint8_t{0});
    if (layer.quantizer != nullptr && !layer.quantizer->factor.empty()) {
      step.factor = layer.quantizer->factor;
      step.factor.resize(static_cast<size_t>(code_stride(s.ic)), 1);
    }
    // Sums of signed codes start below zero by what their offset adds.
    if (!layer.correction.empty()) step.start.resize(static_cast<size_t>(layer.forward.padded_columns()));
    for (size_t o = 0; o < layer.correction.size(); ++o) step.start[o] = -layer.correction[o];
    if (unit.average_pool) {
      step.pooled = arena_.place(plain_bytes(1, s.ic), u, u);
      if (quantized(unit)) codes_[static_cast<size_t>(unit.quantizer)] = arena_.place(code_stride(s.ic), u, u);
    }
    if (unit.shortcut != kNoValue) step.shortcut = plain_[static_cast<size_t>(unit.shortcut)];
    if (quantized(unit) && u > 0)
      step.input = codes_[static_cast<size_t>(unit.quantizer)];
    else
      step.input = unit.average_pool ? step.pooled : plain_[static_cast<size_t>(unit.input)];
    // fc averages the plain value itself; its own input is what the pool writes.
    if (unit.average_pool) step.shortcut = plain_[static_cast<size_t>(unit.input)];
    if (unit.kind == UnitKind::kConv) place_outputs(step, u);
  }

  void place_outputs(ExecutionPlan::Step& step, size_t u) {
    const UnitSpec& unit = net_.units[u];
    const int value = static_cast<int>(u) + 1;
    const int64_t pixels = unit.shape.oh() * unit.shape.ow(), c = unit.shape.oc;
    const size_t plain_last = last_plain(value, u);
    const bool plain_read = plain_last > u;
    int64_t out_pixels = pixels;
    if (unit.max_pool) {
      const int64_t side = (unit.shape.oh() + stem_pool_pad(net_.options, unit.shape.oh()) + 1 - 3) / 2 + 1;
      out_pixels = side * side;
      step.plain = arena_.place(plain_bytes(pixels, c), u, u);
      step.pooled = arena_.place(plain_bytes(out_pixels, c), u, plain_last);
      plain_[static_cast<size_t>(value)] = step.pooled;
    } else if (plain_read) {
      step.plain = arena_.place(plain_bytes(pixels, c), u, plain_last);
      plain_[static_cast<size_t>(value)] = step.plain;
    }
    if (!model_.calibrated()) return;
    for (int q : quantizers_of(net_, value)) {
      const bool pooled_by_fc = std::any_of(net_.units.begin(), net_.units.end(), [&](const UnitSpec& r) {
        return r.input == value && r.quantizer == q && r.average_pool;
      });
      if (pooled_by_fc) continue;
      const ValueSlot slot = arena_.place(out_pixels * code_stride(c), u, last_codes(q, u));
      codes_[static_cast<size_t>(q)] = slot;
      step.codes.emplace_back(q, slot);
    }
  }

  const ServedModel& model_;
  const Network& net_;
  const std::vector<LayerWeights>& layers_;
  ArenaPlanner arena_;
  std::vector<ValueSlot> plain_;
  std::vector<ValueSlot> codes_;
};

}  // namespace

ExecutionPlan make_plan(const ServedModel& model, const std::vector<LayerWeights>& layers) {
  return Planner(model, layers).run();
}

}  // namespace nibble
