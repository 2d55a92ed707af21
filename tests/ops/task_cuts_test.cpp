// How products on levels that multiply rows in place are cut into tasks, and which taps a small map's points have.
#include "ops/image_gemm.hpp"
#include "ops/plane_gemm.hpp"
#include "tests/ops/packed_layers.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

Gather map_of(int64_t n, int64_t h, int64_t w) {
  return forward_gather({.n = n, .h = h, .w = w, .ic = 8, .oc = 8});
}

Panels panels_for(int64_t columns) {
  Panels p;
  p.columns = columns;
  p.nr = 32;
  return p;
}

/// Steps of one panel and 32 points that the longest task of a cut makes; a panel without its neighbour counts a third
/// more.
double longest_task(const Gather& g, const Panels& b, const PlaneCut& cut) {
  double longest = 0;
  for (int64_t part = 0; part < cut.row_parts; ++part) {
    const int64_t g0 = part * cut.rows_per_part, g1 = std::min(cut.row_end, g0 + cut.rows_per_part);
    for (int64_t side = 0; side < cut.panel_parts; ++side) {
      const int64_t panels = cut.first_panel(side + 1, b.count()) - cut.first_panel(side, b.count());
      const double blocks = static_cast<double>(((g1 - g0) * g.gw + 31) / 32);
      longest = std::max(longest, blocks * (static_cast<double>(panels) + static_cast<double>(panels % 2) / 3));
    }
  }
  return longest;
}

/// Whether every row and every panel is in exactly one task, and every task has some of both.
bool covers(const PlaneCut& cut, int64_t rows, int64_t panels) {
  bool whole = cut.row_begin == 0 && cut.row_end == rows && cut.row_parts * cut.rows_per_part >= rows &&
               (cut.row_parts - 1) * cut.rows_per_part < rows;
  whole = whole && cut.first_panel(0, panels) == 0 && cut.first_panel(cut.panel_parts, panels) == panels;
  for (int64_t side = 0; side < cut.panel_parts; ++side)
    whole = whole && cut.first_panel(side, panels) < cut.first_panel(side + 1, panels);
  return whole;
}

}  // namespace

TEST_CASE("tasks: one image's map keeps many threads busy, by rows, by panels, and by both") {
  struct Case {
    int64_t side, outputs, workers, row_parts, panel_parts;
  };
  for (const Case& e : std::vector<Case>{{28, 128, 24, 10, 2},
                                         {14, 256, 6, 3, 2},
                                         {28, 128, 25, 10, 2},
                                         {28, 128, 28, 14, 2},
                                         {28, 128, 64, 14, 4},
                                         {56, 64, 56, 56, 1},
                                         {56, 64, 57, 56, 1},
                                         {56, 64, 112, 56, 2},
                                         {14, 256, 8, 4, 2},
                                         {14, 256, 64, 5, 8},
                                         {7, 512, 16, 1, 16},
                                         {1, 1000, 24, 1, 16}}) {
    INFO(e.side << " px, " << e.outputs << " outputs, " << e.workers << " workers");
    const PlaneCut cut = cut_for_workers(map_of(1, e.side, e.side), panels_for(e.outputs), e.workers);
    CHECK(cut.row_parts == e.row_parts);
    CHECK(cut.panel_parts == e.panel_parts);
  }
}

TEST_CASE("tasks: a worker more never makes the longest task longer, and no part is left out or made twice") {
  for (int64_t n : {1, 3})
    for (const auto& size : {std::pair<int64_t, int64_t>{1, 1}, {1, 70}, {3, 5}, {7, 7}, {8, 8}, {14, 14}, {28, 28}})
      for (int64_t outputs : {1, 39, 64, 79, 128, 200, 512}) {
        const auto h = size.first, w = size.second;
        const Gather g = map_of(n, h, w);
        const Panels b = panels_for(outputs);
        INFO(n << " of " << h << " x " << w << ", " << outputs << " outputs");
        double before = 1e9;
        for (int64_t workers = 1; workers <= 130; ++workers) {
          const PlaneCut cut = cut_for_workers(g, b, workers);
          CHECK(covers(cut, n * h, b.count()));
          if (cut.tasks() > workers) continue;  // of about 512 points each: more tasks than workers
          CHECK(longest_task(g, b, cut) <= before);
          before = longest_task(g, b, cut);
        }
      }
}

TEST_CASE("tasks: two threads share rows where there are two blocks of points, else panels") {
  for (int64_t n : {1, 2, 5})
    for (int64_t side : {1, 3, 5, 6, 7, 8, 9, 14, 28})
      for (int64_t outputs : {1, 39, 64, 79, 128, 192, 512}) {
        const Gather g = map_of(n, side, side);
        const Panels b = panels_for(outputs);
        const PlaneCut cut = cut_for_workers(g, b, 2);
        const int64_t all = n * side, parts = (g.points() + 1023) / 1024 * 2, rows = (all + parts - 1) / parts;
        const bool by_rows = g.points() >= 64 && all >= 2;
        INFO(n << " of " << side << " px, " << outputs << " outputs");
        CHECK(cut.rows_per_part == (by_rows ? rows : all));
        CHECK(cut.row_parts == (by_rows ? (all + rows - 1) / rows : 1));
        CHECK(cut.panel_parts == (by_rows ? 1 : std::min<int64_t>(2, b.count())));
      }
}

TEST_CASE("tasks: whole images stand for whole tasks of rows, one after the other") {
  for (const NamedShape& named : conv_shapes()) {
    const Gather g = forward_gather(named.shape);
    if (!images_innermost(g)) continue;
    INFO(named.name);
    const ImageCut cut = cut_by_images(g);
    CHECK(cut.images % kBlockImages == 0);
    CHECK(cut.tasks == (g.n + cut.images - 1) / cut.images);
    if (cut.tasks > 1) CHECK(cut.images * g.gh % grid_rows_per_task(g) == 0);
  }
  CHECK(cut_by_images(forward_gather(three(64, 8, 4, 5, 3, 1, 1))).tasks == 2);
  CHECK(cut_by_images(forward_gather(three(64, 7, 7, 3, 5, 1, 1))).tasks == 1);
}

TEST_CASE("taps: a grid point of a small map has those that meet a pixel, in order, and no others") {
  const auto taps = [](int64_t side) {
    return std::ssize(point_taps(forward_gather(three(32, side, side, 3, 3, 1, 1)), 64, 2048).segments);
  };
  CHECK(taps(1) == 1);
  CHECK(taps(2) == 16);
  CHECK(taps(4) == 100);
  CHECK(taps(7) == 361);
  for (const ConvShape& s : {three(32, 5, 3, 17, 39, 2, 1), three(32, 6, 6, 3, 3, 2, 0), three(32, 4, 7, 3, 3, 1, 1)}) {
    const Gather g = forward_gather(s);
    const PointTaps all = point_taps(g, 64, 2048);
    REQUIRE(std::ssize(all.begin) == g.gh * g.gw + 1);
    size_t next = 0;
    for (int64_t point = 0; point < g.gh * g.gw; ++point) {
      CHECK(all.begin[at(point)] == static_cast<int64_t>(next));
      for (size_t t = 0; t < g.taps.size(); ++t) {
        const int64_t y = point / g.gw * g.step + g.taps[t].dh, x = point % g.gw * g.step + g.taps[t].dw;
        if (y < 0 || y >= g.sh || x < 0 || x >= g.sw) continue;
        REQUIRE(next < all.segments.size());
        CHECK(all.segments[next].rows == (y * g.sw + x) * 32 * 64);
        CHECK(all.segments[next].panel == static_cast<int64_t>(t) * 2048);
        ++next;
      }
    }
    CHECK(all.begin.back() == static_cast<int64_t>(next));
    CHECK(next == all.segments.size());
  }
}
