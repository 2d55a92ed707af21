// Memory bandwidth of all threads together: read/64MiB, read-write/64MiB, triad/64MiB (two arrays read, a third written
// past the caches), and the same on arrays that fit the second- or third-level cache. Sizes are those of one array.
#include <benchmark/benchmark.h>

#include <memory>

#include "bench/probe.hpp"
#include "ops/kernels/isa/bandwidth.hpp"

namespace nibble::bench {
namespace {

constexpr int64_t kPart = int64_t{1} << 14;  // 64 KiB per task: both threads get work from the smallest array

struct Arrays {
  explicit Arrays(int64_t floats)
      : size(floats), data(std::make_unique_for_overwrite<float[]>(3 * static_cast<size_t>(floats))) {
    by_parts([&](int64_t at) {
      for (int64_t k = 0; k < 3; ++k) std::fill_n(array(k) + at, kPart, 1.0f);
    });
  }
  float* array(int64_t k) const { return data.get() + k * size; }
  template <typename Body>
  void by_parts(const Body& body) const {
    parallel_for(size / kPart, [&](int64_t i) { body(i * kPart); });
  }

  int64_t size;
  std::unique_ptr<float[]> data;
};

template <typename Body>
void run(benchmark::State& state, int64_t floats, int64_t bytes_per_float, const Body& body) {
  const Arrays arrays(floats);
  for (auto _ : state) arrays.by_parts([&](int64_t at) { body(arrays, at); });
  state.SetBytesProcessed(state.iterations() * floats * bytes_per_float);
}

void add(int64_t kib) {
  const int64_t floats = kib * 256;
  const std::string at = kib < 1024 ? fmt::format("/{}KiB", kib) : fmt::format("/{}MiB", kib / 1024);
  const auto row = [&](const std::string& name, int64_t bytes, auto body) {
    benchmark::RegisterBenchmark((name + at).c_str(),
                                 [floats, bytes, body](benchmark::State& state) { run(state, floats, bytes, body); })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  };
  row("read", 4, [](const Arrays& a, int64_t i) {
    float sum = kernels::read_floats(a.array(0) + i, kPart);
    benchmark::DoNotOptimize(sum);
  });
  row("read-write", 8, [](const Arrays& a, int64_t i) { kernels::halve_floats(a.array(0) + i, kPart); });
  row("triad", 12, [](const Arrays& a, int64_t i) {
    kernels::stream_triad(a.array(2) + i, a.array(0) + i, a.array(1) + i, 2.0f, kPart);
  });
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  for (const int64_t kib : {int64_t{256}, int64_t{4096}, nibble::bytes_beyond_caches() / 1024}) nibble::bench::add(kib);
  return nibble::bench::run_benchmarks(argc, argv);
}
