// The executor: runs a served model without tape; after the first call of a batch size it allocates nothing.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "nn/runtime/served_model.hpp"

namespace nibble {

/// Where a value's tensors lie in a context's arena, in bytes for one image.
struct ValueSlot {
  int64_t offset = -1;  // -1: the value is not stored in this form
  int64_t bytes = 0;    // per image
};

/// The compiled network: geometry, buffers and lifetimes.
struct ExecutionPlan {
  struct Step {
    Gather gather;                // n is set per call
    std::vector<uint8_t> pad;     // row read outside the map, in codes
    std::vector<int32_t> start;   // what integer sums begin with, padded columns; empty: zero
    std::vector<uint8_t> factor;  // shift factors per channel with stride padding; empty: none
    ValueSlot input;              // codes or bf16
    ValueSlot plain;              // output as bf16
    ValueSlot shortcut;
    ValueSlot pooled;                              // output behind the max pool, or the averaged input of fc
    std::vector<std::pair<int, ValueSlot>> codes;  // quantizer -> output codes
    bool rounded = false;                          // codes are made from bf16(relu(v)) rather than from v
  };
  std::vector<Step> steps;
  int64_t arena_bytes_per_image = 0;
};
ExecutionPlan make_plan(const ServedModel& model, const std::vector<LayerWeights>& layers);

class Executor {
 public:
  /// Packs the weights for this machine. The model must not change afterwards.
  explicit Executor(ServedModel model);
  ~Executor();

  /// Logits f32 [n, classes] of uint8 NHWC images [n, h, w, 3]. Any n >= 1; the bits of a row depend on its image
  /// alone. Threads: groups of images in parallel; with fewer images than threads each layer is split. Safe to call
  /// concurrently.
  Tensor run(const Tensor& images);

  const ServedModel& model() const { return *model_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }

 private:
  struct Context;
  std::unique_ptr<Context> take(int64_t images);
  void give_back(std::unique_ptr<Context> context);
  void run_group(const uint8_t* images, int64_t n, int64_t workers, float* logits);
  void write_input(Context& context, const uint8_t* images, int64_t n) const;
  ZoneWork work_of(size_t u, int64_t n) const;
  void convolve(Context& context, size_t u, float* logits) const;
  void max_pool(Context& context, size_t u, int64_t n) const;
  void average_pool(Context& context, size_t u, int64_t n) const;

  std::unique_ptr<const ServedModel> model_;  // on the heap: layers_ point into it
  std::vector<LayerWeights> layers_;
  ExecutionPlan plan_;
  std::vector<uint8_t> image_codes_;
  std::vector<bf16> image_values_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> free_;
};

}  // namespace nibble
