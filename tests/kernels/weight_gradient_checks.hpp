// The facts that a weight-gradient kernel must show, whatever level (or emulation of one) it belongs to.
#pragma once
#include "tests/kernels/gemm_support.hpp"

namespace nibble::testing {

using kernels::BlockProduct;
using kernels::StepRun;
using kernels::WeightGradient;

/// How the pixels of the right operand are stored.
enum class Pixels { kBf16, kU8, kSigned, kU4 };
constexpr Pixels kPixels[] = {Pixels::kBf16, Pixels::kU8, Pixels::kSigned, Pixels::kU4};

struct GradientExtent {
  int64_t steps = 1;
  int outputs = 32, channels = 32;
  int64_t offset = 0;  // of the panel in a row of both operands
};

/// One block of both operands with its reference: small integers, so that every sum is exact in fp32.
struct GradientCase {
  static constexpr int64_t kLargestTap = 37;
  int64_t points, pairs;
  Matrix<bf16> d_y;
  Matrix<uint8_t> stored;  // rows of exactly the bytes that may be read
  Matrix<int> values;      // [pixel][channel]
  GradientCase(Pixels pixels, GradientExtent e, std::mt19937& random)
      : points(e.steps * WeightGradient::kPoints),
        pairs((points + kLargestTap + 1) / 2 + 1),
        d_y(points, e.offset + e.outputs),
        stored(2 * pairs + 1, bytes_of(pixels, e.offset + e.channels)),
        values(2 * pairs + 1, e.offset + e.channels) {
    std::uniform_int_distribution<int> gradient(-7, 7), code(0, pixels == Pixels::kU4 ? 15 : 255);
    for (bf16& v : d_y.cells) v = to_bf16(static_cast<float>(gradient(random)));
    for (int64_t p = 0; p < values.rows; ++p)
      for (int64_t c = 0; c < values.columns; ++c) {
        const int v = code(random);
        store(pixels, p, c, v);
        values(p, c) = pixels == Pixels::kSigned ? v - 128 : v;
      }
  }
  static int64_t bytes_of(Pixels pixels, int64_t channels) {
    return pixels == Pixels::kBf16 ? 2 * channels : pixels == Pixels::kU4 ? (channels + 1) / 2 : channels;
  }
  void store(Pixels pixels, int64_t p, int64_t c, int v) {
    if (pixels == Pixels::kBf16) {
      const bf16 b = to_bf16(static_cast<float>(v));
      std::memcpy(&stored(p, 2 * c), &b, sizeof b);
    } else if (pixels == Pixels::kU4) {
      stored(p, c / 2) = static_cast<uint8_t>(stored(p, c / 2) | v << (c % 2 * 4));
    } else {
      stored(p, c) = static_cast<uint8_t>(v);
    }
  }
};

inline WeightGradient::PackRight pack_right_of(const WeightGradient& g, Pixels pixels) {
  return pixels == Pixels::kBf16     ? g.pack_right_bf16
         : pixels == Pixels::kU8     ? g.pack_right_u8
         : pixels == Pixels::kSigned ? g.pack_right_signed
                                     : g.pack_right_u4;
}

/// Sums that differ from before + sum over points of d_y[p][o] * x[p + tap][c].
inline int64_t wrong_sums(const GradientCase& of, GradientExtent e, int64_t tap, const float* sums, double before) {
  int64_t wrong = 0;
  for (int o = 0; o < e.outputs; ++o)
    for (int c = 0; c < e.channels; ++c) {
      double sum = before;
      for (int64_t p = 0; p < of.points; ++p)
        sum += value_of(of.d_y(p, e.offset + o)) * of.values(p + tap, e.offset + c);
      wrong += static_cast<double>(sums[o * WeightGradient::kChannels + c]) != sum;
    }
  return wrong;
}

inline void check_gradient_block(const WeightGradient& g, Pixels pixels, GradientExtent e, const std::string& kernel) {
  std::mt19937 random(static_cast<uint32_t>(e.steps * 64 + e.outputs + e.channels));
  const GradientCase of(pixels, e, random);
  const std::string what = fmt::format("{} pixels {} steps {} outputs {} channels {}", kernel, static_cast<int>(pixels),
                                       e.steps, e.outputs, e.channels);
  PanelBuffer left(of.points * 64), even(of.pairs * 128), odd(of.pairs * 128), even_alone(of.pairs * 128),
      odd_alone(of.pairs * 128);
  const auto pixel_rows = of.stored.row_pointers(0, of.stored.rows);
  const std::vector<const void*> rows(pixel_rows.begin(), pixel_rows.end());
  const auto pack_right = pack_right_of(g, pixels);
  g.pack_left(of.d_y.row_pointers(0, of.points).data(), e.offset, of.points, e.outputs, left.data());
  pack_right(rows.data(), e.offset, e.channels, of.pairs, even.data(), odd.data());
  pack_right(rows.data(), e.offset, e.channels, of.pairs, even_alone.data(), nullptr);
  pack_right(rows.data(), e.offset, e.channels, of.pairs, nullptr, odd_alone.data());
  CHECK_MESSAGE((even.same_bytes(even_alone) && odd.same_bytes(odd_alone)), what);
  REQUIRE_MESSAGE((left.guard_intact() && even.guard_intact() && odd.guard_intact()), what);

  const std::vector<int64_t> taps = {0, 1, 2, 3, 16, GradientCase::kLargestTap};
  // In two runs, the second steps first; sums are exact, so their order does not show.
  const int64_t half = e.steps / 2;
  const StepRun runs[] = {{half, half, e.steps - half}, {0, 0, half}};
  constexpr int64_t kSums = WeightGradient::kOutputs * WeightGradient::kChannels;
  const auto count = static_cast<int64_t>(taps.size());
  PanelBuffer by_left(count * kSums * 4), by_right(count * kSums * 4);
  for (const auto& [run, to] : {std::pair{g.run_left_again, &by_left}, std::pair{g.run_right_again, &by_right}}) {
    std::vector<BlockProduct> list;
    auto* const sums = reinterpret_cast<float*>(to->data());
    for (int64_t t = 0; t < count; ++t) {
      PanelBuffer& right = taps[static_cast<size_t>(t)] % 2 == 0 ? even : odd;
      list.push_back({.left = left.data(),
                      .right = right.data() + taps[static_cast<size_t>(t)] / 2 * 64,
                      .right_panel_bytes = of.pairs * 64,
                      .runs = runs,
                      .run_count = 2,
                      .sums = sums + t * kSums,
                      .ahead = sums,
                      .ahead_stride = 1 << 20});  // far outside any memory
    }
    for (const double before : {0.0, 1.0}) {  // overwrites junk, then adds the products to themselves
      run(list.data(), count, before > 0 ? Into::kAccumulate : Into::kOverwrite);
      for (int64_t t = 0; t < count; ++t) {
        std::vector<float> got(sums + t * kSums, sums + (t + 1) * kSums);
        if (before > 0)
          for (float& v : got) v /= 2;
        CHECK_MESSAGE(wrong_sums(of, e, taps[static_cast<size_t>(t)], got.data(), 0) == 0, what, " tap ",
                      taps[static_cast<size_t>(t)]);
      }
    }
    CHECK_MESSAGE(to->guard_intact(), what);
  }
  // Outputs that the layer does not have are zero, whatever lies after the row.
  const auto* const sums = reinterpret_cast<const float*>(by_left.data());
  for (int64_t i = e.outputs * WeightGradient::kChannels; i < kSums; ++i) CHECK_MESSAGE(sums[i] == 0.0f, what);
}

/// Every number of outputs and channels at one step, several depths at ragged numbers.
inline void check_weight_gradient(const WeightGradient& g, const std::string& kernel) {
  for (const Pixels pixels : kPixels) {
    for (int n = 1; n <= 32; ++n) check_gradient_block(g, pixels, {1, n, 33 - n, 0}, kernel);
    for (const int64_t steps : {0, 1, 2, 3, 15, 16, 17, 33}) {
      check_gradient_block(g, pixels, {steps, 32, 32, 32}, kernel);
      check_gradient_block(g, pixels, {steps, 7, 15, 64}, kernel);
    }
  }
}

}  // namespace nibble::testing
