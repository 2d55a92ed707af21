#include "data/prefetch.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "engine/error.hpp"
#include "engine/parallel.hpp"

namespace nibble::data_detail {

Prefetcher::Prefetcher(PrefetchArgs args) : args_(std::move(args)), next_open_(args_.first_batch) {
  if (args_.workers < 1 || args_.depth < 1)
    throw UsageError("the loader needs at least one thread and one batch ahead, got {} and {}", args_.workers,
                     args_.depth);
  try {
    for (int i = 0; i < args_.workers; ++i) threads_.emplace_back([this] { work(); });
  } catch (...) {
    stop();
    throw;
  }
}

Prefetcher::~Prefetcher() {
  stop();
}

void Prefetcher::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& t : threads_) t.join();
  threads_.clear();
}

Prefetcher::InFlight* Prefetcher::claim() {
  for (const auto& batch : queue_)
    if (batch->claimed < static_cast<int64_t>(batch->slots.size())) return batch.get();
  if (static_cast<int>(queue_.size()) >= args_.depth || next_open_ == args_.batch_count) return nullptr;
  auto batch = std::make_unique<InFlight>();
  batch->number = next_open_;
  const int64_t slots = args_.slots(batch->number);
  batch->slots.resize(static_cast<size_t>(slots));
  batch->images = Tensor(DType::u8, {slots, args_.image_size, args_.image_size, 3});
  queue_.push_back(std::move(batch));
  ++next_open_;
  return queue_.back().get();
}

Prefetcher::InFlight* Prefetcher::claim_or_fail() {
  try {
    return claim();
  } catch (...) {  // no memory for another batch: until those before it are handed out, there may be again
    if (queue_.empty()) {
      failed_ = std::current_exception();
      batch_ready_.notify_all();
    }
    return nullptr;
  }
}

void Prefetcher::work() {
  const FloatModeScope mode;  // a thread begins with its maker's, and crops and resizing compute
  std::unique_lock lock(mutex_);
  for (;;) {
    InFlight* batch = nullptr;
    work_ready_.wait(lock, [&] { return stopping_ || failed_ || (batch = claim_or_fail()) != nullptr; });
    if (batch == nullptr) return;
    const int64_t s = batch->claimed++;
    lock.unlock();
    Slot slot;
    try {
      const int64_t bytes = int64_t{3} * args_.image_size * args_.image_size;
      slot = args_.fill(batch->number, s, batch->images.data<uint8_t>() + s * bytes);
    } catch (...) {
      slot.error = std::current_exception();
    }
    lock.lock();
    batch->slots[static_cast<size_t>(s)] = std::move(slot);
    ++batch->done;
    if (batch->complete()) batch_ready_.notify_all();
  }
}

std::optional<Batch> Prefetcher::next() {
  std::unique_lock lock(mutex_);
  const bool ended = queue_.empty() && next_open_ == args_.batch_count;
  if (!ended && !failed_) {
    const auto start = std::chrono::steady_clock::now();
    batch_ready_.wait(lock, [&] { return failed_ || (!queue_.empty() && queue_.front()->complete()); });
    wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  if (failed_) std::rethrow_exception(failed_);
  if (ended) return std::nullopt;
  const std::unique_ptr<InFlight> batch = std::move(queue_.front());
  queue_.pop_front();
  for (const Slot& slot : batch->slots)
    if (slot.error && !failed_) failed_ = slot.error;
  work_ready_.notify_all();
  if (failed_) std::rethrow_exception(failed_);
  lock.unlock();
  return collect(*batch);
}

void Prefetcher::remember(ImageNote note, std::unordered_set<std::string>& seen, std::vector<ImageNote>& list) {
  if (seen.insert(note.path).second) list.push_back(std::move(note));
}

Batch Prefetcher::collect(InFlight& in) {
  Batch batch;
  const size_t bytes = size_t{3} * static_cast<size_t>(args_.image_size) * static_cast<size_t>(args_.image_size);
  uint8_t* pixels = in.images.data<uint8_t>();
  size_t kept = 0;
  for (size_t s = 0; s < in.slots.size(); ++s) {
    Slot& slot = in.slots[s];
    for (ImageNote& note : slot.skipped) remember(std::move(note), seen_skipped_, skipped_);
    if (!slot.damage.empty())
      remember({.path = std::move(slot.damaged_path), .reason = std::move(slot.damage)}, seen_damaged_, damaged_);
    if (!slot.turned_path.empty())
      remember({.path = std::move(slot.turned_path), .reason = "it is stored turned"}, seen_turned_, turned_);
    if (!slot.filled) continue;
    if (kept != s) std::memcpy(pixels + kept * bytes, pixels + s * bytes, bytes);
    batch.labels.push_back(slot.label);
    batch.indices.push_back(slot.index);
    ++kept;
  }
  batch.images = in.images;
  if (kept < in.slots.size()) {
    batch.images = Tensor(DType::u8, {static_cast<int64_t>(kept), args_.image_size, args_.image_size, 3});
    std::memcpy(batch.images.raw(), pixels, kept * bytes);
  }
  batch.position = in.number;
  return batch;
}

}  // namespace nibble::data_detail
