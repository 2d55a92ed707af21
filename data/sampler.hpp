// The order of an epoch: a permutation that is a pure function of (seed, epoch), so that a run resumes anywhere.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace nibble {

/// Fisher-Yates shuffle of 0 .. size-1 with this epoch's random stream. Cost: about 20 ns per element.
std::vector<uint32_t> epoch_order(int64_t size, uint64_t seed, int64_t epoch);

struct SamplerArgs {
  int64_t size = 0;
  int64_t batch_size = 0;
  uint64_t seed = 0;
};

/// Cuts each epoch into whole batches; what is left over at the end of an epoch is dropped.
/// Throws UsageError when the set is smaller than one batch, or larger than 2^32 - 1.
class Sampler {
 public:
  explicit Sampler(const SamplerArgs& args);

  int64_t size() const { return args_.size; }
  int64_t batches_per_epoch() const { return args_.size / args_.batch_size; }
  /// The permutation of an epoch; the last two asked for are kept. Safe to call concurrently.
  std::shared_ptr<const std::vector<uint32_t>> order(int64_t epoch) const;

 private:
  struct Kept {
    int64_t epoch = -1;
    std::shared_ptr<const std::vector<uint32_t>> order;
  };
  SamplerArgs args_;
  mutable std::mutex mutex_;
  mutable Kept kept_[2];
};

}  // namespace nibble
