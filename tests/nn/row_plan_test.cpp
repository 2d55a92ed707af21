// Windows of the row plan: whatever a step reads or writes lies inside, on every machine, whichever kernels it has.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "nn/runtime/execution_plan.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::random_model;
using testing::small_options;

/// Walks through the schedule as the executor does, with row numbers instead of rows.
class Replay {
 public:
  Replay(const Network& net, const ExecutionPlan& plan) : net_(net), plan_(plan), first_(plan.windows, 0) {}

  void run() {
    for (const RowStep& row : plan_.schedule.steps) {
      const UnitSpec& unit = net_.units[row.unit];
      const ExecutionPlan::Step& step = plan_.steps[row.unit];
      INFO(unit.name << (row.pool ? " pool " : " ") << row.begin << ".." << row.end);
      std::vector<ValueSlot> written = {row.pool ? step.pooled : step.plain};
      if (!row.pool) written.push_back(step.map_codes);
      if (row.pool == unit.max_pool.has_value())
        for (const auto& [quantizer, slot] : step.codes) written.push_back(slot);
      for (const ValueSlot& slot : written) make_room(slot, row);
      for (const ValueSlot& slot : written) check(slot, row.begin, row.end);
      if (row.pool) {
        const int64_t pad = unit.max_pool->pad_before;
        check_read(step.map_codes.offset >= 0 ? step.map_codes : step.plain, row.begin * 2 - pad, row.end * 2 - pad + 1,
                   unit.shape.oh());
      } else {
        const ConvShape& s = unit.shape;
        if (row.unit > 0)
          check_read(step.input, row.begin * s.stride - s.pad_before, (row.end - 1) * s.stride - s.pad_before + s.kh,
                     s.h);
        if (unit.shortcut != kNoValue) check(step.shortcut, row.begin, row.end);
      }
    }
  }

 private:
  void make_room(const ValueSlot& slot, const RowStep& row) {
    if (slot.offset < 0 || slot.window < 0) return;
    int64_t& first = first_[static_cast<size_t>(slot.window)];
    if ((std::max(row.end, row.filled) - first) * slot.row_bytes <= slot.bytes) return;
    const int64_t live = row.live[static_cast<size_t>(slot.read_as)];
    CHECK(live >= first);  // rows before are gone
    first = live;
  }
  void check_read(const ValueSlot& slot, int64_t begin, int64_t end, int64_t rows) {
    check(slot, std::max<int64_t>(0, begin), std::min(end, rows));
  }
  void check(const ValueSlot& slot, int64_t begin, int64_t end) {
    if (slot.offset < 0 || slot.window < 0 || begin >= end) return;
    const int64_t first = first_[static_cast<size_t>(slot.window)];
    CHECK(begin >= first);
    CHECK((end - first) * slot.row_bytes <= slot.bytes);
    CHECK(slot.offset + slot.bytes <= plan_.window_bytes);
  }

  const Network& net_;
  const ExecutionPlan& plan_;
  std::vector<int64_t> first_;  // row at the front of each window
};

void check_windows(const Model& model) {
  const ServedModel served = make_served(model);
  const std::vector<LayerWeights> layers = pack_served(served);
  const size_t convolutions = served.network.units.size() - 1;
  for (size_t end : {size_t{4}, size_t{8}, size_t{14}, convolutions})
    for (int64_t strip_points : {1, 100, 448}) {
      CAPTURE(end);
      CAPTURE(strip_points);
      const ExecutionPlan plan = make_plan(served, layers, make_row_schedule(served.network, 0, end, strip_points));
      CHECK(plan.windows > 0);
      Replay(served.network, plan).run();
    }
}

}  // namespace

TEST_CASE("row plan: no step reads or writes outside of a window, whatever precision reads what") {
  for (const char* arch : {"resnet26", "resnet50"})
    for (int64_t size : {64, 97, 128}) {
      CAPTURE(std::string(arch));
      CAPTURE(size);
      NetworkOptions o = small_options("w4a4-fl8", 0.1);
      o.arch = arch;
      o.image_size = size;
      check_windows(calibrated_model(o));
      check_windows(random_model(o));  // before calibration activations are bf16
      for (const char* reader : {"layer1.0.conv1", "layer2.0.downsample.0", "layer2.0.conv1", "layer2.1.conv2"}) {
        CAPTURE(std::string(reader));
        NetworkOptions mixed = o;
        mixed.overrides = {{reader, {16, 16}}};
        check_windows(calibrated_model(mixed));
      }
      o.precision = "bf16";
      check_windows(random_model(o));
    }
}

}  // namespace nibble
