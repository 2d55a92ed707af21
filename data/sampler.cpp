#include "data/sampler.hpp"

#include <limits>
#include <numeric>
#include <utility>

#include "engine/error.hpp"
#include "engine/rng.hpp"

namespace nibble {

std::vector<uint32_t> epoch_order(int64_t size, uint64_t seed, int64_t epoch) {
  std::vector<uint32_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), 0u);
  Rng rng(seed, rng_purpose::kShuffle, static_cast<uint64_t>(epoch));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(static_cast<uint32_t>(i))]);
  return order;
}

Sampler::Sampler(const SamplerArgs& args) : args_(args) {
  if (args.batch_size < 1) throw UsageError("--batch-size is {}, but it must be at least 1", args.batch_size);
  if (args.size < args.batch_size)
    throw UsageError("the data set has {} images, fewer than one batch of {}: lower --batch-size", args.size,
                     args.batch_size);
  if (args.size > std::numeric_limits<uint32_t>::max())
    throw UsageError("the data set has {} images, more than the sampler's 2^32 - 1: use --per-class", args.size);
}

std::shared_ptr<const std::vector<uint32_t>> Sampler::order(int64_t epoch) const {
  const std::lock_guard lock(mutex_);
  if (kept_[0].epoch != epoch) std::swap(kept_[0], kept_[1]);
  if (kept_[0].epoch != epoch)
    kept_[0] = {.epoch = epoch,
                .order = std::make_shared<const std::vector<uint32_t>>(epoch_order(args_.size, args_.seed, epoch))};
  return kept_[0].order;
}

}  // namespace nibble
