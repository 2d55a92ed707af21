// Prefetcher: threads that fill batches ahead of the consumer, image by image, and hand them out strictly in order.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "data/batch.hpp"

namespace nibble::data_detail {

/// What became of one place in a batch.
struct Slot {
  bool filled = false;
  int32_t label = 0;
  int64_t index = 0;
  std::vector<ImageNote> skipped;  // unreadable images met on the way
  std::string damage;              // not empty: the image's path is in `damaged_path` and this is its warning
  std::string damaged_path;
  std::string turned_path;  // not empty: that of an image whose orientation is not followed
  std::exception_ptr error;
};

struct PrefetchArgs {
  int workers = 1;          // threads
  int depth = 3;            // batches in memory at most, besides the one the consumer holds
  int image_size = 0;       // side in pixels
  int64_t first_batch = 0;  // number of the first batch
  int64_t batch_count = 0;  // one past the last batch's number; -1: without end
  /// Slots of a batch, by its number.
  std::function<int64_t(int64_t batch)> slots{};
  /// Writes image_size^2 * 3 bytes to `pixels`; called on any thread, in any order; may throw.
  std::function<Slot(int64_t batch, int64_t slot, uint8_t* pixels)> fill{};
};

/// Results do not depend on the number of threads: a slot is filled by a pure function of (batch, slot), an error is
/// thrown for the batch it belongs to (the lowest slot's), and notes are merged when their batch is handed out.
class Prefetcher {
 public:
  explicit Prefetcher(PrefetchArgs args);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The next batch, unfilled slots closed up; nothing after the last one. After an error every call throws it again.
  std::optional<Batch> next();
  /// Distinct images met so far, in the order of the batches handed out.
  const std::vector<ImageNote>& skipped() const { return skipped_; }
  const std::vector<ImageNote>& damaged() const { return damaged_; }
  const std::vector<ImageNote>& turned() const { return turned_; }
  /// Seconds spent blocked in next().
  double wait_seconds() const { return wait_seconds_; }

 private:
  struct InFlight {
    int64_t number = 0;
    Tensor images;
    std::vector<Slot> slots;
    int64_t claimed = 0;
    int64_t done = 0;
    bool complete() const { return done == static_cast<int64_t>(slots.size()); }
  };

  void work();
  void stop();
  InFlight* claim();          // with the lock held; null: nothing to do now
  InFlight* claim_or_fail();  // the same; without memory for the very next batch it sets failed_
  Batch collect(InFlight& batch);
  void remember(ImageNote note, std::unordered_set<std::string>& seen, std::vector<ImageNote>& list);

  PrefetchArgs args_;
  std::mutex mutex_;
  std::condition_variable work_ready_, batch_ready_;
  std::deque<std::unique_ptr<InFlight>> queue_;  // unique_ptr: workers keep pointers while the deque moves
  int64_t next_open_ = 0;
  bool stopping_ = false;
  std::exception_ptr failed_;
  std::unordered_set<std::string> seen_skipped_, seen_damaged_, seen_turned_;
  std::vector<ImageNote> skipped_, damaged_, turned_;
  double wait_seconds_ = 0.0;
  std::vector<std::thread> threads_;
};

}  // namespace nibble::data_detail
