// What the element-wise tests share: padded grids with guards, adversarial values, the levels to visit.
#pragma once
#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/dtype.hpp"
#include "engine/parallel.hpp"
#include "ops/kernels/table.hpp"
#include "tests/kernels/end_of_page.hpp"
#include "tests/kernels/levels_under_test.hpp"

namespace nibble::testing {

inline constexpr std::array<int64_t, 9> kRowCounts = {0, 1, 2, 7, 8, 9, 17, 48, 64};
inline constexpr std::array<int64_t, 18> kWidths = {0,  1,  7,  8,  9,  15, 16, 17,  31,
                                                    32, 33, 39, 63, 64, 65, 79, 256, 317};

/// kTame: values near one. kWild: also zeros of both signs, denormals, rounding ties, huge values, infinities and NaN.
enum class Fill { kTame, kWild };

inline float float_of(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

/// The largest values of either sign, ties of the rounding to bf16 and everything that is not a normal number.
inline constexpr std::array<uint32_t, 24> kWildBits = {
    0x00000000u, 0x80000000u, 0x00000001u, 0x80000001u, 0x007fffffu, 0x807fffffu, 0x00800000u, 0x80800000u,
    0x3f808000u, 0x3f818000u, 0x3f807fffu, 0x3f808001u, 0xbf808000u, 0xbf818000u, 0x7f7fffffu, 0xff7fffffu,
    0x7f7f7fffu, 0x7f7f8000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xffffffffu};

class Values {
 public:
  Values(Fill fill, uint32_t seed) : fill_(fill), engine_(seed) {}

  int64_t integer(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine_); }

  float any_float() {
    if (fill_ == Fill::kTame || integer(0, 2) != 0) return real(-4.0f, 4.0f);
    if (integer(0, 1) == 0) return float_of(kWildBits[static_cast<size_t>(integer(0, std::ssize(kWildBits) - 1))]);
    return static_cast<float>(integer(-256, 256)) / 16.0f;  // bucket boundaries of scales that are powers of two
  }

  template <typename T>
  T any() {
    if constexpr (std::is_same_v<T, float>) {
      return any_float();
    } else if constexpr (std::is_same_v<T, bf16>) {
      // Half of the wild values keep their bits, so that denormals and signalling NaNs come in as they are.
      const uint32_t bits = std::bit_cast<uint32_t>(any_float());
      return {static_cast<uint16_t>(bits >> 16)};
    } else if constexpr (std::is_same_v<T, int32_t>) {
      if (fill_ == Fill::kTame) return static_cast<int32_t>(integer(-4000, 4000));
      constexpr std::array<int32_t, 8> kEdges = {0,
                                                 -1,
                                                 1,
                                                 16777217,
                                                 -16777219,
                                                 33554435,
                                                 std::numeric_limits<int32_t>::max(),
                                                 std::numeric_limits<int32_t>::min()};
      const int64_t pick = integer(0, 31);
      return pick < 8 ? kEdges[static_cast<size_t>(pick)] : static_cast<int32_t>(integer(-100000000, 100000000));
    } else {
      return static_cast<T>(integer(std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
    }
  }

 private:
  Fill fill_;
  std::mt19937 engine_;
};

/// Half of the shapes are streamed, from rows that begin with a line.
inline constexpr int64_t kStreamedElements = 32;
inline kernels::Store store_at(int64_t rows, int64_t n) {
  return (rows + n) % 2 == 0 ? kernels::Store::kStreamed : kernels::Store::kCached;
}
inline int64_t padding_at(int64_t rows, int64_t n) {
  return store_at(rows, n) == kernels::Store::kStreamed ? kStreamedElements - n % kStreamedElements : 5;
}

/// rows x n elements in a buffer with a stride above n and guard elements before them; every byte that no row owns
/// keeps a pattern, so comparing two grids also proves that nothing was written outside the rows. Nothing lies after
/// the last row: a kernel that reads or writes there crashes.
template <typename T>
class Grid {
 public:
  Grid(int64_t rows, int64_t n, int64_t padding = 5)
      : rows_(rows),
        n_(n),
        stride_(n + padding),
        cells_(static_cast<size_t>(kGuard + (rows > 0 ? (rows - 1) * stride_ + n : 0)),
               EndOfPage<T>(stride_ % kStreamedElements == 0)) {
    std::memset(static_cast<void*>(cells_.data()), 0xa5, cells_.size() * sizeof(T));
  }
  Grid(int64_t rows, int64_t n, Values& values) : Grid(rows, n) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < n; ++c) (*this)(r, c) = values.any<T>();
  }

  T& operator()(int64_t r, int64_t c) { return cells_[static_cast<size_t>(kGuard + r * stride_ + c)]; }
  const T& operator()(int64_t r, int64_t c) const { return cells_[static_cast<size_t>(kGuard + r * stride_ + c)]; }
  T* data() { return cells_.data() + kGuard; }
  const T* data() const { return cells_.data() + kGuard; }
  const T* row(int64_t r) const { return data() + r * stride_; }
  int64_t stride() const { return stride_; }
  kernels::Rows<const T> view() const { return {data(), stride_}; }
  kernels::Rows<T> out() { return {data(), stride_}; }

  /// Equal bits everywhere; a NaN equals any NaN, because which one arithmetic yields is the hardware's choice.
  bool operator==(const Grid& other) const {
    if (cells_.size() != other.cells_.size()) return false;
    if (std::memcmp(cells_.data(), other.cells_.data(), cells_.size() * sizeof(T)) == 0) return true;
    for (size_t i = 0; i < cells_.size(); ++i)
      if (!same(cells_[i], other.cells_[i])) return false;
    return true;
  }
  friend doctest::String toString(const Grid&) { return "grid"; }

 private:
  static constexpr int64_t kGuard = 64;  // whole lines of every type
  static bool same(T a, T b) {
    if constexpr (std::is_same_v<T, float>) {
      return (a != a && b != b) || std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
    } else if constexpr (std::is_same_v<T, bf16>) {
      return ((a.bits & 0x7fff) > 0x7f80 && (b.bits & 0x7fff) > 0x7f80) || a.bits == b.bits;
    } else {
      return a == b;
    }
  }
  int64_t rows_, n_, stride_;
  std::vector<T, EndOfPage<T>> cells_;
};

/// One row of per-channel values in [low, high].
inline Grid<float> constants(int64_t n, float low, float high, Values& values) {
  Grid<float> g(1, n);
  for (int64_t c = 0; c < n; ++c) g(0, c) = values.real(low, high);
  return g;
}

/// Scales of an unsigned quantizer: half of them powers of two, whose bucket boundaries the wild values hit exactly.
inline Grid<float> scales(int64_t n, Values& values) {
  Grid<float> g(1, n);
  for (int64_t c = 0; c < n; ++c)
    g(0, c) = c % 2 == 0 ? std::ldexp(1.0f, static_cast<int>(values.integer(-1, 4))) : values.real(0.5f, 20.0f);
  return g;
}

/// Kernels on emulated instructions that a source file adds to the program (emulated/elementwise_*.cpp).
class EmulatedElementwise {
 public:
  EmulatedElementwise(std::string name, const kernels::Elementwise& ew) { all().emplace_back(std::move(name), ew); }
  static std::vector<std::pair<std::string, kernels::Elementwise>>& all() {
    static std::vector<std::pair<std::string, kernels::Elementwise>> kernels;
    return kernels;
  }
};

/// Calls body(kernels, "avx2") for every level under test, and for the emulated ones, in the float mode of production.
template <typename Body>
void for_each_level(const Body& body) {
  set_float_mode();
  for (const Isa isa : levels_under_test()) body(kernels::table_of(isa).ew, std::string(name_of(isa)));
  // Where levels are forced one after another: along with the one that every build and every machine has.
  if (env(EnvVar::kIsa) && active_isa() != Isa::scalar) return;
  for (const auto& [name, ew] : EmulatedElementwise::all()) body(ew, name);
}

/// Calls body(rows, n, fill, seed) for every awkward shape and both fills.
template <typename Body>
void for_each_shape(const Body& body) {
  set_float_mode();  // the expected values are computed in it, too
  uint32_t seed = 1;
  for (const Fill fill : {Fill::kTame, Fill::kWild})
    for (const int64_t rows : kRowCounts)
      for (const int64_t n : kWidths) body(rows, n, fill, seed++);
}

// The contract's formulas for one element (ops/kernels/table.hpp).
inline float positive(float v) {
  return v > 0.0f ? v : 0.0f;
}
inline uint8_t unsigned_code(float v, const kernels::UnsignedQuantizer& q, int64_t c) {
  const float t = positive(v * q.scale[c]) + q.offset;
  return static_cast<uint8_t>(std::floor(t < q.top ? t : q.top));
}
/// The published quantizer, and the one that clips before it rounds to nearest.
inline kernels::UnsignedQuantizer floors(const Grid<float>& scale, float top) {
  return {.scale = scale.data(), .top = top};
}
inline kernels::UnsignedQuantizer rounds(const Grid<float>& scale, float top) {
  return {.scale = scale.data(), .top = top, .offset = 0.5f, .middle = 0x1p-126f, .end = std::nextafter(top, 256.0f)};
}
inline float rounded(float v) {
  return to_float(to_bf16(v));
}

}  // namespace nibble::testing
