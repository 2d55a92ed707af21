// Products and packing of the active level over ResNet-50's shapes, in GMAC/s and as a share of the core's peak.
//
// One thread. Beside each row the peak of its instructions is measured (ops/kernels/isa/peak.hpp); a row's share is of
// the largest so far.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "ops/kernels/isa/peak.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {
namespace {

using kernels::GemmFloat;
using kernels::GemmInt;
using kernels::Into;
using kernels::Unit;

/// One image's product: m output pixels, n output channels, k = taps * input channels.
struct Shape {
  const char* name;
  int m, n, k;
};
constexpr Shape kShapes[] = {
    {"stem_7x7_112", 12544, 64, 147},  {"1x1_64_64_56", 3136, 64, 64},    {"3x3_64_64_56", 3136, 64, 576},
    {"1x1_64_256_56", 3136, 256, 64},  {"1x1_256_64_56", 3136, 64, 256},  {"3x3_128_28", 784, 128, 1152},
    {"1x1_512_128_28", 784, 128, 512}, {"3x3_256_14", 196, 256, 2304},    {"1x1_256_1024_14", 196, 1024, 256},
    {"3x3_512_7", 49, 512, 4608},      {"1x1_2048_512_7", 49, 512, 2048},
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
  const int k = (s.k + g.kr - 1) / g.kr * g.kr, m_panels = (std::min(s.m, kBlockRows) + g.mr - 1) / g.mr;
  const int n_panels = (s.n + g.nr - 1) / g.nr;
  const int64_t a_panel = (int64_t{g.mr} * k * g.a_bytes + 63) / 64 * 64, b_panel = int64_t{g.nr} * k * g.b_bytes;
  Buffer a(static_cast<size_t>(m_panels * a_panel)), b(static_cast<size_t>(n_panels * b_panel));
  const std::vector<A> row = ones<A>(s.k);
  const std::vector<B> column = ones<B>(s.k);
  const std::vector<const A*> rows(static_cast<size_t>(g.mr), row.data());
  for (int p = 0; p < m_panels; ++p) g.pack_a(rows.data(), g.mr, s.k, a.data() + p * a_panel);
  for (int n = 0; n < n_panels; ++n) g.pack_b(column.data(), 1, 0, s.k, g.nr, b.data() + n * b_panel);
  const int64_t ldc = int64_t{n_panels} * g.nr;
  std::vector<C> c(static_cast<size_t>(int64_t{m_panels} * g.mr * ldc));
  for (auto _ : state) {
    for (int n = 0; n < n_panels; ++n)
      g.run(k, m_panels, a.data(), a_panel, b.data() + n * b_panel, c.data() + n * g.nr, ldc, Into::kOverwrite);
    benchmark::ClobberMemory();
  }
  // The products asked for: what a kernel pads its tiles with is no work done.
  report(state, static_cast<double>(std::min(s.m, kBlockRows)) * s.n * s.k, unit);
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
  }
}

void register_packing(const kernels::Table& t, const std::string& level) {
  using benchmark::RegisterBenchmark;
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
