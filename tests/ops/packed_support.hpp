// What the tests of the training fast path share: operands in every stored form, the levels to visit.
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/rng.hpp"
#include "ops/activation_codes.hpp"
#include "ops/norm_activate.hpp"
#include "ops/packed_conv.hpp"
#include "tests/error_of.hpp"
#include "tests/kernels/levels_under_test.hpp"
#include "tests/ops/naive_conv.hpp"
#include "tests/threads_guard.hpp"

namespace nibble::testing {

inline constexpr double kUnitF32 = 0x1p-24;  // half a unit in the last place, relative
inline constexpr double kUnitBf16 = 0x1p-8;

/// Runs body() on each of the levels and puts the level back that was in use.
template <typename Body>
void on_levels(const std::vector<Isa>& levels, const Body& body) {
  struct Restore {
    Isa isa = active_isa();
    ~Restore() { set_active_isa(isa); }
  } restore;
  set_float_mode();  // expected values are computed in the mode of production
  for (const Isa isa : levels) {
    set_active_isa(isa);
    const std::string level(name_of(isa));
    INFO("level " << level);
    body();
  }
}
/// Runs body() on every level under test.
template <typename Body>
void on_every_level(const Body& body) {
  on_levels(levels_under_test(), body);
}

/// Calls body() with 1, 2 and 3 threads.
template <typename Body>
void with_thread_counts(const Body& body) {
  const ThreadsGuard before;
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    body();
  }
}

/// Normal numbers rounded to bf16, rows rounded up to a cache line, the padding poisoned with NaN.
inline Tensor random_bf16(const Shape& shape, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  Tensor t(DType::bf16, shape, Tensor::round_stride(DType::bf16, shape.back()));
  Rng rng(seed, rng_purpose::kTest);
  for (int64_t r = 0; r < t.rows(); ++r)
    for (int64_t c = 0; c < t.stride(); ++c)
      t.row<bf16>(r)[c] = c < shape.back() ? to_bf16(low + (high - low) * rng.uniform()) : bf16{0x7fc0};
  return t;
}

inline Tensor random_f32(const Shape& shape, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  Tensor t(DType::f32, shape);
  Rng rng(seed, rng_purpose::kTest);
  for (int64_t i = 0; i < t.size(); ++i) t.data<float>()[i] = low + (high - low) * rng.uniform();
  return t;
}

inline std::vector<float> random_bounds(int64_t channels, uint32_t seed, float low = 0.04f, float high = 6.0f) {
  std::vector<float> b;
  Rng rng(seed, rng_purpose::kTest);
  for (int64_t c = 0; c < channels; ++c) b.push_back(low * std::pow(high / low, rng.uniform()));
  return b;
}

/// Random integers in [low, high], both ends more often than chance would have it.
inline std::vector<int> random_codes(int64_t n, int low, int high, uint32_t seed) {
  std::vector<int> codes(at(n));
  Rng rng(seed, rng_purpose::kTest);
  for (int& c : codes) {
    const uint32_t pick = rng.below(8);
    c = pick == 0 ? low : pick == 1 ? high : low + static_cast<int>(rng.below(static_cast<uint32_t>(high - low + 1)));
  }
  return codes;
}

/// Codes [n, h, w, c] as training stores them: bytes or nibbles in padded rows, + 128 when signed.
inline Tensor store_codes(const std::vector<int>& codes, const Shape& shape, const ActivationQuantizer& q) {
  const Tensor t = Tensor::zeros(code_dtype(q), shape, code_stride(shape.back()));
  for (int64_t r = 0; r < t.rows(); ++r)
    for (int64_t c = 0; c < shape.back(); ++c) {
      const int code = codes[at(r * shape.back() + c)] + (q.is_signed ? kSignedOffset : 0);
      if (t.dtype() == DType::u8)
        t.row<uint8_t>(r)[c] = static_cast<uint8_t>(code);
      else
        t.row<uint8_t>(r)[c / 2] = static_cast<uint8_t>(t.row<uint8_t>(r)[c / 2] | code << (c % 2 * 4));
    }
  return t;
}

/// The dense padded image of a row-folded layer; `T` is uint8_t (signed codes) or bf16; `rim` fills the padding.
template <typename T>
Tensor store_image(const std::vector<T>& values, const ConvShape& s, T rim) {
  const int64_t pads = s.pad_before + s.pad_after;
  Tensor t(sizeof(T) == 1 ? DType::u8 : DType::bf16, {s.n, s.h + pads, s.w + pads, s.ic});
  std::fill_n(t.data<T>(), t.size(), rim);
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t y = 0; y < s.h; ++y)
      std::copy_n(values.data() + (i * s.h + y) * s.w * s.ic, s.w * s.ic,
                  t.row<T>((i * (s.h + pads) + y + s.pad_before) * (s.w + pads) + s.pad_before));
  return t;
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape() || a.stride() != b.stride()) return false;
  const size_t row = at(a.shape().back() * bits_of(a.dtype()) + 7) / 8;  // the padding of rows is unspecified
  for (int64_t r = 0; r < a.rows(); ++r)
    if (std::memcmp(a.raw() + at(r) * a.row_bytes(), b.raw() + at(r) * b.row_bytes(), row) != 0) return false;
  return true;
}

/// A bound of first_beyond: equal.
inline constexpr auto kExact = [](size_t) { return 0.0; };

/// First element that is further from the reference than bound(i), as text; empty if there is none.
template <typename Bound>
std::string first_beyond(const Doubles& got, const Doubles& expected, const Bound& bound) {
  if (got.size() != expected.size()) return fmt::format("{} elements instead of {}", got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i)
    if (!(std::abs(got[i] - expected[i]) <= bound(i)))
      return fmt::format("element {}: got {}, expected {}, allowed {:.3g}", i, got[i], expected[i], bound(i));
  return {};
}

/// || got - expected || / || expected ||.
inline double relative_distance(const Doubles& got, const Doubles& expected) {
  REQUIRE(got.size() == expected.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  REQUIRE(norm > 0);
  return std::sqrt(error / norm);
}

}  // namespace nibble::testing
