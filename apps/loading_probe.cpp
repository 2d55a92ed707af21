#include "apps/loading_probe.hpp"

#include <algorithm>
#include <chrono>
#include <vector>

#include "data/augment.hpp"
#include "engine/error.hpp"
#include "engine/parallel.hpp"

namespace nibble::apps {

double probe_loading(const Dataset& images, const TrainOptions& o) {
  constexpr int64_t kImages = 16;
  constexpr double kProbeSeconds = 0.3;
  const TrainTransform transform{.size = static_cast<int>(o.network.image_size),
                                 .min_crop = static_cast<float>(o.min_crop)};
  std::vector<uint8_t> pixels(size_t{3} * static_cast<size_t>(transform.size) * static_cast<size_t>(transform.size));
  const auto began = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
  const int64_t count = std::min(kImages, images.size());
  int64_t loaded = 0;
  for (int64_t i = 0; i < count && seconds() < kProbeSeconds; ++i) {
    const int64_t index = i * images.size() / count;
    try {
      augment_train(images.read(index), transform, {.seed = o.seed, .epoch = 0, .index = index}, pixels.data());
      ++loaded;
    } catch (const DataError&) {  // the run names it
    }
  }
  return loaded > 0 ? seconds() / static_cast<double>(loaded) : 0;
}

PhaseSeconds with_loading(const PhaseSeconds& step, double loading, const TrainOptions& o) {
  const double busy = threads(), cores = std::max(threads(), available_cores());
  const double alone = loading / static_cast<double>(o.loader_threads);
  const auto both = [&](double seconds) {
    return seconds > 0 ? std::max({seconds, alone, (seconds * busy + loading) / cores}) : 0;
  };
  return {.before = both(step.before), .after = both(step.after)};
}

}  // namespace nibble::apps
