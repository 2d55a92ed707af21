#include "data/loader.hpp"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "engine/error.hpp"
#include "engine/integers.hpp"

namespace nibble {
namespace {

using data_detail::Slot;

void note_oddities(Slot& slot, const Image& image, bool upright, const Dataset& dataset, int64_t index) {
  if (image.orientation != 1 && !upright) slot.turned_path = dataset.path(index);
  if (image.warning.empty()) return;
  slot.damage = image.warning;
  slot.damaged_path = dataset.path(index);
}

// Places a decoded image in a slot.
void label_slot(Slot& slot, const Dataset& dataset, int64_t index) {
  slot.filled = true;
  slot.index = index;
  slot.label = static_cast<int32_t>(dataset.label(index));
}

}  // namespace

// What the threads share: the data set and the images known to be bad, so that a bad file is decoded once per run.
struct TrainLoader::Source {
  TrainLoaderArgs args;
  const Sampler* sampler = nullptr;
  std::mutex mutex;
  std::unordered_map<int64_t, std::string> bad;  // index -> reason

  std::optional<std::string> known_bad(int64_t index) {
    const std::lock_guard lock(mutex);
    const auto it = bad.find(index);
    return it == bad.end() ? std::nullopt : std::optional(it->second);
  }

  std::optional<Image> read(int64_t index, std::string& reason) {
    if (const auto known = known_bad(index)) {
      reason = *known;
      return std::nullopt;
    }
    try {
      return args.dataset->read(index);
    } catch (const DataError& e) {
      if (args.bad_images == BadImages::error) throw;
      reason = e.what();
      const std::lock_guard lock(mutex);
      bad.emplace(index, reason);
      return std::nullopt;
    }
  }

  Slot fill(int64_t batch, int64_t s, uint8_t* pixels) {
    const int64_t per_epoch = sampler->batches_per_epoch(), n = sampler->size();
    const int64_t epoch = batch / per_epoch, place = batch % per_epoch * args.batch_size + s;
    const auto order = sampler->order(epoch);
    Slot slot;
    for (int64_t k = 0; k < n; ++k) {
      const int64_t index = (*order)[static_cast<size_t>((place + k) % n)];
      std::string reason;
      const std::optional<Image> image = read(index, reason);
      if (!image) {
        slot.skipped.push_back({.path = args.dataset->path(index), .reason = std::move(reason)});
        continue;
      }
      augment_train(*image, args.transform, {.seed = args.seed, .epoch = epoch, .index = index}, pixels);
      note_oddities(slot, *image, args.transform.upright, *args.dataset, index);
      label_slot(slot, *args.dataset, index);
      return slot;
    }
    throw DataError("none of the {} training images can be decoded, the last error being: {}", n,
                    slot.skipped.back().reason);
  }
};

TrainLoader::TrainLoader(const TrainLoaderArgs& args)
    : sampler_({.size = args.dataset->size(), .batch_size = args.batch_size, .seed = args.seed}),
      source_(std::make_shared<Source>()) {
  if (args.start_epoch < 0 || args.start_batch < 0 || args.start_batch > sampler_.batches_per_epoch())
    throw UsageError("cannot start at epoch {}, batch {}: an epoch has {} batches", args.start_epoch, args.start_batch,
                     sampler_.batches_per_epoch());
  // A wrong option is better reported here than by a thread.
  (void)train_crop(1, 1, args.transform, {});
  source_->args = args;
  source_->sampler = &sampler_;
  prefetcher_ = std::make_unique<data_detail::Prefetcher>(data_detail::PrefetchArgs{
      .workers = args.workers,
      .depth = args.prefetch,
      .image_size = args.transform.size,
      .first_batch = args.start_epoch * sampler_.batches_per_epoch() + args.start_batch,
      .batch_count = -1,
      .slots = [n = args.batch_size](int64_t) { return n; },
      .fill = [source = source_.get()](int64_t b, int64_t s, uint8_t* pixels) { return source->fill(b, s, pixels); }});
}

TrainLoader::~TrainLoader() = default;

Batch TrainLoader::next() {
  Batch batch = *prefetcher_->next();
  const int64_t number = batch.position;
  batch.epoch = number / batches_per_epoch();
  batch.position = number % batches_per_epoch();
  return batch;
}

EvalLoader::EvalLoader(const EvalLoaderArgs& args) {
  total_ = args.dataset->size();
  if (args.limit < 0) throw UsageError("--limit is {}, but it must not be negative", args.limit);
  if (args.limit > 0) total_ = std::min(total_, args.limit);
  if (args.batch_size < 1) throw UsageError("--batch-size is {}, but it must be at least 1", args.batch_size);
  const int64_t n = args.batch_size, total = total_;
  auto fill = [args, n](int64_t batch, int64_t s, uint8_t* pixels) {
    const int64_t index = batch * n + s;
    Slot slot;
    try {
      const Image image = args.dataset->read(index);
      transform_eval(image, args.transform, pixels);
      note_oddities(slot, image, args.transform.upright, *args.dataset, index);
      label_slot(slot, *args.dataset, index);
    } catch (const DataError& e) {
      if (args.bad_images == BadImages::error) throw;
      slot.skipped.push_back({.path = args.dataset->path(index), .reason = e.what()});
    }
    return slot;
  };
  prefetcher_ = std::make_unique<data_detail::Prefetcher>(
      data_detail::PrefetchArgs{.workers = args.workers,
                                .depth = args.prefetch,
                                .image_size = args.transform.size,
                                .first_batch = 0,
                                .batch_count = ceil_div(total, n),
                                .slots = [n, total](int64_t b) { return std::min(n, total - b * n); },
                                .fill = std::move(fill)});
}

std::optional<Batch> EvalLoader::next() {
  for (;;) {
    std::optional<Batch> batch = prefetcher_->next();
    if (!batch) {
      if (delivered_ == 0 && total_ > 0)
        throw DataError("none of the {} images can be decoded, the first error being: {}", total_,
                        skipped().front().reason);
      return std::nullopt;
    }
    delivered_ += batch->size();
    if (batch->size() > 0) return batch;
  }
}

}  // namespace nibble
