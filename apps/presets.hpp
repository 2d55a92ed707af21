// Named recipes: what a published work trained with, as one value.
#pragma once
#include <cstdint>
#include <string>

namespace nibble::apps {

struct Preset {
  std::string name;
  std::string options;        // TOML, as a config file would give them; all but the learning rate and the shard
  double lr_of_256 = 0;       // the rate follows the batch size: lr = lr_of_256 * batch-size / 256
  int64_t largest_shard = 0;  // so does the shard

  /// The shard for a batch of this size, which is 1 or more: its largest divisor up to largest_shard. UsageError when
  /// that is no more than a few images of a larger batch.
  int64_t shard_of(int64_t batch_size) const;
};

/// UsageError listing the names when there is none of this name.
const Preset& preset_named(const std::string& name);

}  // namespace nibble::apps
