// The executor: runs a served model without tape; once its threads have met a batch size, it allocates only the logits.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "nn/runtime/row_schedule.hpp"
#include "nn/runtime/served_model.hpp"

namespace nibble {

/// Where a form of a value (bf16, or the codes of a quantizer) lies: whole maps in a context's arena, or, for values
/// that only live inside the row schedule, a few rows of one image in its windows.
struct ValueSlot {
  int64_t offset =
      -1;             // bytes, of the arena for one image, or of the windows; -1: the value is not stored in this form
  int64_t bytes = 0;  // per image; of the whole window
  int window = -1;    // index of the window; -1: whole maps
  int64_t row_bytes = 0;
  ReadAs read_as = ReadAs::kEither;  // which rows of the window have to stay
};

/// The compiled network: geometry, buffers and lifetimes.
struct ExecutionPlan {
  struct Step {
    Gather gather;                // n is set per call
    std::vector<uint8_t> pad;     // row read outside the map, in codes
    std::vector<uint8_t> factor;  // shift factors per channel with stride padding; empty: none
    ValueSlot input;              // codes or bf16
    ValueSlot plain;              // output as bf16
    ValueSlot shortcut;
    ValueSlot pooled;                              // output behind the max pool, or the averaged input of fc
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
  /// Up to the last unit whose output takes more bytes an image: half of the L2 of the CPUs that have such kernels.
  int64_t large_map = int64_t{1} << 20;
  int64_t strip_points = 448;  // pixels a strip: fourteen blocks of a product
};

/// Whole maps, layer by layer, behind the units of the schedule, which go row by row.
ExecutionPlan make_plan(const ServedModel& model, const std::vector<LayerWeights>& layers, RowSchedule schedule = {});
/// The leading units row by row. Needs kernels that multiply rows in place (LayerWeights::strided), else as make_plan.
ExecutionPlan make_row_plan(const ServedModel& model, const std::vector<LayerWeights>& layers,
                            const RowPlanOptions& options);

/// How a call walks through the network. Results do not depend on it; checks ask for both.
enum class Walk {
  kFastest,  // by rows where a thread has a group of images to itself
  kByRows,
  kWholeMaps
};

class Executor {
 public:
  /// Packs the weights for this machine and lets go of the others (they stay in the block cache for the next tensors;
  /// release_kept_blocks() gives them back). The model must not change afterwards.
  explicit Executor(ServedModel model, const RowPlanOptions& options = {});
  ~Executor();

  /// Logits f32 [n, classes] of dense uint8 images [n, side, side, 3], side = model().network.options.image_size: RGB,
  /// not normalised, as transform_eval writes them. Any n >= 1; the bits of a row depend on its image alone.
  /// Errors: ShapeError for other shapes and types. Threads: groups of images in parallel; with fewer images than
  /// threads each layer is split. Safe to call concurrently.
  Tensor run(const Tensor& images, Walk walk = Walk::kFastest);

  /// Without its weights, of which layers() has the only form that is left.
  const ServedModel& model() const { return *model_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  /// Units that go row by row when a thread has a group of images to itself.
  size_t row_units() const { return row_plan_.schedule.end; }

 private:
  struct Context;
  struct Part;
  std::unique_ptr<Context> take(int64_t images, bool by_rows);
  void give_back(std::unique_ptr<Context> context);
  void run_group(const uint8_t* images, int64_t n, int64_t workers, bool by_rows, float* logits);
  void write_input(Context& context, const uint8_t* images, int64_t n) const;
  void run_rows(Context& context, int64_t image) const;
  ZoneWork work_of(size_t u, int64_t rows) const;
  void convolve(Context& context, size_t u, const Part& part, float* logits) const;
  void max_pool(Context& context, size_t u, const Part& part) const;
  void average_pool(Context& context, size_t u, int64_t n) const;

  std::unique_ptr<ServedModel> model_;  // on the heap: layers_ point into it
  std::vector<LayerWeights> layers_;
  ExecutionPlan plan_, row_plan_;
  std::vector<uint8_t> image_codes_;
  std::vector<bf16> image_values_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> free_;
};

}  // namespace nibble
