// The curves of a run: what metrics.jsonl says about training and evaluation, smoothed as the paper reports it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

namespace nibble {

/// Training with augmentation, averaged since the sample before. NaN where the log has no number.
struct TrainSample {
  int64_t step = 0;
  double epoch = 0, loss = 0, top1 = 0;  // top1 in percent
};

/// One evaluation of the validation set.
struct EvalSample {
  int64_t step = 0;
  double epoch = 0, top1 = 0, top5 = 0, loss = 0;  // percent, percent, mean cross entropy
  int64_t images = 0;                              // of the validation set; 0: not known
};

/// How training went on, at the same steps as TrainSample. NaN where the log has no number.
struct ProgressSample {
  int64_t step = 0;
  double epoch = 0, lr = 0;
  double images_per_second = 0;  // of the steps alone
  double data_wait = 0;          // share of that time spent waiting for images
};

struct Curves {
  std::vector<TrainSample> train;
  std::vector<EvalSample> evaluations;
  std::vector<ProgressSample> progress;  // not part of a point's result
};

/// Reads RUN/metrics.jsonl. Lines that are not a JSON object (a process may be writing the last one) are left out; all
/// curves come ascending by step, and for equal steps the last line counts. DiskError when the file cannot be read.
Curves read_curves(const std::filesystem::path& metrics);

/// At most `samples` points, each the mean of a stretch of equal length (step and epoch: of its last sample).
std::vector<TrainSample> thinned(const std::vector<TrainSample>& train, size_t samples);

/// One epoch of the smoothed evaluation curve.
struct SmoothedEpoch {
  int64_t step = 0;
  double epoch = 0, top1 = 0, top5 = 0, loss = 0;
  bool operator==(const SmoothedEpoch&) const = default;
};

/// The paper's reading of a run (METHOD.md section 4): triangular kernel of five epochs, weights 1 3 5 3 1 for one
/// evaluation per epoch, in general max(0, 2.5 - |distance in epochs|), renormalised where the curve ends.
/// `evaluations` ascend by step, and so by epoch: the sum ends where the epochs leave the window, and after the 250
/// nearest evaluations on each side. One whose epoch is not known (NaN) stands for itself and is in no other's mean.
/// Cost: at most 501 terms per evaluation.
std::vector<SmoothedEpoch> smoothed(const std::vector<EvalSample>& evaluations);

/// Are there other evaluations from `first_step` on in the window around the one at `epoch`? If not, its smoothed value
/// is its own.
bool has_neighbours(const std::vector<EvalSample>& evaluations, double epoch, int64_t first_step = 0);

/// Whether other evaluations are in `best`. None are where no other is near, or where its accuracy is that of its own
/// evaluation although near ones differ: they are from before the step that counted.
bool is_smoothed(const std::vector<EvalSample>& evaluations, const SmoothedEpoch& best);

/// The epoch with the highest smoothed accuracy, the first of equals, among the evaluations from `first_step` on; those
/// before it are not smoothed into later ones either. For a network with quantizers it is the calibration step:
/// evaluations before it are of bf16 activations. Where none is left, all count. Of those that count, the ones without
/// an epoch do so only where none has one. `evaluations` is not empty.
SmoothedEpoch best_smoothed(const std::vector<EvalSample>& evaluations, int64_t first_step);

}  // namespace nibble
