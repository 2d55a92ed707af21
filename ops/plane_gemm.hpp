// The convolution driver of levels whose product kernel reads its left operand in place (GemmInt::run_strided): no
// panels of rows are packed; a task lays its source out once, as a plane, and every tap is an offset into it.
//
// Blocks of 32 points x 64 columns (8 KiB of sums; 64 points took 20 % longer at a depth of 64) are multiplied over the
// whole depth and handed to the epilogue while they are in L1. The order of every sum is fixed by the depth alone.
#pragma once
#include "ops/plane_layout.hpp"

namespace nibble {

/// How a product is cut into tasks: by grid rows (flattened over images) and, for few points, by panels.
struct PlaneCut {
  int64_t row_begin = 0, row_end = 0;  // only these grid rows
  int64_t row_parts = 1, rows_per_part = 1, panel_parts = 1;

  int64_t tasks() const { return row_parts * panel_parts; }
};
/// About 512 points a task, by shape alone: task_count(g) tasks of grid_rows_per_task(g) rows, as for gather_gemm.
PlaneCut cut_by_shape(const Gather& g);
/// For the executor, where only speed depends on it: pieces for `workers` threads.
PlaneCut cut_for_workers(const Gather& g, const Panels& b, int64_t workers);

template <typename C>
struct PlaneGemmArgs {
  const Gather& gather;
  const PlaneLayout& layout;
  const Panels& panels;
  PlaneCut cut{};
  const C* start = nullptr;  // [padded columns] what the sums begin with; null: zero
};

namespace plane_detail {

inline constexpr int64_t kBlockPoints = 32, kBlockPanels = 2;
/// Right operands up to this size stay in L2 (2 MiB where there are tiles) beside a task's source, so points are the
/// outer loop; of larger ones two panels at a time stay while all points of the task pass by.
inline constexpr int64_t kResidentPanelBytes = int64_t{1} << 20;

/// Keeps a level's kernels ready; nothing may be spawned or waited for in its lifetime.
template <typename Gemm>
class KernelScope {
 public:
  explicit KernelScope(const Gemm& gemm) : end_(gemm.end) { gemm.begin(); }
  ~KernelScope() { end_(); }
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  void (*end_)();
};

/// One task: grid rows [g0, g1), panels [n0, n1).
template <typename C, typename Gemm>
struct PlaneTask {
  const Gemm& gemm;
  const PlaneGemmArgs<C>& args;
  const TaskPlanes& planes;
  const int64_t* segments;
  int64_t task, g0, g1;
  C* c;

  int64_t first_point() const { return args.layout.plane_row(g0, args.gather.gh) * args.layout.width; }

  /// Plane points [q, q + count), relative to the first, times panels [n, last). (Asking for what the epilogue will
  /// read and write before the products begin made ResNet-50 1 to 2 % slower.)
  template <typename Epilogue>
  void block(int64_t q, int64_t count, int64_t n, int64_t last, const Epilogue& epilogue) const {
    const Panels& b = args.panels;
    const int64_t rows = round_up(count, gemm.strided_rows), ldc = (last - n) * b.nr;
    // Where no more rows may be read, the block begins earlier: its first rows are computed again and ignored.
    const int64_t back = std::max<int64_t>(0, q + rows - planes.readable);
    const kernels::StridedRows a{.first = planes.first_point + (q - back) * planes.pixel_bytes,
                                 .row_bytes = planes.pixel_bytes,
                                 .segments = segments,
                                 .segment_count = static_cast<int>(b.segments),
                                 .groups = static_cast<int>(b.segment_k / gemm.kr)};
    const int64_t column = n * b.nr, columns = std::min(b.columns, last * b.nr) - column;
    for (int64_t i = n; i < last; ++i)
      gemm.run_strided(a, static_cast<int>(rows), b.panel(i), args.start == nullptr ? nullptr : args.start + i * b.nr,
                       c + (i - n) * b.nr, ldc);
    each_run(q, count, [&](int64_t first, int64_t run, int64_t offset) {
      epilogue(task, first, run, column, columns, c + (back + offset) * ldc, ldc);
    });
  }

  /// Calls body(first grid point, points, plane points before them) for the pixels of the grid, run by run.
  template <typename Body>
  void each_run(int64_t q, int64_t count, const Body& body) const {
    const Gather& g = args.gather;
    const PlaneLayout& l = args.layout;
    if (l.width == g.gw && l.height == g.gh) {
      body(g0 * g.gw + q, count, int64_t{0});
      return;
    }
    int64_t at = first_point() + q;
    for (const int64_t begin = at, end = at + count; at < end;) {
      const int64_t row = at / l.width, j = at % l.width, image = row / l.height, i = row % l.height;
      const bool pixels = j < g.gw && i < g.gh;
      const int64_t run = std::min(end - at, (pixels ? g.gw : l.width) - j);
      if (pixels) body((image * g.gh + i) * g.gw + j, run, at - begin);
      at += run;
    }
  }

  /// Asks for the source of the block behind q, while this one is multiplied: its rows are what no
  /// hardware foresees, because a tile takes one line of each row.
  void prefetch_source(int64_t q, int64_t points) const {
    if (!args.layout.in_place) return;
    const std::byte* const from = planes.first_point + (q + kBlockPoints) * planes.pixel_bytes;
    const int64_t bytes = std::min(kBlockPoints, points - q - kBlockPoints) * planes.pixel_bytes;
    for (int64_t at = 0; at < bytes; at += kGroupBytes) __builtin_prefetch(from + at);
  }

  template <typename Epilogue>
  void run(int64_t n0, int64_t n1, const Epilogue& epilogue) const {
    const PlaneLayout& l = args.layout;
    const int64_t last_row = l.plane_row(g1 - 1, args.gather.gh);
    const int64_t points = last_row * l.width + args.gather.gw - first_point();
    const KernelScope<Gemm> ready(gemm);
    if ((n1 - n0) * args.panels.panel_bytes <= kResidentPanelBytes) {
      for (int64_t q = 0; q < points; q += kBlockPoints) {
        prefetch_source(q, points);
        for (int64_t n = n0; n < n1; n += kBlockPanels)
          block(q, std::min(kBlockPoints, points - q), n, std::min(n1, n + kBlockPanels), epilogue);
      }
    } else {
      for (int64_t n = n0; n < n1; n += kBlockPanels)
        for (int64_t q = 0; q < points; q += kBlockPoints)
          block(q, std::min(kBlockPoints, points - q), n, std::min(n1, n + kBlockPanels), epilogue);
    }
  }
};

}  // namespace plane_detail

/// Runs a whole product. `source(scratch, range)` gives a task's source rows as for gather_gemm; `epilogue(task,
/// first_point, rows, first_column, columns, c, ldc)` gets finished blocks: rows [first_point, first_point + rows) of
/// one grid row (of several where the layout has no rim). Per task every column meets its points in order. The epilogue
/// must not spawn or wait.
template <typename C, typename T, typename Gemm, typename Source, typename Epilogue>
void plane_gemm(const Gemm& gemm, const PlaneGemmArgs<C>& args, const Source& source, const Epilogue& epilogue) {
  using namespace plane_detail;
  const Gather& g = args.gather;
  const Panels& b = args.panels;
  parallel_for(args.cut.tasks(), [&](int64_t task) {
    const int64_t part = task / args.cut.panel_parts, side = task % args.cut.panel_parts;
    const int64_t g0 = args.cut.row_begin + part * args.cut.rows_per_part;
    const int64_t g1 = std::min(args.cut.row_end, g0 + args.cut.rows_per_part);
    const int64_t n0 = side * b.count() / args.cut.panel_parts, n1 = (side + 1) * b.count() / args.cut.panel_parts;
    if (g0 >= g1 || n0 >= n1) return;
    Scratch scratch;
    const TaskPlanes planes =
        lay_planes<T>(g, args.layout, source(scratch, source_rows(g, g0, g1)), b.k, g0, g1, scratch);
    int64_t* const segments = scratch.get<int64_t>(args.layout.taps.size());
    for (size_t t = 0; t < args.layout.taps.size(); ++t)
      segments[t] = args.layout.taps[t].plane * planes.plane_bytes + args.layout.taps[t].offset * planes.pixel_bytes;
    C* const c = scratch.get<C>(static_cast<size_t>((kBlockPoints + gemm.strided_rows) * kBlockPanels * b.nr));
    PlaneTask<C, Gemm>{gemm, args, planes, segments, task, g0, g1, c}.run(n0, n1, epilogue);
  });
}

}  // namespace nibble
