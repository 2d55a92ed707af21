// The executor: runs a served model without tape; once its threads have met a batch size, it allocates only the logits.
#pragma once
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/profiler.hpp"
#include "nn/first_layer_input.hpp"
#include "nn/runtime/execution_plan.hpp"

namespace nibble {

struct Epilogue;

/// How a call walks through the network. Results do not depend on it; checks ask for both.
enum class Walk {
  kFastest,  // by rows where a thread has a group of images to itself
  kByRows,
  kWholeMaps
};

class Executor {
 public:
  /// Packs the weights for this machine and frees the unpacked ones (the block cache keeps their memory for the next
  /// tensors; release_kept_blocks() gives it back to the system). The model must not change afterwards.
  explicit Executor(ServedModel model, const RowPlanOptions& options = {});
  ~Executor();

  /// Logits f32 [n, classes] of dense uint8 images [n, side, side, 3], side = model().network.options.image_size: RGB,
  /// not normalised, as transform_eval writes them. Any n >= 1; the bits of a row depend on its image alone.
  /// Errors: ShapeError for other shapes and types. Threads: groups of images in parallel; with fewer images than
  /// threads each layer is split. Safe to call concurrently.
  Tensor run(const Tensor& images, Walk walk = Walk::kFastest);
  /// The same in the caller's memory: n * side * side * 3 bytes to n * classes logits, n from the size of `images`.
  /// ShapeError where either does not hold a whole number of images, or the two hold different numbers of them.
  void run(std::span<const uint8_t> images, std::span<float> logits, Walk walk = Walk::kFastest);

  /// The model without its weights: only the packed ones are left, in layers().
  const ServedModel& model() const { return *model_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  /// Units that go row by row when a thread has a group of images to itself.
  size_t row_units() const { return row_plan_.schedule.end; }

 private:
  struct Context;
  struct Part;
  std::unique_ptr<Context> take(int64_t images, bool by_rows);
  void give_back(std::unique_ptr<Context> context);
  void run_images(const uint8_t* images, int64_t n, Walk walk, float* logits);
  void run_group(const uint8_t* images, int64_t n, int64_t workers, bool by_rows, float* logits);
  void write_input(Context& context, const uint8_t* images, int64_t n) const;
  void run_rows(Context& context, int64_t image) const;
  ZoneWork work_of(size_t u, int64_t rows) const;
  Epilogue epilogue_of(const Context& context, size_t u, const Part& part, float* logits) const;
  /// Unit u's products of the rows that `source` gives, from `start` (null: from 0) on.
  template <typename Sum, typename Element, typename Gemm, typename Source>
  void multiply(Context& context, size_t u, const Part& part, const Gemm& gemm, const Source& source, const Sum* start,
                const Epilogue& epilogue) const;
  void convolve(Context& context, size_t u, const Part& part, float* logits) const;
  void max_pool(Context& context, size_t u, const Part& part) const;
  void average_pool(Context& context, size_t u, int64_t n) const;

  std::unique_ptr<ServedModel> model_;  // on the heap: layers_ point into it
  std::vector<LayerWeights> layers_;
  ExecutionPlan plan_, row_plan_;
  FirstLayerInput input_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> free_;
};

}  // namespace nibble
