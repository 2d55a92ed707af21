// The execution plan: where every value of the network lies while a batch goes through, and which rows go first.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "nn/runtime/row_schedule.hpp"
#include "nn/runtime/served_model.hpp"

namespace nibble {

/// Where a form of a value (bf16, or the codes of a quantizer) lies: whole maps in a context's arena, or, for values
/// that only live inside the row schedule, a few rows of one image in its windows.
struct ValueSlot {
  /// In bytes, of the arena for one image, or of the windows; -1: the value is not stored in this form.
  int64_t offset = -1;
  int64_t bytes = 0;  // per image; of the whole window
  int window = -1;    // index of the window; -1: whole maps
  int64_t row_bytes = 0;
  ReadAs read_as = ReadAs::kEither;  // which rows of the window have to stay
};

/// The compiled network: geometry, buffers and lifetimes. Every value gets room in one arena for as long as something
/// reads it.
struct ExecutionPlan {
  struct Step {
    Gather gather;                                 // n is set per call
    std::vector<uint8_t> pad;                      // row read outside the map, in codes
    std::vector<uint8_t> factor;                   // shift factors per channel with stride padding; empty: none
    ValueSlot input;                               // codes or bf16
    ValueSlot plain;                               // output as bf16
    ValueSlot shortcut;                            // what is added to the output
    ValueSlot averaged, mean;                      // what the average pool before the layer reads and writes, bf16
    ValueSlot pooled;                              // output after the max pool
    ValueSlot map_codes;                           // codes before the max pool: quantizing is monotonic, so the
                                                   // largest code is the largest value's; then no bf16 form exists
    std::vector<std::pair<int, ValueSlot>> codes;  // quantizer -> output codes
    bool rounded = false;                          // codes are made from bf16(relu(v)) rather than from v
  };
  std::vector<Step> steps;
  int64_t arena_bytes_per_image = 0;
  RowSchedule schedule;  // leading units that go row by row
  int64_t window_bytes = 0;
  int windows = 0;
};

/// What decides how far the leading units go row by row. Results do not depend on it.
struct RowPlanOptions {
  /// Up to the last unit whose output takes more bytes per image: half of the L2 of the CPUs with tiles, and twice a
  /// Zen 3's, where with whole maps these layers take 3 % longer (median of 6 rounds, -0.3 to 5).
  int64_t large_map = int64_t{1} << 20;
  /// Pixels per strip, rounded up to a multiple of four rows: fourteen blocks of a product on tiles, eight to ten from
  /// packed rows.
  int64_t strip_points = 448;
};

/// Whole maps, layer by layer, after the units of the schedule, which go row by row.
ExecutionPlan make_plan(const ServedModel& model, const std::vector<LayerWeights>& layers, RowSchedule schedule = {});
/// The leading units row by row.
ExecutionPlan make_row_plan(const ServedModel& model, const std::vector<LayerWeights>& layers,
                            const RowPlanOptions& options);

}  // namespace nibble
