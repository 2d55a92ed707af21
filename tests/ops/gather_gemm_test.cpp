// The gathered product: geometry of forward and gradient grids, bounds of what a task reads, chunks of long sums.
#include "ops/gather_gemm.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include "ops/packed_source.hpp"
#include "ops/serving_gemm.hpp"
#include "ops/winograd.hpp"
#include "tests/ops/packed_layers.hpp"
#include "tests/threads_guard.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

std::vector<NamedShape> all_shapes() {
  std::vector<NamedShape> all = conv_shapes();
  for (const NamedShape& s : first_layer_shapes()) all.push_back(s);
  return all;
}

/// (output pixel, input pixel, kernel position) of every product, by definition.
using Relation = std::set<std::tuple<int64_t, int64_t, int64_t>>;

Relation relation_of(ConvShape s) {
  s.ic = s.oc = 1;
  Relation all;
  for_each_product(s, [&](size_t o, size_t i, size_t k) {
    all.insert({static_cast<int64_t>(o), static_cast<int64_t>(i), static_cast<int64_t>(k)});
  });
  return all;
}

/// Calls body(grid point, source pixel, tap) for every tap that falls inside.
template <typename Body>
void for_each_tap(const Gather& g, const Body& body) {
  for (int64_t point = 0; point < g.points(); ++point)
    for (const Tap& t : g.taps) {
      const int64_t y = point / g.gw % g.gh * g.step + t.dh, x = point % g.gw * g.step + t.dw;
      if (y < 0 || y >= g.sh || x < 0 || x >= g.sw) continue;
      body(point, (point / (g.gw * g.gh) * g.sh + y) * g.sw + x, t);
    }
}

/// Multiplies random operands of `segments` taps of k elements with both int and float kernels of the level.
template <typename T, typename W, typename C, typename Gemm>
std::vector<C> product(const Gemm& gemm, const std::vector<T>& a, const std::vector<W>& b, int64_t rows,
                       int64_t segments, int64_t k, int64_t columns) {
  // a[row][segment][k]; b[column][segment][k]
  std::vector<Tap> taps;
  for (int64_t t = 0; t < segments; ++t) taps.push_back({0, 0, t});
  const Panels panels =
      pack_panels(gemm, PanelSource<W>{.data = b.data(), .tap_stride = k, .k_stride = 1, .n_stride = segments * k},
                  taps, k, columns);
  CHECK(panels.padded_columns() % gemm.nr == 0);
  CHECK(panels.padded_columns() >= columns);
  // A kernel may read a segment to the end of its last group; what it finds there is not in the sums.
  std::vector<T> readable = a;
  T behind;
  std::memset(static_cast<void*>(&behind), 0x7f, sizeof behind);
  readable.insert(readable.end(), at(gemm.kr - 1), behind);
  std::vector<const T*> pointers;
  for (int64_t t = 0; t < segments; ++t)
    for (int64_t r = 0; r < rows; ++r) pointers.push_back(readable.data() + (r * segments + t) * k);
  const int64_t ldc = panels.padded_columns(), all_rows = round_up(rows, gemm.mr);
  constexpr int64_t kGuard = 64;
  std::vector<C> c(at(all_rows * ldc + kGuard), C{77});
  multiply_rows(gemm, panels, pointers.data(), rows, c.data(), ldc);
  for (int64_t i = 0; i < kGuard; ++i) CHECK(c[at(all_rows * ldc + i)] == C{77});
  std::vector<C> out;
  for (int64_t r = 0; r < rows; ++r) out.insert(out.end(), c.begin() + r * ldc, c.begin() + r * ldc + columns);
  return out;
}

struct DepthSize {
  int64_t segments, k;
};
constexpr DepthSize kSizes[] = {{1, 1},   {1, 3},    {1, 63},   {1, 64},   {1, 65},  {1, 511}, {1, 512}, {1, 513},
                                {1, 600}, {1, 1024}, {1, 1030}, {1, 1537}, {2, 513}, {3, 170}, {3, 171}, {9, 1},
                                {9, 39},  {9, 64},   {9, 130},  {9, 512},  {4, 600}, {7, 21}};

struct Case {
  int64_t rows, columns;
};
constexpr Case kCases[] = {{1, 1}, {5, 39}, {48, 17}, {15, 64}};

/// Sum over segments and k of a*b in double, with magnitudes.
template <typename T, typename W>
Sums reference(const std::vector<T>& a, const std::vector<W>& b, int64_t rows, int64_t depth, int64_t columns,
               double (*value_a)(T), double (*value_b)(W)) {
  Sums c(rows * columns);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t n = 0; n < columns; ++n)
      for (int64_t i = 0; i < depth; ++i)
        c.add(at(r * columns + n), value_a(a[at(r * depth + i)]) * value_b(b[at(n * depth + i)]));
  return c;
}

void check_int(const kernels::GemmInt& gemm, int largest_a, int largest_b) {
  for (const DepthSize size : kSizes)
    for (const Case shape : kCases) {
      const int64_t depth = size.segments * size.k;
      std::vector<uint8_t> a;
      std::vector<int8_t> b;
      for (const int v : random_codes(shape.rows * depth, 0, largest_a, 51)) a.push_back(static_cast<uint8_t>(v));
      for (const int v : random_codes(shape.columns * depth, -largest_b, largest_b, 52))
        b.push_back(static_cast<int8_t>(v));
      const auto got = product<uint8_t, int8_t, int32_t>(gemm, a, b, shape.rows, size.segments, size.k, shape.columns);
      const Sums expected = reference<uint8_t, int8_t>(
          a, b, shape.rows, depth, shape.columns, [](uint8_t v) { return double{static_cast<double>(v)}; },
          [](int8_t v) { return double{static_cast<double>(v)}; });
      INFO(size.segments << " segments of " << size.k << ", " << shape.rows << " x " << shape.columns);
      CHECK(first_beyond({got.begin(), got.end()}, expected.value, [](size_t) { return 0.0; }) == "");
    }
}

double value(float v) {
  return static_cast<double>(v);
}
double value_bf16(bf16 v) {
  return static_cast<double>(to_float(v));
}

template <typename T>
void check_float(const kernels::GemmFloat<T>& gemm, double (*read)(T), T (*make)(float)) {
  for (const DepthSize size : kSizes)
    for (const Case shape : kCases) {
      const int64_t depth = size.segments * size.k;
      std::vector<T> a, b;
      Rng rng(53, rng_purpose::kTest);
      for (int64_t i = 0; i < shape.rows * depth; ++i) a.push_back(make(rng.uniform() - 0.5f));
      for (int64_t i = 0; i < shape.columns * depth; ++i) b.push_back(make(rng.uniform() - 0.5f));
      const auto got = product<T, T, float>(gemm, a, b, shape.rows, size.segments, size.k, shape.columns);
      const Sums expected = reference<T, T>(a, b, shape.rows, depth, shape.columns, read, read);
      INFO(size.segments << " segments of " << size.k << ", " << shape.rows << " x " << shape.columns);
      CHECK(first_beyond({got.begin(), got.end()}, expected.value, [&](size_t i) {
              return 2 * static_cast<double>(depth + 1) * kUnitF32 * expected.magnitude[i];
            }) == "");
      // The order of a sum is fixed by its depth: a row by itself has the same bits.
      const std::vector<T> last(a.end() - depth, a.end());
      const auto alone = product<T, T, float>(gemm, last, b, 1, size.segments, size.k, shape.columns);
      CHECK(std::memcmp(alone.data(), got.data() + (shape.rows - 1) * shape.columns, at(shape.columns) * 4) == 0);
    }
}

}  // namespace

TEST_CASE("the forward grid meets every product of the convolution once") {
  for (const NamedShape& named : all_shapes()) {
    INFO(named.name);
    const ConvShape& s = named.shape;
    const Gather g = forward_gather(s);
    CHECK(g.points() == s.out_pixels());
    Relation found;
    int64_t count = 0;
    for_each_tap(g, [&](int64_t point, int64_t source, const Tap& t) {
      found.insert({point, source, t.weight_tap});
      ++count;
    });
    CHECK(found == relation_of(s));
    CHECK(count == static_cast<int64_t>(found.size()));
  }
}

TEST_CASE("the classes of the input gradient partition the input and meet every product once") {
  for (const NamedShape& named : all_shapes()) {
    INFO(named.name);
    const ConvShape& s = named.shape;
    Relation found;
    std::set<int64_t> pixels;
    int64_t count = 0, points = 0;
    for (const InputGradientClass& c : input_gradient_classes(s)) {
      const Gather& g = c.gather;
      points += g.points();
      const auto pixel = [&](int64_t point) {
        const int64_t y = point / g.gw % g.gh * s.stride + c.row_phase, x = point % g.gw * s.stride + c.column_phase;
        CHECK((y < s.h && x < s.w));
        return (point / (g.gw * g.gh) * s.h + y) * s.w + x;
      };
      for (int64_t p = 0; p < g.points(); ++p) pixels.insert(pixel(p));
      for_each_tap(g, [&](int64_t point, int64_t source, const Tap& t) {
        found.insert({source, pixel(point), t.weight_tap});
        ++count;
      });
    }
    CHECK(points == s.n * s.h * s.w);
    CHECK(static_cast<int64_t>(pixels.size()) == points);
    CHECK(found == relation_of(s));
    CHECK(count == static_cast<int64_t>(found.size()));
  }
}

TEST_CASE("the row-folded grid reads whole kernel rows of the padded image, never outside") {
  for (const NamedShape& named : first_layer_shapes()) {
    INFO(named.name);
    const ConvShape& s = named.shape;
    const Gather g = row_folded_gather(s);
    const int64_t padded = s.w + s.pad_before + s.pad_after;
    CHECK(static_cast<int64_t>(g.taps.size()) == s.kh);
    int64_t count = 0;
    for_each_tap(g, [&](int64_t, int64_t source, const Tap&) {
      CHECK(source % padded + s.kw <= padded);
      ++count;
    });
    CHECK(count == g.points() * s.kh);
  }
}

TEST_CASE("a task reads only the source rows it was given, and the pad row outside the image") {
  for (const NamedShape& named : all_shapes()) {
    INFO(named.name);
    std::vector<Gather> grids = {forward_gather(named.shape)};
    for (const InputGradientClass& c : input_gradient_classes(named.shape)) grids.push_back(c.gather);
    for (const Gather& g : grids)
      for (const int64_t per : {int64_t{1}, int64_t{3}, grid_rows_per_task(g)})
        for (int64_t g0 = 0; g0 < g.n * g.gh; g0 += per) {
          const int64_t g1 = std::min(g.n * g.gh, g0 + per);
          const RowRange range = source_rows(g, g0, g1);
          CHECK((range.begin >= 0 && range.end <= g.n * g.sh));
          if (g.taps.empty()) continue;
          // Pixels as elements: a pointer's distance from the base is the source pixel.
          const std::vector<uint8_t> map(at(g.n * g.sh * g.sw)), pad(1);
          const SourceRows<uint8_t> rows{
              .data = map.data() + range.begin * g.sw, .first_row = range.begin, .stride = 1, .pad = pad.data()};
          const int64_t first = g0 * g.gw, points = (g1 - g0) * g.gw;
          std::vector<const uint8_t*> pointers(at(points) * g.taps.size());
          point_rows(g, rows, first, points, pointers.data());
          int64_t wrong = 0;
          for (int64_t p = 0; p < points; ++p)
            for (size_t t = 0; t < g.taps.size(); ++t) {
              const int64_t point = first + p, i = point / g.gw % g.gh, j = point % g.gw;
              const int64_t y = i * g.step + g.taps[t].dh, x = j * g.step + g.taps[t].dw;
              const uint8_t* got = pointers[t * at(points) + at(p)];
              const bool inside = y >= 0 && y < g.sh && x >= 0 && x < g.sw;
              const int64_t pixel = (point / (g.gw * g.gh) * g.sh + y) * g.sw + x;
              if (inside)
                wrong += got != map.data() + pixel || pixel < range.begin * g.sw || pixel >= range.end * g.sw;
              else
                wrong += got != pad.data();
            }
          CHECK(wrong == 0);
        }
  }
}

TEST_CASE("tasks cover the grid once and depend on its shape alone") {
  for (const NamedShape& named : conv_shapes()) {
    Gather g = forward_gather(named.shape);
    for (const int64_t edge : {1, 2, 4}) {
      const int64_t together = edge == 1 ? 1 : winograd::rows_together(g.gh, edge);
      g.rows_together = together;
      const int64_t per = grid_rows_per_task(g);
      CHECK(per >= 1);
      CHECK((task_count(g) - 1) * per < g.n * g.gh);
      CHECK(task_count(g) * per >= g.n * g.gh);
      // Every task begins with a tile.
      if (together > 1)
        for (int64_t task = 0; task < task_count(g); ++task) CHECK(task * per % g.gh % edge == 0);
    }
  }
}

TEST_CASE("integer products of any depth and segmentation are exact in every family") {
  on_every_level([] {
    const kernels::Table& t = kernels::active();
    check_int(t.u8s8, 255, 127);
    check_int(t.u8s4, 255, 7);
    check_int(t.u4s4, 15, 7);
  });
}

TEST_CASE("float products of any depth and segmentation are within the bound and alike row by row") {
  on_every_level([] {
    const kernels::Table& t = kernels::active();
    check_float<bf16>(t.bf16_gemm, value_bf16, to_bf16);
    check_float<float>(t.f32_gemm, value, [](float v) { return v; });
  });
}

/// Packs part by part, each of `step` outputs: panels of them (columns) or their depth.
template <typename T, typename Gemm>
void check_parts(const Gemm& gemm, const std::vector<T>& w, int64_t outputs, int64_t inputs, bool outputs_are_depth) {
  const std::vector<Tap> taps{{0, 0, 2}, {0, 0, 0}};
  constexpr int64_t kTaps = 3;
  const int64_t step = 32, k = outputs_are_depth ? outputs : inputs, columns = outputs_are_depth ? inputs : outputs;
  const int64_t of_output = kTaps * inputs;
  PanelSource<T> source{.data = w.data(), .tap_stride = inputs, .k_stride = 1, .n_stride = of_output};
  if (outputs_are_depth) std::swap(source.k_stride, source.n_stride);
  const Panels whole = pack_panels(gemm, source, taps, k, columns);
  const Panels parts = make_panels(gemm, std::ssize(taps), k, columns);
  std::memset(parts.storage.raw(), 0x55, parts.storage.bytes());
  for (int64_t o = 0; o < outputs; o += step) {
    PanelSource<T> from = source;
    from.data += o * of_output;
    const int64_t count = std::min(step, outputs - o);
    pack_part(gemm, parts, from, taps,
              outputs_are_depth ? PanelPart{.k0 = o, .k = count, .columns = columns}
                                : PanelPart{.k = k, .n0 = o, .columns = count});
  }
  // The bytes that round a panel up to a cache line are not packed.
  const auto used = static_cast<size_t>(std::ssize(taps) * gemm.nr * whole.segment_k * gemm.b_bytes);
  for (int64_t p = 0; p < whole.count(); ++p) CHECK(std::memcmp(whole.panel(p), parts.panel(p), used) == 0);
}

TEST_CASE("panels packed in parts are the panels packed at once") {
  on_every_level([] {
    const kernels::Table& t = kernels::active();
    for (const auto& size : {std::pair<int64_t, int64_t>{1, 1}, {32, 33}, {79, 39}, {64, 64}, {97, 130}}) {
      const int64_t outputs = size.first, inputs = size.second;
      CAPTURE(outputs);
      std::vector<int8_t> codes;
      std::vector<bf16> values;
      for (const int v : random_codes(outputs * inputs * 3 + 64, -127, 127, 73)) {
        codes.push_back(static_cast<int8_t>(v));
        values.push_back(to_bf16(static_cast<float>(v)));
      }
      check_parts(t.u8s8, codes, outputs, inputs, false);
      check_parts(t.u4s4, codes, outputs, inputs, false);
      check_parts(t.bf16_gemm, values, outputs, inputs, false);
      check_parts(t.bf16_gemm, values, outputs, inputs, true);
    }
  });
}

TEST_CASE("a serving cut gives every worker a task and covers points and panels") {
  for (const NamedShape& named : conv_shapes())
    for (const int64_t workers : {1, 2, 3, 8, 64}) {
      Gather g = forward_gather(named.shape);
      Panels b;
      b.nr = 16;
      b.columns = 70;
      b.segments = std::ssize(g.taps);
      b.segment_k = round_up(named.shape.ic, 4);
      const ServingCut cut = cut_for_serving(g, b, workers);
      CHECK((cut.point_parts >= 1 && cut.panel_parts >= 1 && cut.panel_parts <= b.count()));
      CHECK(cut.point_parts <= std::max<int64_t>(1, g.points()));
      CHECK(cut.tasks() >= std::min(workers, b.count()));
    }
  for (const int64_t points : {1, 47, 49, 97, 3000})
    for (const int64_t mr : {4, 6, 14, 32}) {
      const int64_t rows = serving_block_rows(points, mr);
      CHECK((rows >= mr && rows % mr == 0 && rows <= round_up(kBlockRows, mr)));
    }
}

namespace {

/// The right operands of a product's calls in their order, and where each task begins.
struct Reads {
  std::vector<const std::byte*> read, asked;
  std::vector<size_t> tasks;

  void note(const void* b, const void* next_b) {
    read.push_back(static_cast<const std::byte*>(b));
    asked.push_back(static_cast<const std::byte*>(next_b));
  }
};
Reads noted;  // by one thread

void clear(int64_t rows, int32_t* c, int64_t ldc) {
  for (int64_t r = 0; r < rows; ++r) std::fill_n(c + r * ldc, kernels::active().u8s8.nr, 0);
}

void note_packed(int /*k*/, int rows, const void* /*a*/, int64_t /*a_panel_bytes*/, const void* b, int32_t* c,
                 int64_t ldc, kernels::Into /*into*/, const void* next_b) {
  noted.note(b, next_b);
  clear(rows, c, ldc);
}

void note_gathered(const kernels::GatheredRows& /*a*/, int rows, const void* b, int32_t* c, int64_t ldc,
                   kernels::Into /*into*/, const void* next_b) {
  noted.note(b, next_b);
  clear(rows, c, ldc);
}

/// Calls product(source) with one thread and checks what each of its tasks prefetched: in the first pass over its
/// panels the part that it reads next, later only if its panels do not stay in cache, and nothing past its end.
template <typename Product>
void check_asked(const Gather& g, const Panels& panels, const Product& product) {
  const int64_t stride = panels.k;
  const std::vector<uint8_t> zeros(at(g.n * g.sh * g.sw * stride + 64));
  noted = {};
  const ThreadsGuard guard;
  set_threads(1);
  product([&](Scratch&, RowRange range) {
    noted.tasks.push_back(noted.read.size());
    return SourceRows<uint8_t>{zeros.data() + range.begin * g.sw * stride, range.begin, stride, zeros.data()};
  });
  REQUIRE(!noted.tasks.empty());
  noted.tasks.push_back(noted.read.size());
  int64_t wrong = 0, asked = 0;
  for (size_t t = 0; t + 1 < noted.tasks.size(); ++t) {
    const size_t begin = noted.tasks[t], end = noted.tasks[t + 1];
    REQUIRE(begin < end);
    std::set<int64_t> own;
    for (size_t i = begin; i < end; ++i) own.insert((noted.read[i] - panels.panel(0)) / panels.panel_bytes);
    const bool stays = std::ssize(own) * panels.panel_bytes <= kKeptPanelBytes;
    std::set<const std::byte*> seen = {noted.read[begin]};
    for (size_t i = begin; i < end; ++i) {
      const std::byte* const next = i + 1 < end ? noted.read[i + 1] : nullptr;
      const bool expected = next != nullptr && (seen.insert(next).second || !stays);
      wrong += noted.asked[i] != (expected ? next : nullptr);
      asked += expected;
    }
  }
  CHECK(wrong == 0);
  CHECK((asked > 0 || panels.panel_bytes * panels.count() < kKeptPanelBytes));
}

}  // namespace

TEST_CASE("a product asks for the part of the right operand that it reads next, and for nothing in cache") {
  kernels::GemmInt packed = kernels::active().u8s8;
  packed.run = note_packed;
  packed.run_gathered = nullptr;
  kernels::GemmInt gathered = packed;
  gathered.run_gathered = note_gathered;
  // Panels of a few KiB to some MiB; chunks of several segments, of one, of a part of one; parts of points and of
  // columns.
  for (const DepthSize size : {DepthSize{1, 64}, {1, 1030}, {9, 39}, {9, 256}, {9, 600}})
    for (const int64_t columns : {1, 39, 256, 400})
      for (const int64_t side : {3, 14, 40}) {
        const int64_t segments = size.segments, k = size.k;
        INFO(segments << " x " << k << ", " << columns << " columns, " << side);
        const ConvShape s = segments == 9 ? three(1, side, side, k, columns, 1, 1)
                                          : ConvShape{.n = 1, .h = side, .w = side, .ic = k, .oc = columns};
        const Gather g = forward_gather(s);
        const Panels panels = make_panels(packed, segments, k, columns);
        for (const int64_t workers : {1, 2})
          for (const int64_t block_columns : {0, 64})
            for (const kernels::GemmInt* gemm : {&packed, &gathered})
              check_asked(g, panels, [&](const auto& source) {
                serving_gemm<int32_t, uint8_t>(
                    *gemm, {.gather = g, .panels = panels, .workers = workers, .block_columns = block_columns}, nullptr,
                    source, [](auto&&...) {});
                CHECK(std::ssize(noted.tasks) == cut_for_serving(g, panels, workers).tasks());
              });
        check_asked(g, panels, [&](const auto& source) {
          gather_gemm<int32_t, uint8_t>(packed, g, panels, source, [](auto&&...) {});
        });
      }
}

TEST_CASE("3x3 layers in fewer products ask for what they read next, too") {
  kernels::GemmInt gemm = kernels::active().u6s7;
  REQUIRE((gemm.run != nullptr));
  gemm.run = note_packed;
  for (const int64_t k : {15, 64, 256})
    for (const int64_t columns : {1, 39, 256})
      for (const int64_t side : {3, 14, 28}) {
        INFO(k << " to " << columns << " channels, " << side);
        const Gather g = forward_gather(three(1, side, side, k, columns, 1, 1));
        const Panels panels = make_panels(gemm, 16, k, columns);
        const std::vector<int32_t> start(at(4 * panels.padded_columns()));
        for (const int64_t workers : {1, 2})
          for (const int64_t block_columns : {0, 64})
            check_asked(g, panels, [&](const auto& source) {
              winograd::serving_gemm(
                  gemm, 2, {.gather = g, .panels = panels, .workers = workers, .block_columns = block_columns},
                  start.data(), source, [](auto&&...) {});
            });
      }
}

TEST_CASE("a serving cut parts the larger operand of small maps") {
  const auto cut = [](int64_t side, int64_t ic, int64_t oc, int64_t workers) {
    const ConvShape s{.n = 1, .h = side, .w = side, .ic = ic, .oc = oc};
    Panels b;
    b.nr = 32;
    b.columns = s.oc;
    b.segments = 1;
    b.segment_k = s.ic;
    const ServingCut made = cut_for_serving(forward_gather(s), b, workers);
    return std::pair(made.point_parts, made.panel_parts);
  };
  using Parts = std::pair<int64_t, int64_t>;
  CHECK(cut(14, 256, 1024, 2) == Parts(1, 2));
  CHECK(cut(14, 256, 1024, 4) == Parts(1, 4));
  CHECK(cut(14, 1024, 256, 4) == Parts(4, 1));  // two panels per thread
  CHECK(cut(14, 256, 1024, 3) == Parts(3, 1));  // 32 panels do not come out even
  CHECK(cut(20, 1024, 256, 2) == Parts(2, 1));  // the weights are smaller
  CHECK(cut(20, 256, 512, 2) == Parts(1, 2));
  CHECK(cut(28, 256, 2048, 2) == Parts(2, 1));  // many points
  CHECK(cut(28, 256, 2048, 4) == Parts(4, 1));
  CHECK(cut(7, 512, 2048, 2) == Parts(1, 2));  // fewer than a block per worker
  CHECK(cut(14, 256, 1024, 1) == Parts(1, 1));
}

TEST_CASE("the serving product is the gathered product, whatever the workers, the columns and the start") {
  on_every_level([] {
    const kernels::GemmInt& gemm = kernels::active().u8s8;
    std::vector<NamedShape> shapes = all_shapes();
    // Two threads share the columns of these.
    shapes.push_back({"1x1, few points", {.n = 1, .h = 14, .w = 14, .ic = 64, .oc = 256}});
    shapes.push_back({"3x3, few points", three(1, 14, 14, 32, 256, 1, 1)});
    for (size_t i = shapes.size() - 2; i < shapes.size(); ++i) {
      const ConvShape& few = shapes[i].shape;
      CHECK(cut_for_serving(forward_gather(few), make_panels(gemm, few.taps(), few.ic, few.oc), 2).panel_parts == 2);
    }
    for (const NamedShape& named : shapes) {
      INFO(named.name);
      const ConvShape& s = named.shape;
      const Gather g = forward_gather(s);
      std::vector<uint8_t> x, pad(64 + at(s.ic), 9);
      std::vector<int8_t> w;
      for (const int v : random_codes(s.n * s.h * s.w * s.ic + 64, 0, 255, 71)) x.push_back(static_cast<uint8_t>(v));
      for (const int v : random_codes(s.oc * s.k(), -127, 127, 72)) w.push_back(static_cast<int8_t>(v));
      const Panels panels =
          pack_panels(gemm, PanelSource<int8_t>{.data = w.data(), .tap_stride = s.ic, .k_stride = 1, .n_stride = s.k()},
                      g.taps, s.ic, s.oc);
      std::atomic<int64_t> tasks = 0;
      const auto source = [&](Scratch&, RowRange range) {
        ++tasks;
        return SourceRows<uint8_t>{x.data() + range.begin * g.sw * s.ic, range.begin, s.ic, pad.data()};
      };
      std::vector<int32_t> expected(at(g.points() * s.oc)), start(at(panels.padded_columns()));
      gather_gemm<int32_t, uint8_t>(gemm, g, panels, source,
                                    [&](int64_t, int64_t first, int64_t rows, const int32_t* c, int64_t ldc) {
                                      for (int64_t r = 0; r < rows; ++r)
                                        std::copy_n(c + r * ldc, s.oc, expected.data() + (first + r) * s.oc);
                                    });
      for (size_t o = 0; o < start.size(); ++o) start[o] = static_cast<int32_t>(o) * 1000 - 7;
      for (const int64_t workers : {1, 2, 5})
        for (const int64_t columns : {0, 8, 64})
          for (const bool started : {false, true}) {
            std::vector<int32_t> got(expected.size(), -1);
            tasks = 0;
            std::mutex mutex;
            std::set<std::pair<int64_t, int64_t>> blocks, announced;  // by first point and column
            serving_gemm<int32_t, uint8_t>(
                gemm, {.gather = g, .panels = panels, .workers = workers, .block_columns = columns},
                started ? start.data() : nullptr, source,
                [&](int64_t first, int64_t rows, int64_t c0, int64_t n, const int32_t* c, int64_t ldc,
                    const NextBlock& next) {
                  const std::lock_guard lock(mutex);
                  blocks.emplace(first, c0);
                  if (next.point >= 0) announced.emplace(next.point, next.column);
                  for (int64_t r = 0; r < rows; ++r)
                    for (int64_t o = 0; o < n; ++o)
                      got[at((first + r) * s.oc + c0 + o)] = c[r * ldc + o] - (started ? start[at(c0 + o)] : 0);
                });
            CHECK(got == expected);
            // Every block but the first one of each task was announced, and nothing else.
            CHECK(std::includes(blocks.begin(), blocks.end(), announced.begin(), announced.end()));
            const int64_t first_ones = std::ssize(blocks) - std::ssize(announced);
            CHECK(first_ones == tasks);
            CHECK(tasks == cut_for_serving(g, panels, workers).tasks());
          }
    }
  });
}

TEST_CASE("a code source expands nibbles and shifts channels, and pads with the code of zero") {
  on_every_level([] {
    for (const int64_t c : {1, 15, 39, 64, 79})
      for (const FactorForm form : {FactorForm::kNone, FactorForm::kShift})
        for (const int bits : {4, 8}) {
          if (form == FactorForm::kShift && bits == 8) continue;
          const ActivationQuantizer q = make_activation_quantizer(random_bounds(c, 61), bits, false, form);
          const ConvShape s{.n = 2, .h = 3, .w = 4, .ic = c, .oc = 1};
          const std::vector<int> codes = random_codes(s.n * s.h * s.w * c, 0, static_cast<int>(q.top()), 62);
          const Tensor x = store_codes(codes, {s.n, s.h, s.w, c}, q);
          const Gather g = forward_gather(s);
          const CodeSource source(x, &q, g);
          Scratch scratch;
          const SourceRows<uint8_t> rows = source(scratch, {2, 5});
          CHECK(rows.first_row == 2);
          int64_t wrong = 0;
          for (int64_t p = 0; p < 3 * s.w; ++p)
            for (int64_t i = 0; i < c; ++i) {
              const int factor = q.factor.empty() ? 1 : q.factor[at(i)];
              wrong += rows.data[p * rows.stride + i] != codes[at((2 * s.w + p) * c + i)] * factor;
              wrong += rows.pad[i] != 0;
            }
          CHECK(wrong == 0);
        }
  });
}
