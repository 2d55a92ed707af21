// The forward drivers of levels that multiply rows in place, on emulated tiles: planes, images, and every way to cut
// them, on machines without such a level.
#include <algorithm>
#include <atomic>

#include "ops/image_gemm.hpp"
#include "ops/packed_source.hpp"
#include "ops/plane_gemm.hpp"
#include "tests/kernels/emulated/levels.hpp"
#include "tests/kernels/end_of_page.hpp"
#include "tests/ops/packed_layers.hpp"

namespace nibble::testing {
namespace {

const kernels::Table& tiles() {
  return kernels::emulated_amx::kEmulated;
}

LayerWeights tiled_layer(const Operands& op) {
  LayerWeights layer = op.layer(Passes::kForward, &tiles());
  REQUIRE(layer.strided());
  return layer;
}

/// Sums against the naive ones: equal for codes, within the bound of fp32 sums in any order otherwise.
void check_sums(const Operands& op, const Tensor& sums, const Sums& expected) {
  CHECK(sums.dtype() == (op.codes() ? DType::s32 : DType::f32));
  const double terms = static_cast<double>(op.shape.k()) + 4;
  CHECK(first_beyond(values_of(sums), expected.value,
                     [&](size_t i) { return op.codes() ? 0.0 : terms * 2 * kUnitF32 * expected.magnitude[i]; }) == "");
}

std::vector<Precision> some_precisions(bool is_signed) {
  if (is_signed) return {signed_precisions()[0], float_precisions()[0]};
  return {code_precisions()[0], code_precisions()[6], code_precisions()[8], float_precisions()[1]};
}

/// What became of a product in the given cuts, one after another: its sums, and whether every task kept its
/// promises.
struct CutProduct {
  Tensor sums;
  int64_t written_once = 0, tasks = 0;
  bool announced = true;  // what an epilogue gets next is what it was told, where it was told
};

template <typename C, typename T, typename Gemm, typename Source>
CutProduct run_cuts(const LayerWeights& layer, const Gather& g, const Gemm& gemm, const Source& source,
                    const std::vector<PlaneCut>& cuts) {
  const int64_t oc = layer.shape.oc;
  CutProduct made{.sums = Tensor(sizeof(T) == 1 ? DType::s32 : DType::f32, {g.n, g.gh, g.gw, oc})};
  std::vector<std::atomic<int>> writes(at(g.points() * oc));
  const C* start = nullptr;
  if constexpr (std::is_same_v<C, int32_t>) start = layer.start_data();
  for (const PlaneCut& cut : cuts) {
    std::vector<NextBlock> next(at(cut.tasks()));
    std::vector<std::atomic<int>> seen(at(cut.tasks()));
    std::atomic<bool> announced{true};
    plane_gemm<C, T>(gemm, {g, layer.forward_layout, layer.forward, cut, start}, source,
                     [&](int64_t task, int64_t first, int64_t rows, int64_t column, int64_t n, const C* c, int64_t ldc,
                         const NextBlock& then) {
                       seen[at(task)] = 1;
                       NextBlock& promised = next[at(task)];
                       if (promised.point >= 0 && (promised.point != first || promised.column != column))
                         announced = false;
                       promised = then;
                       for (int64_t r = 0; r < rows; ++r) {
                         const int64_t to = (first + r) * oc + column;
                         std::memcpy(made.sums.raw() + to * 4, c + r * ldc, at(n) * 4);
                         for (int64_t i = 0; i < n; ++i) ++writes[at(to + i)];
                       }
                     });
    for (const auto& s : seen) made.tasks += s;
    made.announced = made.announced && announced;
  }
  for (const auto& w : writes) made.written_once += w == 1;
  return made;
}

CutProduct product_in(const LayerWeights& layer, const Operands& op, const std::vector<PlaneCut>& cuts) {
  Gather g = layer.forward_gather();
  g.n = op.x.dim(0);
  if (layer.integer())
    return run_cuts<int32_t, uint8_t>(layer, g, *layer.int_gemm, CodeSource(op.x, layer.quantizer, g), cuts);
  return run_cuts<float, bf16>(layer, g, *layer.float_gemm, Bf16Source(op.x, g), cuts);
}

/// The same from a copy of the input that ends where a protected page begins.
template <typename C, typename T, typename Gemm>
CutProduct product_at_end_of_page(const LayerWeights& layer, const Operands& op, const Gemm& gemm) {
  Gather g = layer.forward_gather();
  g.n = op.x.dim(0);
  const int64_t stride = op.x.stride();
  std::vector<T, EndOfPage<T>> x(at(op.x.rows() * stride));
  std::memcpy(x.data(), op.x.raw(), x.size() * sizeof(T));
  std::vector<T> pad(at(std::max<int64_t>(64, stride)));
  if constexpr (sizeof(T) == 1)
    if (op.quantizer.is_signed) std::fill(pad.begin(), pad.end(), kSignedOffset);
  const auto source = [&](Scratch&, RowRange range) {
    return SourceRows<T>{x.data() + range.begin * g.sw * stride, range.begin, stride, pad.data()};
  };
  return run_cuts<C, T>(layer, g, gemm, source, {cut_by_shape(g)});
}

/// The same bits as `expected`, each written once and by as many tasks as the cuts have.
void check_cuts(const LayerWeights& layer, const Operands& op, const std::vector<PlaneCut>& cuts,
                const Tensor& expected) {
  const CutProduct made = product_in(layer, op, cuts);
  CHECK(same_bytes(made.sums, expected));
  CHECK(made.written_once == made.sums.size());
  CHECK(made.announced);
  int64_t tasks = 0;
  for (const PlaneCut& cut : cuts) tasks += cut.tasks();
  CHECK(made.tasks == tasks);
}

/// As the executor walks: strips of `rows` rows, one after another.
std::vector<PlaneCut> strips(const Gather& g, int64_t rows) {
  std::vector<PlaneCut> all;
  for (int64_t begin = 0; begin < g.n * g.gh; begin += rows) {
    const int64_t end = std::min(g.n * g.gh, begin + rows);
    all.push_back({.row_begin = begin, .row_end = end, .rows_per_part = end - begin});
  }
  return all;
}

std::vector<NamedShape> every_shape() {
  std::vector<NamedShape> all = conv_shapes();
  for (const NamedShape& named : first_layer_shapes()) all.push_back(named);
  return all;
}

/// Calls body(operands) for every shape and some precisions that fit it.
template <typename Body>
void for_each_driven(const Body& body) {
  set_float_mode();
  for (const NamedShape& named : every_shape()) for_each_layer({named}, some_precisions(named.first_layer), body);
}

}  // namespace

TEST_CASE("emulated drivers: sums of every shape and kind of operands match the naive ones") {
  for_each_driven([](const Operands& op) {
    const LayerWeights layer = tiled_layer(op);
    check_sums(op, conv_accumulators(layer, op.x), naive_forward(op.shape, op.multiplied_x, op.multiplied_w));
    if (layer.start.defined()) CHECK(reinterpret_cast<uintptr_t>(layer.start.raw()) % 64 == 0);
  });
}

TEST_CASE("emulated drivers: a product by images and one by planes, cut for any workers or walked, are the same bits") {
  for_each_driven([](const Operands& op) {
    const LayerWeights layer = tiled_layer(op);
    Gather g = layer.forward_gather();
    g.n = op.shape.n;
    const Tensor expected = conv_accumulators(layer, op.x);  // by images where there are 32 of them
    std::vector<PlaneCut> seen = {cut_by_shape(g)};
    check_cuts(layer, op, seen, expected);
    for (const int64_t workers : {2, 7, 25, 64}) {
      const PlaneCut cut = cut_for_workers(g, layer.forward, workers);
      if (std::find(seen.begin(), seen.end(), cut) != seen.end()) continue;  // small shapes have few
      check_cuts(layer, op, {cut}, expected);
      seen.push_back(cut);
    }
    check_cuts(layer, op, strips(g, g.points() < 200 ? 1 : 3), expected);
  });
}

TEST_CASE("emulated drivers: nothing is read past the end of the input, whether it is copied or read in place") {
  set_float_mode();
  std::vector<NamedShape> shapes = every_shape();
  shapes.push_back({"1x1 in place, half a tile at the end", {.n = 1, .h = 7, .w = 11, .ic = 64, .oc = 39}});
  for (const NamedShape& named : shapes) {
    const Precision codes = named.first_layer ? signed_precisions()[0] : code_precisions()[0];  // bytes as they are
    for_each_layer({named}, {codes, float_precisions()[0]}, [](const Operands& op) {
      const LayerWeights layer = tiled_layer(op);
      const CutProduct made = layer.integer() ? product_at_end_of_page<int32_t, uint8_t>(layer, op, *layer.int_gemm)
                                              : product_at_end_of_page<float, bf16>(layer, op, *layer.float_gemm);
      CHECK(same_bytes(made.sums, conv_accumulators(layer, op.x)));
    });
  }
}

TEST_CASE("emulated drivers: few points are shared out by rows and panels together, and the bits stay the same") {
  struct Few {
    ConvShape shape;
    int64_t workers, tasks;
  };
  const ConvShape map = three(1, 14, 14, 39, 128, 1, 1), small = three(1, 7, 7, 39, 200, 1, 1);
  const ConvShape single{.n = 1, .h = 1, .w = 1, .ic = 79, .oc = 158};
  set_float_mode();
  for (const Few& e : std::vector<Few>{{map, 2, 2},
                                       {map, 8, 8},
                                       {map, 24, 20},
                                       {small, 2, 2},
                                       {small, 3, 3},
                                       {small, 64, 7},
                                       {single, 2, 2},
                                       {single, 4, 3},
                                       {single, 5, 5}})
    for (const Precision& p : {code_precisions()[0], float_precisions()[0]}) {
      INFO(e.shape.h << " px, " << e.workers << " workers; " << p.name);
      const Operands op = make_operands({"few points", e.shape}, p);
      const LayerWeights layer = tiled_layer(op);
      const PlaneCut cut = cut_for_workers(layer.forward_gather(), layer.forward, e.workers);
      CHECK(cut.tasks() == e.tasks);
      const Tensor expected = conv_accumulators(layer, op.x);
      check_sums(op, expected, naive_forward(op.shape, op.multiplied_x, op.multiplied_w));
      with_thread_counts([&] { check_cuts(layer, op, {cut}, expected); });
    }
}

TEST_CASE("emulated drivers: y of codes and its channel sums have the bits of the level in use") {
  for_each_driven([](const Operands& op) {
    if (!op.codes()) return;  // floats are summed in another order
    const LayerWeights layer = tiled_layer(op), usual = op.layer(Passes::kForward);
    ChannelSums expected;
    const Tensor y = packed_conv_forward(usual, op.x, expected);
    with_thread_counts([&] {
      ChannelSums sums;
      CHECK(same_bytes(packed_conv_forward(layer, op.x, sums), y));
      CHECK(sums.count == expected.count);
      CHECK(first_beyond(sums.sum, expected.sum, [](size_t) { return 0.0; }) == "");
      CHECK(first_beyond(sums.sum_sq, expected.sum_sq, [](size_t) { return 0.0; }) == "");
    });
  });
}

}  // namespace nibble::testing
