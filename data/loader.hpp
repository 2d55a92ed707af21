// Loaders: from a data set to batches, ahead of time, on threads of their own.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "data/augment.hpp"
#include "data/batch.hpp"
#include "data/dataset.hpp"
#include "data/prefetch.hpp"
#include "data/sampler.hpp"

namespace nibble {

/// What to do with an image that cannot be decoded.
enum class BadImages { skip, error };

struct TrainLoaderArgs {
  DatasetPtr dataset;
  int64_t batch_size = 64;
  TrainTransform transform;
  uint64_t seed = 0;
  int workers = 1;   // threads; one decodes and augments about 700 images per second (224x224 files to 128x128)
  int prefetch = 3;  // batches ahead
  BadImages bad_images = BadImages::skip;
  int64_t start_epoch = 0;
  int64_t start_batch = 0;  // position within the epoch; may equal batches_per_epoch()
};

/// Endless shuffled, augmented batches. Batch (epoch, position) is a pure function of data set, transform and seed,
/// whatever the number of threads and wherever the loader started, so a run resumes exactly. A bad image is replaced by
/// the next good one of the same permutation (wrapping round), noted in skipped().
class TrainLoader {
 public:
  /// Throws UsageError (see Sampler).
  explicit TrainLoader(const TrainLoaderArgs& args);
  ~TrainLoader();

  int64_t batches_per_epoch() const { return sampler_.batches_per_epoch(); }
  /// Blocks until the batch is there. Throws DiskError on an I/O error, DataError when no image can be decoded or, with
  /// BadImages::error, at the first bad one; then it keeps throwing that.
  /// For one caller: neither this nor the notes below may be called while another thread is in here.
  Batch next();
  const std::vector<ImageNote>& skipped() const { return prefetcher_->skipped(); }
  const std::vector<ImageNote>& damaged() const { return prefetcher_->damaged(); }
  /// Images that EXIF says are stored turned, where the transform does not turn them.
  const std::vector<ImageNote>& turned() const { return prefetcher_->turned(); }
  double wait_seconds() const { return prefetcher_->wait_seconds(); }

 private:
  struct Source;
  Sampler sampler_;
  std::shared_ptr<Source> source_;
  std::unique_ptr<data_detail::Prefetcher> prefetcher_;
};

struct EvalLoaderArgs {
  DatasetPtr dataset;
  EvalTransform transform = {};
  int64_t batch_size = 64;
  int workers = 1;
  int prefetch = 3;
  BadImages bad_images = BadImages::skip;
  int64_t limit = 0;  // only the first N images of the data set (0: all)
};

/// Every image once, in the data set's order (bytewise path order for ImageFolder), centre-cropped. Unreadable ones are
/// left out and noted, so batches may be smaller than batch_size, as the last one is; empty ones are not returned.
/// UsageError for a batch size, limit or number of threads out of range.
class EvalLoader {
 public:
  explicit EvalLoader(const EvalLoaderArgs& args);

  /// The next batch; nothing after the last. Throws as TrainLoader::next does (DataError at the end when every image
  /// was unreadable).
  std::optional<Batch> next();
  int64_t images_total() const { return total_; }
  const std::vector<ImageNote>& skipped() const { return prefetcher_->skipped(); }
  const std::vector<ImageNote>& damaged() const { return prefetcher_->damaged(); }
  /// Images that EXIF says are stored turned, where the transform does not turn them.
  const std::vector<ImageNote>& turned() const { return prefetcher_->turned(); }
  double wait_seconds() const { return prefetcher_->wait_seconds(); }

 private:
  int64_t total_ = 0;
  int64_t delivered_ = 0;
  std::unique_ptr<data_detail::Prefetcher> prefetcher_;
};

}  // namespace nibble
