// Products and packing of the active level over ResNet-50's shapes, in GMAC/s and as a share of the core's peak.
//
// One thread. Along with each row the peak of its instructions is measured (ops/kernels/isa/peak.hpp); a row's share is
// of the largest so far.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "ops/kernels/isa/peak.hpp"
#include "ops/kernels/table.hpp"
#include "ops/row_products.hpp"

namespace nibble {
namespace {

using kernels::GemmFloat;
using kernels::GemmInt;
using kernels::Into;
using kernels::Unit;

/// One image's product: m output pixels, n output channels, `taps` segments of `channels` (for the stem: its rows).
struct Shape {
  const char* name;
  int m, n, taps, channels;

  int k() const { return taps * channels; }
};
constexpr Shape kShapes[] = {
    {"stem_7x7_112", 12544, 64, 7, 21},   {"1x1_64_64_56", 3136, 64, 1, 64},    {"3x3_64_64_56", 3136, 64, 9, 64},
    {"1x1_64_256_56", 3136, 256, 1, 64},  {"1x1_256_64_56", 3136, 64, 1, 256},  {"3x3_128_28", 784, 128, 9, 128},
    {"1x1_512_128_28", 784, 128, 1, 512}, {"3x3_256_14", 196, 256, 9, 256},     {"1x1_256_1024_14", 196, 1024, 1, 256},
    {"3x3_512_7", 49, 512, 9, 512},       {"1x1_2048_512_7", 49, 512, 1, 2048},
};
/// Rows of one block: what the convolutions keep in the second-level cache at a time.
constexpr int kBlockRows = 192;

/// Peak in MAC/s: the best of several short runs, now and before, as the machine may be shared.
double peak(Unit unit) {
  static std::map<Unit, double> known;
  double& best = known[unit];
  for (int attempt = 0; attempt < 5; ++attempt) {
    const std::clock_t start = std::clock();  // processor time, as in the benchmarks
    const int64_t macs = kernels::peak_macs(active_isa(), unit, 1000000);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    best = std::max(best, static_cast<double>(macs) / seconds);
  }
  return best;
}

class Buffer {
 public:
  explicit Buffer(size_t bytes) : store_(bytes + 64) {}
  std::byte* data() { return store_.data() + (64 - reinterpret_cast<uintptr_t>(store_.data()) % 64) % 64; }

 private:
  std::vector<std::byte> store_;
};

void report(benchmark::State& state, double macs, Unit unit) {
  state.counters["GMAC/s"] = benchmark::Counter(macs * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  if (const double p = peak(unit); p > 0)
    state.counters["of_peak"] = benchmark::Counter(macs / p, benchmark::Counter::kIsIterationInvariantRate);
}

/// `count` ones: a valid code of every family.
template <typename T>
std::vector<T> ones(int count) {
  const auto size = static_cast<size_t>(count);
  if constexpr (std::is_same_v<T, bf16>)
    return std::vector<T>(size, to_bf16(1.0f));
  else
    return std::vector<T>(size, T{1});
}

/// run() alone: panels of one block of rows against all columns.
template <typename A, typename B, typename C, typename Gemm>
void run_product(benchmark::State& state, const Gemm& g, Shape s, Unit unit) {
  const int k = (s.k() + g.kr - 1) / g.kr * g.kr, m_panels = (std::min(s.m, kBlockRows) + g.mr - 1) / g.mr;
  const int n_panels = (s.n + g.nr - 1) / g.nr;
  const int64_t a_panel = (int64_t{g.mr} * k * g.a_bytes + 63) / 64 * 64, b_panel = int64_t{g.nr} * k * g.b_bytes;
  Buffer a(static_cast<size_t>(m_panels * a_panel)), b(static_cast<size_t>(n_panels * b_panel));
  const std::vector<A> row = ones<A>(s.k());
  const std::vector<B> column = ones<B>(s.k());
  const std::vector<const A*> rows(static_cast<size_t>(g.mr), row.data());
  for (int p = 0; p < m_panels; ++p) g.pack_a(rows.data(), g.mr, s.k(), a.data() + p * a_panel);
  for (int n = 0; n < n_panels; ++n) g.pack_b(column.data(), 1, 0, s.k(), g.nr, b.data() + n * b_panel);
  const int64_t ldc = int64_t{n_panels} * g.nr;
  std::vector<C> c(static_cast<size_t>(int64_t{m_panels} * g.mr * ldc));
  for (auto _ : state) {
    for (int n = 0; n < n_panels; ++n)
      g.run(k, std::min(s.m, kBlockRows), a.data(), a_panel, b.data() + n * b_panel, c.data() + n * g.nr, ldc,
            Into::kOverwrite, nullptr);
    benchmark::ClobberMemory();
  }
  // The products asked for: what a kernel pads its tiles with is not work done.
  report(state, static_cast<double>(std::min(s.m, kBlockRows)) * s.n * s.k(), unit);
}

/// run_strided() as a driver calls it: rows that lie a pixel apart, a tap being a shift by one, the sums of a product
/// stored by the next; 64 columns of 32 rows at a time.
template <typename A, typename B, typename C, typename Gemm>
void run_in_place(benchmark::State& state, const Gemm& g, Shape s, Unit unit) {
  const int64_t depth = round_up(s.channels, g.kr), row_bytes = depth * g.a_bytes;
  const int64_t panel_bytes = s.taps * depth * g.nr * g.b_bytes, block = 2 * g.strided_rows;
  const int64_t m = std::min(s.m, kBlockRows), rows = round_up(m, block), n_panels = (s.n + g.nr - 1) / g.nr;
  const std::vector<A> pixels = ones<A>(static_cast<int>((rows + s.taps) * depth));
  const std::vector<B> column = ones<B>(s.channels);
  Buffer a(pixels.size() * sizeof(A)), b(static_cast<size_t>(n_panels * panel_bytes));
  std::memcpy(a.data(), pixels.data(), pixels.size() * sizeof(A));
  std::vector<kernels::Segment> taps;
  for (int64_t t = 0; t < s.taps; ++t) taps.push_back({t * row_bytes, t * depth * g.nr * g.b_bytes});
  for (int64_t n = 0; n < n_panels; ++n)
    for (const kernels::Segment& tap : taps)
      g.pack_b(column.data(), 1, 0, s.channels, g.nr, b.data() + n * panel_bytes + tap.panel);
  constexpr int64_t kTogether = 2;  // panels of a block, as in ops/block_pipeline.hpp
  Buffer c(static_cast<size_t>(block * kTogether * g.nr) * sizeof(C));
  auto* const sums = reinterpret_cast<C*>(c.data());
  for (auto _ : state) {
    kernels::HeldSums<C> held;
    g.begin();
    for (int64_t first = 0; first < n_panels; first += kTogether)
      for (int64_t r = 0; r < rows; r += block)
        for (int64_t n = first; n < std::min(n_panels, first + kTogether); ++n) {
          const kernels::StridedRows left{.first = a.data() + r * row_bytes,
                                          .row_bytes = row_bytes,
                                          .segments = taps.data(),
                                          .segment_count = s.taps,
                                          .groups = static_cast<int>(row_bytes / 64)};
          g.run_strided(left, static_cast<int>(block), b.data() + n * panel_bytes, kernels::PanelIn::kCache, nullptr,
                        held);
          held = {sums + (n - first) * g.nr, kTogether * g.nr, static_cast<int>(block)};
        }
    g.store_held(held);
    g.end();
    benchmark::ClobberMemory();
  }
  report(state, static_cast<double>(m) * s.n * s.k(), unit);
}

/// The weight gradient's blocks over up to 1,024 points of one image, every output panel against every channel panel
/// and tap, the left operand being the one that is read again.
void run_gradient(benchmark::State& state, const kernels::WeightGradient& g, Shape s) {
  using W = kernels::WeightGradient;
  const int64_t points = round_up(std::min(s.m, 1024), W::kPoints), pairs = points / 2 + s.taps;
  const int64_t lefts = (s.n + W::kOutputs - 1) / W::kOutputs, rights = (s.channels + W::kChannels - 1) / W::kChannels;
  const std::vector<bf16> row = ones<bf16>(std::max(s.n, s.channels) + 64);
  const std::vector<const bf16*> d_y(static_cast<size_t>(points), row.data());
  const std::vector<const void*> x(static_cast<size_t>(2 * pairs + 1), row.data());
  Buffer left(static_cast<size_t>(lefts * points * 64)), even(static_cast<size_t>(rights * pairs * 128)),
      odd(static_cast<size_t>(rights * pairs * 128)), sums(W::kOutputs * W::kChannels * sizeof(float));
  for (int64_t o = 0; o < lefts; ++o) g.pack_left(d_y.data(), 0, points, W::kOutputs, left.data() + o * points * 64);
  for (int64_t i = 0; i < rights; ++i)
    g.pack_right_bf16(x.data(), 0, W::kChannels, pairs, even.data() + i * pairs * 128, odd.data() + i * pairs * 128);
  const kernels::StepRun whole{0, 0, points / W::kPoints};
  std::vector<kernels::BlockProduct> products;
  auto* const to = reinterpret_cast<float*>(sums.data());
  for (int64_t o = 0; o < lefts; ++o)
    for (int64_t i = 0; i < rights; ++i)
      for (int64_t t = 0; t < s.taps; ++t)
        products.push_back({.left = left.data() + o * points * 64,
                            .right = (t % 2 == 0 ? even : odd).data() + i * pairs * 128 + t / 2 * 64,
                            .right_panel_bytes = pairs * 64,
                            .runs = &whole,
                            .run_count = 1,
                            .sums = to,
                            .ahead = to,
                            .ahead_stride = W::kChannels});
  for (auto _ : state) {
    g.run_left_again(products.data(), static_cast<int64_t>(products.size()), Into::kOverwrite);
    benchmark::ClobberMemory();
  }
  report(state, static_cast<double>(std::min(s.m, 1024)) * s.n * s.k(), Unit::kBf16);
}

template <typename T>
std::vector<const T*> rows_of(const std::vector<T>& data, int rows, int columns) {
  std::vector<const T*> p;
  for (int r = 0; r < rows; ++r) p.push_back(data.data() + int64_t{r} * columns);
  return p;
}

void report_elements(benchmark::State& state, int64_t elements) {
  state.SetItemsProcessed(state.iterations() * elements);
}

/// One panel of A from rows of k elements.
template <typename T, typename Gemm>
void pack_a(benchmark::State& state, const Gemm& g, int k) {
  const std::vector<T> data(static_cast<size_t>(int64_t{g.mr} * k));
  const auto rows = rows_of(data, g.mr, k);
  Buffer panel(static_cast<size_t>(int64_t{g.mr} * (k + g.kr) * g.a_bytes));
  for (auto _ : state) {
    g.pack_a(rows.data(), g.mr, k, panel.data());
    benchmark::ClobberMemory();
  }
  report_elements(state, int64_t{g.mr} * k);
}

/// One panel of A from k pixels of 256 channels: the left operand of a weight gradient.
void pack_transposed(benchmark::State& state, const GemmFloat<bf16>& g, int k) {
  const std::vector<bf16> data(static_cast<size_t>(int64_t{k} * 256));
  const auto rows = rows_of(data, k, 256);
  Buffer panel(static_cast<size_t>(int64_t{g.mr} * (k + g.kr) * g.a_bytes));
  for (auto _ : state) {
    g.pack_a_transposed(rows.data(), k, g.mr, panel.data());
    benchmark::ClobberMemory();
  }
  report_elements(state, int64_t{g.mr} * k);
}

/// One panel of B from k pixels of 256 channels: the right operand of a weight gradient.
template <typename T, typename Pack>
void pack_gathered(benchmark::State& state, const GemmFloat<bf16>& g, const Pack& pack, int k) {
  const std::vector<T> data(static_cast<size_t>(int64_t{k} * 256));
  const auto rows = rows_of(data, k, 256);
  Buffer panel(static_cast<size_t>(int64_t{g.nr} * (k + g.kr) * g.b_bytes));
  for (auto _ : state) {
    pack(rows.data(), 0, k, g.nr, panel.data());
    benchmark::ClobberMemory();
  }
  report_elements(state, int64_t{g.nr} * k);
}

/// One panel of B, contiguous in k (weights) or in n (output gradients).
template <typename T, typename Gemm>
void pack_b(benchmark::State& state, const Gemm& g, int k, int64_t k_stride, int64_t n_stride) {
  const std::vector<T> data(static_cast<size_t>(k * k_stride + 256 * n_stride));
  Buffer panel(static_cast<size_t>(int64_t{g.nr} * (k + g.kr) * g.b_bytes));
  for (auto _ : state) {
    g.pack_b(data.data(), k_stride, n_stride, k, g.nr, panel.data());
    benchmark::ClobberMemory();
  }
  report_elements(state, int64_t{g.nr} * k);
}

void register_products(const kernels::Table& t, const std::string& level) {
  using benchmark::RegisterBenchmark;
  for (const Shape& s : kShapes) {
    const std::string at = "/" + std::string(s.name);
    const auto add_int = [&](const std::string& family, const GemmInt& g, Unit unit) {
      RegisterBenchmark((level + "/" + family + at).c_str(), [&g, s, unit](benchmark::State& state) {
        run_product<uint8_t, int8_t, int32_t>(state, g, s, unit);
      });
    };
    RegisterBenchmark((level + "/f32" + at).c_str(), [&t, s](benchmark::State& state) {
      run_product<float, float, float>(state, t.f32_gemm, s, Unit::kFloat);
    });
    RegisterBenchmark((level + "/bf16" + at).c_str(), [&t, s](benchmark::State& state) {
      run_product<bf16, bf16, float>(state, t.bf16_gemm, s, Unit::kBf16);
    });
    add_int("u8s8", t.u8s8, Unit::kCode8);
    add_int("u8s4", t.u8s4, Unit::kCode4);
    add_int("u4s4", t.u4s4, Unit::kCode4);
    add_int("u6s7", t.u6s7, Unit::kCode4);
    if (t.s16s14.run != nullptr)
      RegisterBenchmark((level + "/s16s14" + at).c_str(), [&t, s](benchmark::State& state) {
        run_product<int16_t, int16_t, int32_t>(state, t.s16s14, s, Unit::kCode8);
      });
    // One kernel serves all codes where rows are multiplied in place.
    if (t.u8s8.run_strided != nullptr)
      RegisterBenchmark((level + "/in_place_u8s8" + at).c_str(), [&t, s](benchmark::State& state) {
        run_in_place<uint8_t, int8_t, int32_t>(state, t.u8s8, s, Unit::kCode8);
      });
    if (t.bf16_gemm.run_strided != nullptr)
      RegisterBenchmark((level + "/in_place_bf16" + at).c_str(), [&t, s](benchmark::State& state) {
        run_in_place<bf16, bf16, float>(state, t.bf16_gemm, s, Unit::kBf16);
      });
    if (t.weight_gradient.run_left_again != nullptr)
      RegisterBenchmark((level + "/weight_gradient" + at).c_str(),
                        [&t, s](benchmark::State& state) { run_gradient(state, t.weight_gradient, s); });
  }
}

/// Both operands of a weight gradient from `points` pixels of 256 channels, as bf16 or, the right one, as stored codes.
void pack_gradient(benchmark::State& state, const kernels::WeightGradient& g, bool left,
                   kernels::WeightGradient::PackRight right, int points) {
  const std::vector<bf16> data(static_cast<size_t>(int64_t{points + 2} * 256));
  const auto rows = rows_of(data, points + 1, 256);
  const std::vector<const void*> pixels(rows.begin(), rows.end());
  Buffer first(static_cast<size_t>(points) * 64), second(static_cast<size_t>(points) * 64);
  for (auto _ : state) {
    if (left)
      g.pack_left(rows.data(), 0, points, kernels::WeightGradient::kOutputs, first.data());
    else
      right(pixels.data(), 0, kernels::WeightGradient::kChannels, points / 2, first.data(), second.data());
    benchmark::ClobberMemory();
  }
  report_elements(state, int64_t{points} * 32);
}

void register_packing(const kernels::Table& t, const std::string& level) {
  using benchmark::RegisterBenchmark;
  if (const kernels::WeightGradient& g = t.weight_gradient; g.pack_left != nullptr) {
    static constexpr int kPoints = 1024;
    const auto add = [&](const char* name, bool left, kernels::WeightGradient::PackRight right) {
      RegisterBenchmark((level + "/pack_gradient_" + name + "/points" + std::to_string(kPoints)).c_str(),
                        [&g, left, right](benchmark::State& s) { pack_gradient(s, g, left, right, kPoints); });
    };
    add("left", true, nullptr);
    add("right_bf16", false, g.pack_right_bf16);
    add("right_u8", false, g.pack_right_u8);
    add("right_u4", false, g.pack_right_u4);
  }
  for (const int k : {39, 64, 147, 256, 576, 4608}) {
    const std::string at = "/k" + std::to_string(k);
    const auto add = [&](const std::string& name, auto body) {
      RegisterBenchmark((level + "/pack_" + name + at).c_str(), body);
    };
    add("a_u8s8", [&t, k](benchmark::State& s) { pack_a<uint8_t>(s, t.u8s8, k); });
    add("a_u4s4", [&t, k](benchmark::State& s) { pack_a<uint8_t>(s, t.u4s4, k); });
    add("a_bf16", [&t, k](benchmark::State& s) { pack_a<bf16>(s, t.bf16_gemm, k); });
    add("a_transposed_bf16", [&t, k](benchmark::State& s) { pack_transposed(s, t.bf16_gemm, k); });
    add("b_rows_bf16",
        [&t, k](benchmark::State& s) { pack_gathered<bf16>(s, t.bf16_gemm, t.bf16_gemm.pack_b_rows, k); });
    add("b_rows_u8",
        [&t, k](benchmark::State& s) { pack_gathered<uint8_t>(s, t.bf16_gemm, t.bf16_gemm.pack_b_rows_u8, k); });
    add("b_u4s4", [&t, k](benchmark::State& s) { pack_b<int8_t>(s, t.u4s4, k, 1, k); });
    add("b_bf16_by_k", [&t, k](benchmark::State& s) { pack_b<bf16>(s, t.bf16_gemm, k, 1, k); });
    add("b_bf16_by_n", [&t, k](benchmark::State& s) { pack_b<bf16>(s, t.bf16_gemm, k, 256, 1); });
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  nibble::set_float_mode();
  const nibble::kernels::Table& table = nibble::kernels::active();
  const std::string level(nibble::name_of(nibble::active_isa()));
  nibble::register_products(table, level);
  nibble::register_packing(table, level);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
