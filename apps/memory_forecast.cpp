#include "apps/memory_forecast.hpp"
#include "apps/step_probe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <string>
#include <vector>

#include "engine/block_cache.hpp"
#include "engine/cgroup.hpp"
#include "engine/parallel.hpp"
#include "nn/cost.hpp"
#include "nn/noise_images.hpp"
#include "nn/trainer.hpp"

namespace nibble::apps {

namespace {

constexpr int64_t kPlenty = int64_t{4} << 30;  // more than a step of 32e9 forward multiply-adds was seen to take
constexpr double kProgram = 40 << 20;          // code, heap, stacks: 35 to 45 MiB seen
constexpr double kKept = 1.0 / 16;             // of blocks: freed ones that wait for their next use (block_cache.hpp)
constexpr double kBatchesLoaded = 5;           // three ahead, one filling, one in use

/// What a step on `shards` shards of n images holds at its peak in blocks, the trainer included.
double blocks_of_step(TrainOptions o, int64_t n, int64_t shards) {
  o.shard = n;
  o.batch_size = n * shards;
  o.lr = 1e-4;
  o.calibrate_at = kNoCalibrationStep;
  release_kept_blocks();  // forgets earlier peaks
  const size_t before = block_cache_stats().used_bytes;
  size_t peak = 0;
  {
    const Tensor x = noise_images(o.batch_size, o.network.image_size);
    const std::vector<int32_t> labels(static_cast<size_t>(o.batch_size));
    Trainer trainer(make_model(build_resnet(o.network), {.seed = 0, .zero_last_gamma = true}),
                    o.trainer(kNoCalibrationStep, kNoCalibrationStep));
    trainer.step(x, labels);
    peak = block_cache_stats().most_used_bytes;
  }
  release_kept_blocks();
  return static_cast<double>(peak - before);
}

}  // namespace

int64_t forecast_memory(const TrainOptions& o, int64_t most_macs) {
  const int64_t shards = o.batch_size / o.shard;
  const int64_t at_work = o.low_memory ? 1 : std::clamp<int64_t>(threads(), 1, shards);
  const CostSums cost = cost_of(build_resnet(o.network)).total;
  const double gradients = 4.0 * static_cast<double>(cost.weights);
  const auto levels = [](int64_t n) { return static_cast<double>(std::bit_width(static_cast<uint64_t>(n))); };
  double blocks = 0;
  // A step of all images at work tells most; where memory may be short, one that takes little of it.
  if (cost.macs * o.shard * at_work <= most_macs && available_memory() > kPlenty) {
    blocks = blocks_of_step(o, o.shard, at_work);
  } else {
    const int64_t more = std::clamp(most_macs / 8 / cost.macs, std::min<int64_t>(o.shard, 4), o.shard);
    const int64_t few = std::max<int64_t>(more / 2, 2);
    const double of_more = blocks_of_step(o, more, 1);
    // A shard of one or two images is too small to be cut: then what a second one beside it takes.
    const double image = few < more ? (of_more - blocks_of_step(o, few, 1)) / static_cast<double>(more - few)
                                    : (blocks_of_step(o, more, 2) - of_more - gradients) / static_cast<double>(more);
    const double fixed = of_more - image * static_cast<double>(more);  // model, momentum, packed weights, gradients
    blocks = fixed + image * static_cast<double>(o.shard * at_work) + gradients * static_cast<double>(at_work - 1);
  }
  // Sums over shards that wait for each other (Trainer::gradient_buffers).
  blocks += gradients * (levels(shards) - levels(at_work));
  const double side = static_cast<double>(o.network.image_size);
  const double loaded = kBatchesLoaded * static_cast<double>(o.batch_size) * side * side * 3;
  return static_cast<int64_t>(blocks * (1 + kKept) + loaded + kProgram);
}

int64_t available_memory() {
  std::ifstream in("/proc/meminfo");
  std::string key;
  int64_t available = 0;
  for (int64_t kib = 0; in >> key >> kib; in.ignore(256, '\n'))
    if (key == "MemAvailable:") available = kib * 1024;
  return std::min(available, memory_left(own_control_groups()).value_or(available));
}

std::string memory_text(int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1000 ? fmt::format("{:.0f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

std::string describe_memory(int64_t forecast, int64_t available, const TrainOptions& o) {
  std::string text = fmt::format("memory about {} (forecast)", memory_text(forecast));
  if (available == 0) return text;
  text += fmt::format("; {} are available", memory_text(available));
  if (forecast <= available) return text;
  TrainOptions low = o;
  low.low_memory = true;
  const int64_t less = o.low_memory ? forecast : forecast_memory(low);
  text += ": the system may kill the run; ";
  if (less < forecast) text += fmt::format("use --low-memory (about {}), ", memory_text(less));
  return text + "lower --shard, --image-size or --width";
}

}  // namespace nibble::apps
