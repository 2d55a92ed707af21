// The convolution driver of levels whose product kernel reads its left operand in place (GemmInt::run_strided): no
// panels of rows are packed; a task lays its source out once, as a plane, and every tap is an offset into it.
//
// Blocks of 32 points x 64 columns are multiplied over the whole depth and handed to the epilogue while they are in L1
// (block_pipeline.hpp). The order of every sum is fixed by the depth alone.
#pragma once
#include "ops/block_pipeline.hpp"
#include "ops/plane_cut.hpp"
#include "ops/plane_layout.hpp"

namespace nibble {

template <typename C>
struct PlaneGemmArgs {
  const Gather& gather;
  const PlaneLayout& layout;
  const Panels& panels;
  PlaneCut cut{};
  const C* start = nullptr;  // [padded columns] what the sums begin with; null: zero
};

namespace plane_detail {

inline constexpr int64_t kBlockPoints = block_pipeline::kRows, kBlockPanels = block_pipeline::kPanels;
/// Right operands up to this size stay in L2 (2 MiB where there are tiles) together with a task's source, so points are
/// the outer loop; of larger ones two panels at a time stay while all points of the task pass by.
inline constexpr int64_t kResidentPanelBytes = int64_t{1} << 20;

/// Room for the sums of one block.
template <typename Gemm>
int64_t block_sums(const Gemm& gemm, const Panels& b) {
  return (kBlockPoints + gemm.strided_rows) * kBlockPanels * b.nr;
}

/// One task: grid rows [g0, g1), panels [n0, n1).
template <typename C, typename Gemm>
struct PlaneTask {
  const Gemm& gemm;
  const PlaneGemmArgs<C>& args;
  const TaskPlanes& planes;
  const kernels::Segment* segments;
  int groups;  // of 64 bytes, of one segment
  int64_t task, g0, g1;
  C* c;

  int64_t first_point() const { return args.layout.plane_row(g0, args.gather.gh) * args.layout.width; }

  /// Sums of plane points [q, q + count), relative to the first, from row `back` of c on. The kernel multiplies `rows`.
  struct Block : block_pipeline::Block {
    int64_t q = 0, rows = 0, back = 0;
  };

  Block block(int64_t q, int64_t points, int64_t n, int64_t n1) const {
    const int64_t count = std::min(kBlockPoints, points - q);
    Block b{{.count = count, .n = n, .last = std::min(n1, n + kBlockPanels)},
            q,
            count == kBlockPoints ? count : round_up(count, gemm.strided_rows)};
    // Where no more rows may be read, the block begins earlier: its first rows are computed again and ignored.
    b.back = std::max<int64_t>(0, q + b.rows - planes.readable);
    return b;
  }

  /// The product of the block with panel i, which the first block brings into L2.
  kernels::HeldSums<C> multiply(const Block& block, int64_t i, const kernels::HeldSums<C>& held) const {
    const Panels& b = args.panels;
    const kernels::StridedRows a{.first = planes.first_point + (block.q - block.back) * planes.pixel_bytes,
                                 .row_bytes = planes.pixel_bytes,
                                 .segments = segments,
                                 .segment_count = static_cast<int>(b.segments),
                                 .groups = groups};
    gemm.run_strided(a, static_cast<int>(block.rows), b.panel(i),
                     block.q == 0 ? kernels::PanelIn::kMemory : kernels::PanelIn::kCache,
                     args.start == nullptr ? nullptr : args.start + i * b.nr, held);
    return block.sums(b, i, block.rows, c);
  }

  /// Hands the block to the epilogue; `next` is the block after it, if there is one.
  template <typename Epilogue>
  void finish(const Block& block, const Block& next, const Epilogue& epilogue) const {
    const int64_t column = block.column(args.panels), columns = block.columns(args.panels),
                  ldc = block.ldc(args.panels);
    each_run(block.q, block.count, [&](int64_t first, int64_t run, int64_t offset) {
      const auto* const sums = c + (block.back + offset) * ldc;
      if constexpr (requires { epilogue(task, first, run, column, columns, sums, ldc, NextBlock{}); })
        epilogue(task, first, run, column, columns, sums, ldc, start_of(next));
      else
        epilogue(task, first, run, column, columns, sums, ldc);
    });
  }

  /// Where the rows of a block are, if that is easily told.
  NextBlock start_of(const Block& block) const {
    if (!rimless() || block.count == 0) return {};
    return {g0 * args.gather.gw + block.q, block.n * args.panels.nr};
  }
  bool rimless() const { return args.layout.width == args.gather.gw && args.layout.height == args.gather.gh; }

  /// Calls body(first grid point, points, plane points before them) for the pixels of the grid, run by run.
  template <typename Body>
  void each_run(int64_t q, int64_t count, const Body& body) const {
    const Gather& g = args.gather;
    const PlaneLayout& l = args.layout;
    if (rimless()) {
      body(g0 * g.gw + q, count, int64_t{0});
      return;
    }
    const auto at = static_cast<uint64_t>(first_point() + q), width = static_cast<uint64_t>(l.width);
    const uint64_t row = at / width, height = static_cast<uint64_t>(l.height);
    int64_t j = static_cast<int64_t>(at % width), i = static_cast<int64_t>(row % height);
    int64_t grid_row = static_cast<int64_t>(row / height) * g.gh + std::min(i, g.gh);
    for (int64_t done = 0; done < count;) {
      const int64_t pixels = i < g.gh ? std::min(count - done, g.gw - j) : 0;
      if (pixels > 0) body(grid_row * g.gw + j, pixels, done);
      done += l.width - j;
      j = 0;
      if (i < g.gh) ++grid_row;
      if (++i == l.height) i = 0;
    }
  }

  template <typename Epilogue>
  void run(int64_t n0, int64_t n1, const Epilogue& epilogue) const {
    const PlaneLayout& l = args.layout;
    const int64_t last_row = l.plane_row(g1 - 1, args.gather.gh);
    const int64_t points = last_row * l.width + args.gather.gw - first_point();
    const block_pipeline::KernelScope<Gemm> ready(gemm);
    block_pipeline::Pipeline<C, Block> pipeline;
    const auto to_product = [&](const Block& now, int64_t i, const kernels::HeldSums<C>& held) {
      return multiply(now, i, held);
    };
    const auto to_epilogue = [&](const Block& done, const Block& now) { finish(done, now, epilogue); };
    const auto next = [&](int64_t q, int64_t n) { pipeline.next(block(q, points, n, n1), to_product, to_epilogue); };
    if ((n1 - n0) * args.panels.panel_bytes <= kResidentPanelBytes) {
      for (int64_t q = 0; q < points; q += kBlockPoints) {
        for (int64_t n = n0; n < n1; n += kBlockPanels) next(q, n);
      }
    } else {
      for (int64_t n = n0; n < n1; n += kBlockPanels)
        for (int64_t q = 0; q < points; q += kBlockPoints) next(q, n);
    }
    pipeline.drain(gemm, to_epilogue);
  }
};

}  // namespace plane_detail

/// Runs a whole product. `source(scratch, range)` gives a task's source rows as for gather_gemm; `epilogue(task,
/// first_point, rows, first_column, columns, c, ldc)` gets finished blocks: rows [first_point, first_point + rows) of
/// one grid row (of several where the layout has no rim). Per task every column meets its points in order. The epilogue
/// must not spawn or wait; one that takes a NextBlock after these is told what it will get next. For what surrounds a
/// task's blocks see NothingMore.
template <typename C, typename T, typename Gemm, typename Source, typename Epilogue, typename Around = NothingMore>
void plane_gemm(const Gemm& gemm, const PlaneGemmArgs<C>& args, const Source& source, const Epilogue& epilogue,
                Around&& around = {}) {
  using namespace plane_detail;
  const Gather& g = args.gather;
  const Panels& b = args.panels;
  parallel_for(args.cut.tasks(), [&](int64_t task) {
    const int64_t part = task / args.cut.panel_parts, side = task % args.cut.panel_parts;
    const int64_t g0 = args.cut.row_begin + part * args.cut.rows_per_part;
    const int64_t g1 = std::min(args.cut.row_end, g0 + args.cut.rows_per_part);
    const int64_t n0 = args.cut.first_panel(side, b.count()), n1 = args.cut.first_panel(side + 1, b.count());
    if (g0 >= g1 || n0 >= n1) return;
    Scratch scratch;
    const int64_t name = args.cut.first_task + task;
    around.begin(scratch, name, g0, g1);
    const TaskPlanes planes =
        lay_planes<T>(g, args.layout, source(scratch, source_rows(g, g0, g1)), b.k, g0, g1, scratch);
    const std::vector<PlaneLayout::PlaneTap>& taps = args.layout.taps;
    auto* const segments = scratch.get<kernels::Segment>(taps.size());
    for (size_t t = 0; t < taps.size(); ++t)
      segments[t] = {.rows = taps[t].plane * planes.plane_bytes + taps[t].offset * planes.pixel_bytes,
                     .panel = static_cast<int64_t>(t) * b.segment_k * b.nr * gemm.b_bytes};
    C* const c = scratch.get<C>(static_cast<size_t>(block_sums(gemm, b)));
    PlaneTask<C, Gemm>{gemm, args, planes, segments, static_cast<int>(b.segment_k / gemm.kr), name, g0, g1, c}.run(
        n0, n1, epilogue);
    around.end(name, g0, g1);
  });
}

}  // namespace nibble
