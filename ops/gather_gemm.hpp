// The convolution engine: gathers rows of the left operand by pointer, packs them into panels (where the kernel does
// not multiply them as they lie) and runs a GEMM kernel.
//
// One driver serves forward, gradient of the input and gradient of the weights, for every operand type, because all
// three are "for each grid point, multiply the concatenation of some source rows by a matrix". No im2col matrix exists
// beyond one block of rows.
#pragma once
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "engine/parallel.hpp"
#include "engine/scratch.hpp"
#include "engine/tensor.hpp"
#include "ops/conv_shape.hpp"
#include "ops/kernels/table.hpp"
#include "ops/memory_ahead.hpp"

namespace nibble {

/// One source row read by every grid point: (i*step + dh, j*step + dw); weights of kernel position `weight_tap`.
struct Tap {
  int64_t dh = 0, dw = 0;
  int64_t weight_tap = 0;
};

/// A grid of n x gh x gw points over a source map of n x sh x sw pixels. Taps that fall outside read the pad row.
struct Gather {
  int64_t n = 0, gh = 0, gw = 0;
  int64_t sh = 0, sw = 0;
  int64_t step = 1;
  std::vector<Tap> taps;
  int64_t rows_together = 1;  // grid rows that tasks of a training step never part: those of a tile (ops/winograd.hpp)

  int64_t points() const { return n * gh * gw; }
  /// Whether its rows of the source are read whole: a 1x1 kernel of stride 2 reads every fourth pixel.
  bool reads_all() const { return static_cast<int64_t>(taps.size()) >= step * step; }
};

/// Grid = output pixels, source = input pixels.
Gather forward_gather(const ConvShape& s);

/// The same for a stem whose channels are few: the source is the image padded on all sides with rows of (w + pads)*ic
/// contiguous elements, one tap is a whole kernel row of kw*ic elements, nothing falls outside.
Gather row_folded_gather(const ConvShape& s);

/// Grid = one residue class of input pixels (row = i*stride + row_phase), source = output pixels. With stride 2 a class
/// meets only its own taps, so no zero is multiplied; a class without taps has an all-zero gradient.
struct InputGradientClass {
  Gather gather;
  int64_t row_phase = 0, column_phase = 0;
};
std::vector<InputGradientClass> input_gradient_classes(const ConvShape& s);

/// The right operand in panels of one GEMM kernel: for each block of nr columns all segments (taps) in sequence.
struct Panels {
  Tensor storage;
  int64_t columns = 0, k = 0, segments = 0;  // k: elements of one segment
  int64_t segment_k = 0;                     // k rounded up to the kernel's granule
  int64_t panel_bytes = 0;
  int nr = 0;

  int64_t count() const { return nr == 0 ? 0 : ceil_div(columns, nr); }
  int64_t padded_columns() const { return count() * nr; }
  const std::byte* panel(int64_t p) const { return storage.raw() + p * panel_bytes; }
};

/// Panels for `segments` segments of k elements, not filled.
template <typename Gemm>
Panels make_panels(const Gemm& gemm, int64_t segments, int64_t k, int64_t columns) {
  Panels p;
  p.columns = columns;
  p.k = k;
  p.segments = segments;
  p.segment_k = round_up(k, gemm.kr);
  p.nr = gemm.nr;
  p.panel_bytes = round_up(segments * gemm.nr * p.segment_k * gemm.b_bytes, static_cast<int64_t>(kAlignment));
  p.storage = Tensor(DType::u8, {p.count(), p.panel_bytes});
  return p;
}

/// A right operand in memory: element (tap t, k, column n) = data[t*tap_stride + k*k_stride + n*n_stride].
template <typename T>
struct PanelSource {
  const T* data = nullptr;
  int64_t tap_stride = 0, k_stride = 0, n_stride = 0;
};

/// The part of a right operand that is packed at once: of every segment elements [k0, k0 + k), of these columns
/// [n0, n0 + columns). k0 is a multiple of kr, n0 of nr; so are k and columns, unless they end the operand.
struct PanelPart {
  int64_t k0 = 0, k = 0, n0 = 0, columns = 0;
};

/// Packs one part of the panels; `src` begins with the part's first element and has the listed taps.
template <typename Gemm, typename T>
void pack_part(const Gemm& gemm, const Panels& p, const PanelSource<T>& src, const std::vector<Tap>& taps,
               const PanelPart& part) {
  const int64_t granule_bytes = int64_t{gemm.nr} * gemm.b_bytes, segment_bytes = granule_bytes * p.segment_k;
  for (int64_t n = 0; n < part.columns; n += gemm.nr) {
    const int width = static_cast<int>(std::min<int64_t>(gemm.nr, part.columns - n));
    std::byte* to = p.storage.raw() + (part.n0 + n) / gemm.nr * p.panel_bytes + part.k0 * granule_bytes;
    for (const Tap& tap : taps) {
      gemm.pack_b(src.data + tap.weight_tap * src.tap_stride + n * src.n_stride, src.k_stride, src.n_stride,
                  static_cast<int>(part.k), width, to);
      to += segment_bytes;
    }
  }
}

/// All of it.
template <typename Gemm, typename T>
Panels pack_panels(const Gemm& gemm, const PanelSource<T>& src, const std::vector<Tap>& taps, int64_t k,
                   int64_t columns) {
  const Panels p = make_panels(gemm, static_cast<int64_t>(taps.size()), k, columns);
  parallel_for(p.count(), [&](int64_t b) {
    const int64_t n0 = b * gemm.nr;
    PanelSource<T> from = src;
    from.data += n0 * src.n_stride;
    pack_part(gemm, p, from, taps, {.k = k, .n0 = n0, .columns = std::min<int64_t>(gemm.nr, columns - n0)});
  });
  return p;
}

/// The source rows of one task, each segment readable to the end of its last k-group (round_up(k, kr) elements), as the
/// pad is: rows [first_row, ...) of the flattened (image, row) index, `stride` elements per pixel.
template <typename T>
struct SourceRows {
  const T* data = nullptr;
  int64_t first_row = 0;
  int64_t stride = 0;
  const T* pad = nullptr;    // read by taps outside the map, as long as one segment; no pixel's row
  bool pad_is_zero = false;  // all of it: taps outside may then be left out

  const T* zeros() const { return pad_is_zero ? pad : nullptr; }
};

/// The range of flattened source rows that grid rows [g0, g1) touch.
struct RowRange {
  int64_t begin = 0, end = 0;
};
RowRange source_rows(const Gather& g, int64_t g0, int64_t g1);

/// Grid rows (of gw points) per task: about 512 points, so that a task is worth a spawn and its source stays in L2; a
/// multiple of rows_together.
int64_t grid_rows_per_task(const Gather& g);

/// Rows of one block: 48 is a multiple of every kernel's tile height except 14 and 32, which round up; with the longest
/// chunk below a block is at most 64 * 512 * 4 bytes = 128 KiB, a quarter of the smallest L2 we know.
inline constexpr int64_t kBlockRows = 48;
inline constexpr int64_t kChunkK = 512;

/// Fills pointers[t * rows + r] = source row of grid point first + r under tap t.
template <typename T>
void point_rows(const Gather& g, const SourceRows<T>& src, int64_t first, int64_t rows, const T** pointers) {
  // Run by run of neighbours in one grid row: a division per point cost more than its pointers.
  for (int64_t r = 0; r < rows;) {
    const int64_t j = (first + r) % g.gw, row = (first + r) / g.gw, i = row % g.gh, image = row / g.gh;
    const int64_t run = std::min(rows - r, g.gw - j);
    for (size_t t = 0; t < g.taps.size(); ++t) {
      const T** to = pointers + static_cast<int64_t>(t) * rows + r;
      const int64_t y = i * g.step + g.taps[t].dh, x = j * g.step + g.taps[t].dw;
      if (y < 0 || y >= g.sh) {
        std::fill_n(to, run, src.pad);
        continue;
      }
      const int64_t line = (image * g.sh + y - src.first_row) * g.sw;
      for (int64_t k = 0; k < run; ++k) {
        const int64_t at = x + k * g.step;
        to[k] = at >= 0 && at < g.sw ? src.data + (line + at) * src.stride : src.pad;
      }
    }
    r += run;
  }
}

/// A part of the depth that is multiplied at once, packed before or not: a run of whole segments, or a part of one long
/// segment.
struct Chunk {
  int64_t tap = 0, taps = 1;  // segments [tap, tap + taps)
  int64_t k0 = 0, k = 0;      // elements [k0, k0 + k) of each, padding included

  int64_t depth() const { return taps * k; }
};

/// Calls body(chunk) in the one order of every sum, fixed by the shape of b.
template <typename Body>
void for_each_chunk(const Panels& b, int kr, const Body& body) {
  const int64_t part = round_up(std::min(b.segment_k, kChunkK), kr);
  const int64_t whole = b.segment_k > part ? 1 : std::max<int64_t>(1, kChunkK / b.segment_k);
  for (int64_t t = 0; t < b.segments; t += whole)
    for (int64_t k0 = 0; k0 < b.segment_k; k0 += part)
      body(Chunk{.tap = t, .taps = std::min(whole, b.segments - t), .k0 = k0, .k = std::min(part, b.segment_k - k0)});
}

/// Bytes of one A panel of a chunk.
template <typename Gemm>
int64_t chunk_panel_bytes(const Gemm& gemm, const Chunk& chunk) {
  return round_up(gemm.mr * chunk.depth() * gemm.a_bytes, static_cast<int64_t>(kAlignment));
}

/// Packs one chunk of `rows` gathered rows into A panels at `a`.
template <typename Gemm, typename T>
void pack_chunk(const Gemm& gemm, const Panels& b, const Chunk& chunk, const T* const* pointers, int64_t rows,
                std::byte* a) {
  constexpr int kMostRows = 64;
  const T* shifted[kMostRows];
  const int64_t panel_bytes = chunk_panel_bytes(gemm, chunk);
  const int k = static_cast<int>(std::min(chunk.k, b.k - chunk.k0));
  for (int64_t r0 = 0; r0 < rows; r0 += gemm.mr, a += panel_bytes) {
    const int m = static_cast<int>(std::min<int64_t>(gemm.mr, rows - r0));
    for (int64_t s = 0; s < chunk.taps; ++s) {
      const T* const* from = pointers + (chunk.tap + s) * rows + r0;
      if (chunk.k0 > 0) {
        for (int r = 0; r < m; ++r) shifted[r] = from[r] + chunk.k0;
        from = shifted;
      }
      gemm.pack_a(from, m, k, a + s * gemm.mr * chunk.k * gemm.a_bytes);
    }
  }
}

/// Whether the kernel multiplies gathered rows where they lie: packed panels are not needed then. Segments of floats
/// must fill their last group, because what lies after them might not be a number.
template <typename Gemm>
bool multiplies_in_place(const Gemm& gemm, const Panels& b) {
  using T = typename Gemm::Left;
  return gemm.run_gathered != nullptr && (std::is_integral_v<T> || b.k == b.segment_k);
}

/// Right operands up to this size stay in the second-level caches (512 KiB and more) together with a block.
inline constexpr int64_t kKeptPanelBytes = int64_t{256} << 10;

/// What a product prefetches while it multiplies: the part of the right operand that it multiplies next.
struct PanelsAhead {
  bool asked = false;               // false: the panels are in cache already
  const std::byte* then = nullptr;  // what is multiplied after the last part; null: nothing, or it is in cache
  MemoryAhead* source = nullptr;    // prefetched where the panels are in cache; null: nothing (Winograd gains nothing)

  const std::byte* take_source(int64_t piece_bytes) const {
    return source != nullptr ? source->take(piece_bytes) : nullptr;
  }
};

/// For a block that multiplies panels up to `last` of a task's [n0, n1): the first block brings all of them into the
/// second-level cache.
inline PanelsAhead panels_ahead(const Panels& b, int64_t n0, int64_t n1, int64_t last, bool first_block,
                                bool last_block, MemoryAhead* source = nullptr) {
  const bool kept = (n1 - n0) * b.panel_bytes <= kKeptPanelBytes;
  if (kept && !first_block) return {.source = source};
  return {true, last < n1 ? b.panel(last) : kept || last_block ? nullptr : b.panel(n0), source};
}

inline int64_t task_count(const Gather& g) {
  const int64_t per = grid_rows_per_task(g), all = g.n * g.gh;
  return ceil_div(all, per);
}

/// Where the source knows it: the rows of the task after grid row g1. Nothing where there are so many threads that
/// another one is likely to get that task (measured with two threads only).
template <typename Source>
MemoryAhead next_task_rows(const Source& source, const Gather& g, int64_t g1) {
  if (task_count(g) < 2 * threads()) return {};
  if constexpr (requires { source.ahead(RowRange{}); })
    if (const int64_t g2 = std::min(g.n * g.gh, g1 + grid_rows_per_task(g)); g1 < g2)
      return source.ahead(source_rows(g, g1, g2));
  return {};
}

/// The part that is multiplied after panel n of this chunk, of panels [first, last).
inline const std::byte* next_part(const Panels& b, int64_t granule_bytes, const Chunk& chunk, int64_t n, int64_t first,
                                  int64_t last, const PanelsAhead& ahead) {
  if (!ahead.asked) return ahead.take_source(chunk.depth() * granule_bytes);
  const int64_t offset = (chunk.tap * b.segment_k + chunk.k0) * granule_bytes;
  if (n + 1 < last) return b.panel(n + 1) + offset;
  if (chunk.k0 + chunk.k < b.segment_k) return b.panel(first) + offset + chunk.k * granule_bytes;
  if (chunk.tap + chunk.taps < b.segments)
    return b.panel(first) + (chunk.tap + chunk.taps) * b.segment_k * granule_bytes;
  return ahead.then;
}

/// multiply_chunk without packing.
template <typename Gemm, typename T, typename C>
void multiply_chunk_in_place(const Gemm& gemm, const Panels& b, const Chunk& chunk, const T* const* pointers,
                             const T* zeros, int64_t rows, int64_t first, int64_t last, C* c, int64_t ldc,
                             kernels::Into into, const PanelsAhead& ahead) {
  const int64_t granule_bytes = int64_t{b.nr} * gemm.b_bytes;
  const int64_t offset = (chunk.tap * b.segment_k + chunk.k0) * granule_bytes;
  // Read as pointers to void, which compilers take for an alias of every pointer.
  const kernels::GatheredRows a{.rows = reinterpret_cast<const void* const*>(pointers + chunk.tap * rows),
                                .segment_stride = rows,
                                .segments = static_cast<int>(chunk.taps),
                                .first_byte = chunk.k0 * static_cast<int64_t>(sizeof(T)),
                                .groups = static_cast<int>(chunk.k / gemm.kr),
                                .zeros = zeros};
  for (int64_t n = first; n < last; ++n)
    gemm.run_gathered(a, static_cast<int>(rows), b.panel(n) + offset, c + (n - first) * b.nr, ldc, into,
                      next_part(b, granule_bytes, chunk, n, first, last, ahead));
}

/// Multiplies packed rows by panels [first, last) of b into c, whose column 0 is the first panel's.
template <typename Gemm, typename C>
void multiply_chunk(const Gemm& gemm, const Panels& b, const Chunk& chunk, const std::byte* a, int64_t rows,
                    int64_t first, int64_t last, C* c, int64_t ldc, kernels::Into into, const PanelsAhead& ahead) {
  const int64_t granule_bytes = int64_t{b.nr} * gemm.b_bytes;
  const int64_t offset = (chunk.tap * b.segment_k + chunk.k0) * granule_bytes;
  for (int64_t n = first; n < last; ++n)
    gemm.run(static_cast<int>(chunk.depth()), static_cast<int>(rows), a, chunk_panel_bytes(gemm, chunk),
             b.panel(n) + offset, c + (n - first) * b.nr, ldc, into,
             next_part(b, granule_bytes, chunk, n, first, last, ahead));
}

/// Multiplies `rows` gathered rows (pointers[t*rows + r], segments of b.k elements; `zeros` stands for a row of zeros)
/// by all panels of b into c [round_up(rows, mr), b.padded_columns()]. The order of every sum is fixed by the shape of
/// b.
template <typename Gemm, typename T, typename C>
void multiply_rows(const Gemm& gemm, const Panels& b, const T* const* pointers, int64_t rows, C* c, int64_t ldc,
                   const T* zeros = nullptr, const PanelsAhead& ahead = {}) {
  const int64_t m_panels = ceil_div(rows, gemm.mr);
  const bool in_place = multiplies_in_place(gemm, b);
  kernels::Into into = kernels::Into::kOverwrite;
  for_each_chunk(b, gemm.kr, [&](const Chunk& chunk) {
    if (in_place) {
      multiply_chunk_in_place(gemm, b, chunk, pointers, zeros, rows, 0, b.count(), c, ldc, into, ahead);
      into = kernels::Into::kAccumulate;
      return;
    }
    Scratch scratch;
    auto* a = scratch.get<std::byte>(static_cast<size_t>(m_panels * chunk_panel_bytes(gemm, chunk)));
    pack_chunk(gemm, b, chunk, pointers, rows, a);
    multiply_chunk(gemm, b, chunk, a, rows, 0, b.count(), c, ldc, into, ahead);
    into = kernels::Into::kAccumulate;
  });
}

/// What a product's task does around its blocks: before the first one, with memory until the task ends, and once its
/// part of the grid rows [g0, g1) is finished. This one: nothing.
struct NothingMore {
  void begin(Scratch& /*scratch*/, int64_t /*task*/, int64_t /*g0*/, int64_t /*g1*/) const {}
  void end(int64_t /*task*/, int64_t /*g0*/, int64_t /*g1*/) const {}
};

/// Runs a whole gathered product. `source(scratch, range)` gives the task's source rows; `epilogue(task, first_point,
/// rows, c, ldc)` gets each finished block; around them see NothingMore. Tasks are cut by shape, run in parallel, and
/// number task_count(g).
template <typename C, typename T, typename Gemm, typename Source, typename Epilogue, typename Around = NothingMore>
void gather_gemm(const Gemm& gemm, const Gather& g, const Panels& b, const Source& source, const Epilogue& epilogue,
                 Around&& around = {}) {
  const int64_t per = grid_rows_per_task(g), all = g.n * g.gh;
  const int64_t ldc = b.padded_columns(), block = round_up(kBlockRows, gemm.mr);
  parallel_for(task_count(g), [&](int64_t task) {
    const int64_t g0 = task * per, g1 = std::min(all, g0 + per);
    Scratch scratch;
    around.begin(scratch, task, g0, g1);
    const SourceRows<T> rows_from = source(scratch, source_rows(g, g0, g1));
    C* c = scratch.get<C>(static_cast<size_t>(block * ldc));
    const T** pointers = scratch.get<const T*>(static_cast<size_t>(block) * std::max<size_t>(1, g.taps.size()));
    MemoryAhead next_rows = next_task_rows(source, g, g1);
    for (int64_t first = g0 * g.gw; first < g1 * g.gw; first += block) {
      const int64_t rows = std::min(block, g1 * g.gw - first);
      point_rows(g, rows_from, first, rows, pointers);
      multiply_rows(
          gemm, b, pointers, rows, c, ldc, rows_from.zeros(),
          panels_ahead(b, 0, b.count(), b.count(), first == g0 * g.gw, first + block >= g1 * g.gw, &next_rows));
      epilogue(task, first, rows, c, ldc);
    }
    around.end(task, g0, g1);
  });
}

/// How a product is cut when only its speed depends on it (exact sums, or sums whose order the depth alone fixes):
/// `tasks` pieces of about equal size for the threads that have nothing else to do; by points, or by panels where
/// points are few.
struct ServingCut {
  int64_t point_parts = 1, panel_parts = 1;

  int64_t tasks() const { return point_parts * panel_parts; }
};
ServingCut cut_for_serving(const Gather& g, const Panels& b, int64_t workers);

/// Rows of a block: 48 as above, or fewer so that blocks of `points` are alike (196 points: 42 each, not 48 and 4).
/// One image took 1.00 to 1.02 times as long in blocks of 28, 1.06 in blocks of 14 (one thread of a Zen 5).
int64_t serving_block_rows(int64_t points, int64_t mr);

/// What an epilogue gets after this: rows from grid point `point` on, columns from `column` on. point -1: not known.
struct NextBlock {
  int64_t point = -1, column = 0;
};

struct ServingGemmArgs {
  const Gather& gather;
  const Panels& panels;
  int64_t workers = 1;        // threads this product may keep busy
  int64_t block_columns = 0;  // columns the epilogue gets at a time, rounded up to a panel; 0: all
};

/// The gathered product of the executor. Where rows are packed, blocks whose packed rows are smaller than their sums
/// (expanding 1x1 layers) are packed once, over the whole depth; then a few columns at a time are multiplied and handed
/// to `epilogue(first_point, rows, first_column, columns, c, ldc, next)` while they are hot. The others go chunk by
/// chunk. start: [padded columns] what the sums begin with; null: zero.
template <typename C, typename T, typename Gemm, typename Source, typename Epilogue>
void serving_gemm(const Gemm& gemm, const ServingGemmArgs& args, const C* start, const Source& source,
                  const Epilogue& epilogue) {
  const Gather& g = args.gather;
  const Panels& b = args.panels;
  const ServingCut cut = cut_for_serving(g, b, args.workers);
  const bool in_place = multiplies_in_place(gemm, b);
  const bool expands = b.segments * b.segment_k * gemm.a_bytes <= b.padded_columns() * static_cast<int64_t>(sizeof(C));
  parallel_for(cut.tasks(), [&](int64_t task) {
    const int64_t part = task / cut.panel_parts, side = task % cut.panel_parts;
    const int64_t p0 = part * g.points() / cut.point_parts, p1 = (part + 1) * g.points() / cut.point_parts;
    const int64_t n0 = side * b.count() / cut.panel_parts, n1 = (side + 1) * b.count() / cut.panel_parts;
    const int64_t hot = expands && args.block_columns > 0 ? ceil_div(args.block_columns, b.nr) : n1 - n0;
    const int64_t at_once = std::min(n1 - n0, hot), ldc = at_once * b.nr, block = serving_block_rows(p1 - p0, gemm.mr);
    Scratch scratch;
    const SourceRows<T> rows_from = source(scratch, source_rows(g, p0 / g.gw, (p1 - 1) / g.gw + 1));
    C* c = scratch.get<C>(static_cast<size_t>(block * ldc));
    const T** pointers = scratch.get<const T*>(static_cast<size_t>(block) * std::max<size_t>(1, g.taps.size()));
    // For floats none is left out here: tiles depend on the number of threads, and the sign of a zero on what is left
    // out.
    const T* const zeros = std::is_integral_v<T> ? rows_from.zeros() : nullptr;
    int64_t a_bytes = 0;
    for_each_chunk(b, gemm.kr, [&](const Chunk& chunk) {
      const int64_t bytes = block / gemm.mr * chunk_panel_bytes(gemm, chunk);
      a_bytes = expands ? a_bytes + bytes : std::max(a_bytes, bytes);
    });
    auto* a = in_place ? nullptr : scratch.get<std::byte>(static_cast<size_t>(a_bytes));
    for (int64_t first = p0; first < p1; first += block) {
      const int64_t rows = std::min(block, p1 - first), m_panels = ceil_div(rows, gemm.mr);
      point_rows(g, rows_from, first, rows, pointers);
      for (int64_t n = n0; n < n1; n += at_once) {
        const int64_t last = std::min(n1, n + at_once);
        const PanelsAhead ahead = panels_ahead(b, n0, n1, last, first == p0, first + block >= p1);
        kernels::Into into = start != nullptr ? kernels::Into::kAccumulate : kernels::Into::kOverwrite;
        for (int64_t r = 0; r < m_panels * gemm.mr && start != nullptr; ++r)
          std::copy_n(start + n * b.nr, (last - n) * b.nr, c + r * ldc);
        std::byte* packed = a;
        for_each_chunk(b, gemm.kr, [&](const Chunk& chunk) {
          if (in_place) {
            multiply_chunk_in_place(gemm, b, chunk, pointers, zeros, rows, n, last, c, ldc, into, ahead);
          } else {
            if (n == n0) pack_chunk(gemm, b, chunk, pointers, rows, packed);
            multiply_chunk(gemm, b, chunk, packed, rows, n, last, c, ldc, into, ahead);
          }
          if (expands && !in_place) packed += m_panels * chunk_panel_bytes(gemm, chunk);
          into = kernels::Into::kAccumulate;
        });
        NextBlock next;
        if (last < n1)
          next = {first, last * b.nr};
        else if (first + block < p1)
          next = {first + block, n0 * b.nr};
        epilogue(first, rows, n * b.nr, std::min(b.columns, last * b.nr) - n * b.nr, c, ldc, next);
      }
    }
  });
}

}  // namespace nibble
