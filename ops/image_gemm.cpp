#include "ops/image_gemm.hpp"

namespace nibble {

bool images_innermost(const Gather& g) {
  constexpr int64_t kSmallMap = 64;
  return g.taps.size() > 1 && g.n > 0 && g.n % kBlockImages == 0 && g.gh * g.gw <= kSmallMap &&
         g.sh * g.sw <= 4 * kSmallMap;
}

ImageCut cut_by_images(const Gather& g) {
  ImageCut cut{.images = kBlockImages * g.gh % grid_rows_per_task(g) == 0 ? kBlockImages : g.n};
  cut.tasks = ceil_div(g.n, cut.images);
  return cut;
}

PointTaps point_taps(const Gather& g, int64_t pixel_bytes, int64_t segment_bytes) {
  PointTaps all;
  for (int64_t i = 0; i < g.gh; ++i) {
    for (int64_t j = 0; j < g.gw; ++j) {
      all.begin.push_back(std::ssize(all.segments));
      for (size_t t = 0; t < g.taps.size(); ++t) {
        const int64_t y = i * g.step + g.taps[t].dh, x = j * g.step + g.taps[t].dw;
        if (y < 0 || y >= g.sh || x < 0 || x >= g.sw) continue;
        all.segments.push_back(
            {.rows = (y * g.sw + x) * kBlockImages * pixel_bytes, .panel = static_cast<int64_t>(t) * segment_bytes});
      }
    }
  }
  all.begin.push_back(std::ssize(all.segments));
  return all;
}

}  // namespace nibble
