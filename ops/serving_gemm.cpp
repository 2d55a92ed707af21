#include "ops/serving_gemm.hpp"

namespace nibble {

ServingCut cut_for_serving(const Gather& g, const Panels& b, int64_t workers) {
  // About 512 points per task, as in training, so that a thread that runs dry finds something to take; for fewer points
  // than one block per worker, columns: a 7x7 map of one image is 49 points, and its weights are then read once.
  constexpr int64_t kPoints = 512;
  const int64_t blocks = std::max<int64_t>(1, g.points() / kBlockRows);
  const auto by_columns = [&](int64_t parts) {
    return ServingCut{.point_parts = blocks >= workers ? 1 : blocks, .panel_parts = std::min(b.count(), parts)};
  };
  if (blocks < workers) return by_columns(ceil_div(workers, blocks));
  // Few points compared with the weights (14x14 of one image, 256 channels and more): columns, too, if every thread
  // gets as many and the rows that each packs or transforms for itself meet a few panels. All threads then read the
  // smaller operand, each a part of the larger one: layers of stage 3 took 0.85 of their time (two threads).
  constexpr int64_t kLeastPanels = 4;
  const int64_t weights = b.segments * b.segment_k * b.columns;
  const int64_t source = std::min(g.n * g.sh * g.sw, g.points() * b.segments) * b.segment_k;
  if (g.points() < kPoints && weights > source && b.count() % workers == 0 && b.count() >= kLeastPanels * workers)
    return by_columns(workers);
  const int64_t rounds = std::max<int64_t>(1, (g.points() + kPoints * workers - 1) / (kPoints * workers));
  return {.point_parts = rounds * workers, .panel_parts = 1};
}

int64_t serving_block_rows(int64_t points, int64_t mr) {
  const int64_t most = round_up(kBlockRows, mr), blocks = std::max<int64_t>(1, ceil_div(points, most));
  return round_up(ceil_div(points, blocks), mr);
}

}  // namespace nibble
