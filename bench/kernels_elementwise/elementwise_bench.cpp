// Element-wise passes on blocks of 64 rows, as ops call them: bytes read and written per second.
//
// Blocks stay in the cache; those of "streamed" passes follow each other through tensors of 32 MiB, as training's do,
// and of_memory is their share of the memory bandwidth that one thread has in this run, the best of reading, updating
// and a streamed triad: above 1 where a large third-level cache holds the tensors.
// Channels are those of ResNet-50 at multiplier 1; the level is the active one (NIBBLE_ISA).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench/probe.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/tensor.hpp"
#include "ops/kernels/table.hpp"

namespace {

using namespace nibble;
using kernels::Elementwise;
using kernels::Into;
using kernels::Rows;

constexpr int64_t kRows = 64;
constexpr int64_t kStreamed = 16 << 20;  // elements of a streamed tensor

/// Inputs and outputs of one block, and per-channel constants.
struct Data {
  int64_t n, first = 0;  // the block begins at row `first` of the tensors of halves and codes
  kernels::Store store = kernels::Store::kCached;
  std::vector<int32_t> acc, outputs;
  std::vector<int16_t> wide;
  std::vector<float> transformed, taps, acc_f32, singles, momentum, m, a, p, scale, sum, sum2;
  std::vector<bf16> y, side, through;
  Tensor out;
  std::vector<uint8_t> codes, packed;
  std::vector<int8_t> weights;

  Data(int64_t channels, int64_t rows) : n(channels) {
    const size_t size = static_cast<size_t>(kRows * n), c = static_cast<size_t>(n);
    std::mt19937 engine(1);
    std::uniform_real_distribution<float> real(-1.0f, 1.0f);
    for (size_t i = 0; i < size; ++i) {
      acc.push_back(static_cast<int32_t>(real(engine) * 4000.0f));
      acc_f32.push_back(real(engine));
      for (auto* half : {&y, &side, &through}) half->push_back(to_bf16(real(engine)));
      codes.push_back(static_cast<uint8_t>(i % 16));
    }
    singles = acc_f32;
    momentum.resize(size);
    out = Tensor::zeros(DType::bf16, {rows, n});  // begins with a line, as tensors do: streamed rows must
    for (auto* half : {&y, &side, &through}) repeat(*half, static_cast<size_t>(rows * n));
    repeat(codes, static_cast<size_t>(rows * n));
    packed.resize(static_cast<size_t>(rows * n));
    weights.resize(size);
    wide.resize(size);
    outputs.resize(size / 4);
    transformed.resize(size);
    taps.resize(size * 9 / 16);
    for (auto* constants : {&m, &a, &p}) constants->assign(c, 0.01f);
    scale.assign(c, 3.7f);
    sum.assign(c, 0.0f);
    sum2.assign(c, 0.0f);
  }

  template <typename T>
  Rows<const T> in(const std::vector<T>& v) const {
    return {v.data() + first * n, n};
  }
  template <typename T>
  Rows<T> to(std::vector<T>& v) const {
    return {v.data() + first * n, n};
  }
  Rows<bf16> to(const Tensor& t) const { return {t.row<bf16>(first), t.stride()}; }

 private:
  template <typename T>
  static void repeat(std::vector<T>& v, size_t size) {
    const size_t period = v.size();
    v.resize(size);
    for (size_t i = period; i < size; ++i) v[i] = period > 0 ? v[i - period] : T{};
  }
};

/// Rows [first_row, first_row + kCount): the pixels or taps of a tile.
template <size_t kCount, typename T>
std::array<const T*, kCount> rows_of(const Data& d, const std::vector<T>& from, int64_t first_row) {
  std::array<const T*, kCount> rows{};
  for (size_t p = 0; p < kCount; ++p) rows[p] = from.data() + (first_row + static_cast<int64_t>(p)) * d.n;
  return rows;
}

/// Traffic, operands read once and results written once. A clip class takes two bits, a packed code four, so it is not
/// a whole number per element.
int64_t bytes_of(int64_t elements, double bytes_per_element) {
  return static_cast<int64_t>(std::llround(static_cast<double>(elements) * bytes_per_element));
}

double memory_bytes_a_second() {
  static const double rate = [] {
    const MemoryBandwidth m = measure_memory_bandwidth();
    return std::max({m.read, m.read_write, m.triad});
  }();
  return rate;
}

/// Runs pass(kernels, data) and counts `bytes` of traffic for each element.
template <typename Pass>
void add(const char* name, double bytes, Pass pass) {
  benchmark::RegisterBenchmark(name,
                               [bytes, pass](benchmark::State& state) {
                                 set_float_mode();
                                 const Elementwise& ew = kernels::active().ew;
                                 Data data(state.range(0), kRows);
                                 for (auto _ : state) {
                                   pass(ew, data);
                                   benchmark::ClobberMemory();
                                 }
                                 state.SetBytesProcessed(bytes_of(state.iterations() * kRows * data.n, bytes));
                                 state.SetLabel(std::string(name_of(active_isa())));
                               })
      ->Arg(64)
      ->Arg(256)
      ->Arg(1024);
}

/// The same on tensors that no cache holds; for passes that get their rows by Data::in and Data::to only.
template <typename Pass>
void add_streamed(const std::string& name, double bytes, Pass pass) {
  add(name.c_str(), bytes, pass);
  benchmark::RegisterBenchmark((name + "_streamed").c_str(),
                               [bytes, pass](benchmark::State& state) {
                                 set_float_mode();
                                 const Elementwise& ew = kernels::active().ew;
                                 const int64_t rows = kStreamed / state.range(0);
                                 Data data(state.range(0), rows);
                                 data.store = kernels::Store::kStreamed;
                                 for (auto _ : state) {
                                   for (data.first = 0; data.first < rows; data.first += kRows) pass(ew, data);
                                   ew.publish();
                                   benchmark::ClobberMemory();
                                 }
                                 state.SetBytesProcessed(bytes_of(state.iterations() * kStreamed, bytes));
                                 state.counters["of_memory"] =
                                     benchmark::Counter(kStreamed * bytes / memory_bytes_a_second(),
                                                        benchmark::Counter::kIsIterationInvariantRate);
                                 state.SetLabel(std::string(name_of(active_isa())));
                               })
      ->Arg(64)
      ->Arg(256)
      ->Arg(1024)
      ->Arg(2048);
}

void add_products() {
  add("affine_quantize_s32", 5, [](const Elementwise& ew, Data& d) {
    ew.affine_quantize_s32(d.acc.data(), d.n, kRows, d.n, d.m.data(), d.a.data(), {d.scale.data(), 15.0f},
                           d.to(d.codes));
  });
  add("affine_bf16_s32", 6, [](const Elementwise& ew, Data& d) {
    ew.affine_bf16_s32(d.acc.data(), d.n, kRows, d.n, d.m.data(), d.a.data(), d.to(d.out), nullptr);
  });
  add("affine_add_relu_bf16_s32", 8, [](const Elementwise& ew, Data& d) {
    ew.affine_add_relu_bf16_s32(d.acc.data(), d.n, kRows, d.n, d.m.data(), d.a.data(),
                                {.shortcut = d.in(d.side), .out = d.to(d.out)});
  });
  add("affine_add_relu_bf16_s32, codes", 9, [](const Elementwise& ew, Data& d) {
    ew.affine_add_relu_bf16_s32(
        d.acc.data(), d.n, kRows, d.n, d.m.data(), d.a.data(),
        {.shortcut = d.in(d.side), .out = d.to(d.out), .quantizer = {d.scale.data(), 15.0f}, .codes = d.to(d.codes)});
  });
  add("affine_f32_s32", 8, [](const Elementwise& ew, Data& d) {
    ew.affine_f32_s32(d.acc.data(), d.n, kRows, d.n, d.m.data(), d.a.data(), d.to(d.singles));
  });
  add("affine_quantize_f32", 5, [](const Elementwise& ew, Data& d) {
    ew.affine_quantize_f32(d.acc_f32.data(), d.n, kRows, d.n, d.m.data(), d.a.data(), {d.scale.data(), 15.0f},
                           d.to(d.codes));
  });
  add("affine_bf16_f32", 6, [](const Elementwise& ew, Data& d) {
    ew.affine_bf16_f32(d.acc_f32.data(), d.n, kRows, d.n, d.m.data(), d.a.data(), d.to(d.out), nullptr);
  });
  add("affine_add_relu_bf16_f32", 8, [](const Elementwise& ew, Data& d) {
    ew.affine_add_relu_bf16_f32(d.acc_f32.data(), d.n, kRows, d.n, d.m.data(), d.a.data(),
                                {.shortcut = d.in(d.side), .out = d.to(d.out)});
  });
  add("affine_f32_f32", 8, [](const Elementwise& ew, Data& d) {
    ew.affine_f32_f32(d.acc_f32.data(), d.n, kRows, d.n, d.m.data(), d.a.data(), d.to(d.singles));
  });
  add("rescale_stats_s32", 6, [](const Elementwise& ew, Data& d) {
    ew.rescale_stats_s32(d.acc.data(), d.n, kRows, d.n, d.m.data(), d.to(d.out), d.store, d.sum.data(), d.sum2.data());
  });
  add("rescale_stats_f32", 6, [](const Elementwise& ew, Data& d) {
    ew.rescale_stats_f32(d.acc_f32.data(), d.n, kRows, d.n, d.m.data(), d.to(d.out), d.store, d.sum.data(),
                         d.sum2.data());
  });
  add("scale_bf16_f32", 6, [](const Elementwise& ew, Data& d) {
    ew.scale_bf16_f32(d.acc_f32.data(), d.n, kRows, d.n, d.m.data(), d.to(d.out), Into::kOverwrite,
                      kernels::Store::kCached);
  });
}

/// Tiles of kEdge x kEdge outputs, as many as there are rows for; bytes per element of all rows.
template <int64_t kEdge>
void add_gradient_transforms(const std::string& name) {
  constexpr int64_t kPositions = (kEdge + 2) * (kEdge + 2), kOutputs = kEdge * kEdge, kTiles = kRows / kPositions;
  const auto tiles = [](const Elementwise& ew, const auto& pass) {
    for (int64_t tile = 0; tile < kTiles; ++tile) pass(kEdge == 2 ? ew.f2x2 : ew.f4x4, tile * kPositions);
  };
  constexpr double kShare = static_cast<double>(kTiles) / kRows;
  const auto bytes = [](int64_t read, int64_t size, int64_t written) {
    return kShare * static_cast<double>(read * size + written * 4);
  };
  add((name + "_input_u8").c_str(), bytes(kPositions, 1, kPositions), [=](const Elementwise& ew, Data& d) {
    tiles(ew, [&](const auto& f, int64_t row) {
      f.input_u8(rows_of<kPositions>(d, d.codes, row).data(), 0, d.n, d.transformed.data() + row * d.n, d.n);
    });
  });
  add((name + "_input_bf16").c_str(), bytes(kPositions, 2, kPositions), [=](const Elementwise& ew, Data& d) {
    tiles(ew, [&](const auto& f, int64_t row) {
      f.input_bf16(rows_of<kPositions>(d, d.y, row).data(), 0, d.n, d.transformed.data() + row * d.n, d.n);
    });
  });
  add((name + "_d_y").c_str(), bytes(kOutputs, 2, kPositions), [=](const Elementwise& ew, Data& d) {
    tiles(ew, [&](const auto& f, int64_t row) {
      f.d_y(rows_of<kOutputs>(d, d.y, row).data(), 0, d.n, d.transformed.data() + row * d.n, d.n);
    });
  });
  add((name + "_weights").c_str(), bytes(9, 2, kPositions), [=](const Elementwise& ew, Data& d) {
    tiles(ew, [&](const auto& f, int64_t row) {
      f.weights(rows_of<9>(d, d.y, row).data(), d.n, d.transformed.data() + row * d.n, d.n);
    });
  });
  add((name + "_output").c_str(), bytes(kPositions, 4, kOutputs), [=](const Elementwise& ew, Data& d) {
    tiles(ew, [&](const auto& f, int64_t row) {
      std::array<float*, static_cast<size_t>(kOutputs)> out{};
      for (int64_t q = 0; q < kOutputs; ++q) out[static_cast<size_t>(q)] = d.taps.data() + q * d.n;
      f.output(d.transformed.data() + row * d.n, d.n, d.n, out.data());
    });
  });
  add((name + "_d_w").c_str(), bytes(kPositions, 4, 9), [=](const Elementwise& ew, Data& d) {
    tiles(ew,
          [&](const auto& f, int64_t row) { f.d_w(d.transformed.data() + row * d.n, d.n, d.n, d.taps.data(), d.n); });
  });
}

void add_training() {
  add_streamed("normalise_activate_codes", 3, [](const Elementwise& ew, Data& d) {
    kernels::NormaliseActivateArgs args;
    args.rows = kRows;
    args.n = d.n;
    args.y = d.in(d.y);
    args.m = d.m.data();
    args.a = d.a.data();
    args.quantizer = {d.scale.data(), 15.0f};
    args.codes = d.to(d.codes);
    ew.normalise_activate(args);
  });
  add_streamed("normalise_activate_block_output", 7.25, [](const Elementwise& ew, Data& d) {
    kernels::NormaliseActivateArgs args;
    args.rows = kRows;
    args.n = d.n;
    args.y = d.in(d.y);
    args.m = d.m.data();
    args.a = d.a.data();
    args.shortcut = d.in(d.side);
    args.z = d.to(d.out);
    args.quantizer = {d.scale.data(), 15.0f};
    args.through_bf16 = true;
    args.codes = d.to(d.codes);
    args.classes = {d.packed.data() + d.first * kernels::clip_class_bytes(d.n), kernels::clip_class_bytes(d.n)};
    args.store_z = d.store;
    ew.normalise_activate(args);
  });
  add_streamed("activate_backward_codes", 6, [](const Elementwise& ew, Data& d) {
    kernels::ActivateBackwardArgs args;
    args.rows = kRows;
    args.n = d.n;
    args.y = d.in(d.y);
    args.m = d.m.data();
    args.a = d.a.data();
    args.through_quantizer = d.in(d.through);
    args.quantizer = {d.scale.data(), 15.0f};
    args.mean = d.p.data();
    args.g = d.to(d.out);
    args.store_g = d.store;
    args.sum_g = d.sum.data();
    args.sum_g_centred = d.sum2.data();
    ew.activate_backward(args);
  });
  add_streamed("activate_backward_block_output", 8.25, [](const Elementwise& ew, Data& d) {
    kernels::ActivateBackwardArgs args;
    args.rows = kRows;
    args.n = d.n;
    args.y = d.in(d.y);
    args.classes = {d.packed.data() + d.first * kernels::clip_class_bytes(d.n), kernels::clip_class_bytes(d.n)};
    args.through_quantizer = d.in(d.through);
    args.direct = d.in(d.side);
    args.quantizer = {d.scale.data(), 15.0f};
    args.mean = d.p.data();
    args.g = d.to(d.out);
    args.store_g = d.store;
    args.sum_g = d.sum.data();
    args.sum_g_centred = d.sum2.data();
    ew.activate_backward(args);
  });
  add_streamed("norm_backward_sums", 4, [](const Elementwise& ew, Data& d) {
    ew.norm_backward_sums(d.in(d.through), d.in(d.y), kRows, d.n, d.p.data(), d.sum.data(), d.sum2.data());
  });
  add_streamed("norm_backward_apply", 6, [](const Elementwise& ew, Data& d) {
    ew.norm_backward_apply(d.in(d.through), d.in(d.y), kRows, d.n, d.p.data(), d.m.data(), d.a.data(), d.to(d.out),
                           d.store);
  });
  add_streamed("add_bf16", 6,
               [](const Elementwise& ew, Data& d) { ew.add_bf16(d.in(d.y), d.in(d.side), kRows, d.n, d.to(d.out)); });
  add("sum_rows_bf16", 2,
      [](const Elementwise& ew, Data& d) { ew.sum_rows_bf16(d.in(d.y), kRows, d.n, d.sum.data()); });
  // Seven windows of nine rows each, of the block's 64: 63 are read, 7 written (value and place).
  add("max_rows_bf16_of_9", (63 * 2.0 + 7 * 3) / kRows, [](const Elementwise& ew, Data& d) {
    const bf16* rows[9];
    for (int64_t first = 0; first + 9 <= kRows; first += 9) {
      for (int64_t r = 0; r < 9; ++r) rows[r] = d.y.data() + (first + r) * d.n;
      ew.max_rows_bf16(rows, 9, d.n, d.out.data<bf16>(), d.packed.data());
    }
  });
  add("max_rows_u8_of_9", (63 + 7.0) / kRows, [](const Elementwise& ew, Data& d) {
    const uint8_t* rows[9];
    for (int64_t r = 0; r < 9; ++r) rows[r] = d.codes.data() + r * d.n;
    ew.max_rows_u8({rows, 9 * d.n}, 9, 7, d.n, d.to(d.packed));
  });
  // Four tiles of 16 pixels, and of sums in 16 positions; one of 36 for the gradients' larger ones.
  add("winograd_input", 2, [](const Elementwise& ew, Data& d) {
    for (int64_t tile = 0; tile < kRows; tile += 16)
      ew.winograd_input(rows_of<16>(d, d.codes, tile).data(), 0, d.n, d.packed.data() + tile * d.n, d.n);
  });
  add("winograd_input_wide", 3, [](const Elementwise& ew, Data& d) {
    for (int64_t tile = 0; tile < kRows; tile += 16)
      ew.winograd_input_wide(rows_of<16>(d, d.codes, tile).data(), 0, d.n, d.wide.data() + tile * d.n, d.n);
  });
  add_gradient_transforms<2>("winograd_f2x2");
  add_gradient_transforms<4>("winograd_f4x4");
  add("winograd_output", 4 + 4.0 / 4, [](const Elementwise& ew, Data& d) {
    for (int64_t tile = 0; tile < kRows; tile += 16) {
      int32_t* out[4];
      for (int64_t q = 0; q < 4; ++q) out[q] = d.outputs.data() + (tile / 4 + q) * d.n;
      ew.winograd_output(d.acc.data() + tile * d.n, d.n, d.n, d.acc.data(), d.n, out);
    }
  });
  add("max_rows_backward_bf16_of_4", 3 + 2.0 / 4, [](const Elementwise& ew, Data& d) {
    constexpr uint8_t kPlace[4] = {0, 2, 6, 8};
    for (int64_t first = 0; first + 4 <= kRows; first += 4) {
      const bf16* g[4];
      const uint8_t* arg[4];
      for (int64_t r = 0; r < 4; ++r) {
        g[r] = d.y.data() + (first + r) * d.n;
        arg[r] = d.codes.data() + (first + r) * d.n;
      }
      ew.max_rows_backward_bf16(g, arg, kPlace, 4, d.n, d.out.data<bf16>());
    }
  });
}

void add_codes_and_weights() {
  add("quantize_bf16", 3, [](const Elementwise& ew, Data& d) {
    ew.quantize_bf16(d.in(d.y), kRows, d.n, {d.scale.data(), 15.0f}, d.to(d.codes));
  });
  add("dequantize_bf16", 3, [](const Elementwise& ew, Data& d) {
    ew.dequantize_bf16(d.in(d.codes), kRows, d.n, d.scale.data(), d.to(d.out));
  });
  add("pack_u4", 1.5, [](const Elementwise& ew, Data& d) { ew.pack_u4(d.codes.data(), kRows * d.n, d.packed.data()); });
  add("unpack_s4", 1.5,
      [](const Elementwise& ew, Data& d) { ew.unpack_s4(d.packed.data(), kRows * d.n, d.weights.data()); });
  add("unpack_u4", 1.5,
      [](const Elementwise& ew, Data& d) { ew.unpack_u4(d.packed.data(), kRows * d.n, d.codes.data()); });
  add("pack_s4", 1.5,
      [](const Elementwise& ew, Data& d) { ew.pack_s4(d.weights.data(), kRows * d.n, d.packed.data()); });
  add("multiply_u8", 2, [](const Elementwise& ew, Data& d) {  // by itself
    ew.multiply_u8(d.codes.data(), d.codes.data(), kRows * d.n, d.packed.data());
  });
  add("s8_to_bf16", 3,
      [](const Elementwise& ew, Data& d) { ew.s8_to_bf16(d.weights.data(), kRows * d.n, d.out.data<bf16>()); });
  add("f32_to_bf16", 6,
      [](const Elementwise& ew, Data& d) { ew.f32_to_bf16(d.acc_f32.data(), kRows * d.n, d.out.data<bf16>()); });
  add("bf16_to_f32", 6,
      [](const Elementwise& ew, Data& d) { ew.bf16_to_f32(d.y.data(), kRows * d.n, d.singles.data()); });
  add("absmax", 4, [](const Elementwise& ew, Data& d) {
    benchmark::DoNotOptimize(ew.absmax(d.acc_f32.data(), nullptr, kRows * d.n));
  });
  add("quantize_weights", 5, [](const Elementwise& ew, Data& d) {
    ew.quantize_weights(d.acc_f32.data(), nullptr, kRows * d.n, 7.0f, 7.0f, d.weights.data());
  });
  add("sgd_step", 20, [](const Elementwise& ew, Data& d) {
    ew.sgd_step(d.singles.data(), d.momentum.data(), d.acc_f32.data(), kRows * d.n, 1e-9f, 0.9f, 1e-4f, true);
  });
  add("add_f32", 12,
      [](const Elementwise& ew, Data& d) { ew.add_f32(d.acc_f32.data(), kRows * d.n, d.singles.data()); });
  add("scale_rows_f32", 8, [](const Elementwise& ew, Data& d) {
    ew.scale_rows_f32(d.in(d.acc_f32), kRows, d.n, nullptr, d.m.data(), d.to(d.singles), Into::kOverwrite, d.store);
  });
}

}  // namespace

int main(int argc, char** argv) {
  nibble::set_threads(1);  // a pass runs on one, and so does what it is compared with
  add_products();
  add_training();
  add_codes_and_weights();
  return nibble::bench::run_benchmarks(argc, argv);
}
