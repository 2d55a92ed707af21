// What the GEMM tests share: packing and running one product of any kernel, with guards around everything it writes.
#pragma once
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/dtype.hpp"
#include "engine/storage.hpp"
#include "ops/kernels/table.hpp"
#include "tests/kernels/end_of_page.hpp"

namespace nibble::testing {

using kernels::GemmFloat;
using kernels::GemmInt;
using kernels::Into;

template <typename Gemm>
struct Operands;
template <typename Left, typename Right>
struct Operands<kernels::GemmCodes<Left, Right>> {
  using A = Left;
  using B = Right;
  using C = int32_t;
};
template <typename T>
struct Operands<GemmFloat<T>> {
  using A = T;
  using B = T;
  using C = float;
};

inline double value_of(uint8_t v) {
  return v;
}
inline double value_of(int8_t v) {
  return v;
}
inline double value_of(int16_t v) {
  return v;
}
inline double value_of(float v) {
  return static_cast<double>(v);
}
inline double value_of(bf16 v) {
  return static_cast<double>(to_float(v));
}

/// Row-major rows x columns elements; reading past them ends the test.
template <typename T>
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<T, EndOfPage<T>> cells;
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), cells(static_cast<size_t>(r * c)) {}
  T& operator()(int64_t r, int64_t c) { return cells[static_cast<size_t>(r * columns + c)]; }
  const T& operator()(int64_t r, int64_t c) const { return cells[static_cast<size_t>(r * columns + c)]; }
  Matrix transposed() const {
    Matrix t(columns, rows);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) t(c, r) = (*this)(r, c);
    return t;
  }
  std::vector<const T*> row_pointers(int64_t first, int64_t count) const {
    std::vector<const T*> p;
    for (int64_t r = first; r < first + count; ++r) p.push_back(cells.data() + r * columns);
    return p;
  }
};

/// 64-byte aligned bytes followed by a pattern that must survive; filled with junk that packing has to overwrite.
class PanelBuffer {
 public:
  explicit PanelBuffer(int64_t bytes) : bytes_(bytes), store_(static_cast<size_t>(bytes + kGuard + kAlign)) {
    std::memset(store_.data(), kJunk, store_.size());
  }
  std::byte* data() {
    const auto at = reinterpret_cast<uintptr_t>(store_.data());
    return store_.data() + ((kAlign - at % kAlign) % kAlign);
  }
  int64_t bytes() const { return bytes_; }
  bool guard_intact() {
    for (int64_t i = bytes_; i < bytes_ + kGuard; ++i)
      if (data()[i] != std::byte{kJunk}) return false;
    return true;
  }
  bool same_bytes(PanelBuffer& other) {
    return bytes_ == other.bytes_ && std::memcmp(data(), other.data(), static_cast<size_t>(bytes_)) == 0;
  }

 private:
  static constexpr int64_t kAlign = 64, kGuard = 64;
  static constexpr unsigned char kJunk = 0xc3;
  int64_t bytes_;
  std::vector<std::byte> store_;
};

inline int round_up_to(int k, int kr) {
  return (k + kr - 1) / kr * kr;
}

/// How B lies in memory before it is packed.
enum class Layout { kContiguousK, kContiguousN, kStridedBoth };

/// A [m, k] in panels of mr rows and B [k, columns] in one panel, K cut into segments of the given sizes.
template <typename Gemm>
struct Packed {
  using A = typename Operands<Gemm>::A;
  using B = typename Operands<Gemm>::B;
  int k = 0;  // padded depth over all segments
  int rows = 0, panels = 0;
  int64_t a_panel_bytes = 0;
  PanelBuffer a{0}, b{0};
  bool guards_intact() { return a.guard_intact() && b.guard_intact(); }
};

template <typename Gemm>
void pack_b_segment(const Gemm& g, const Matrix<typename Operands<Gemm>::B>& b, int64_t k0, int k, Layout layout,
                    void* to) {
  using B = typename Operands<Gemm>::B;
  const int columns = static_cast<int>(b.columns);
  Matrix<B> part(k, columns);
  for (int64_t i = 0; i < k; ++i)
    for (int64_t n = 0; n < columns; ++n) part(i, n) = b(k0 + i, n);
  if (layout == Layout::kContiguousN) {
    g.pack_b(part.cells.data(), columns, 1, k, columns, to);
  } else if (layout == Layout::kContiguousK) {
    const Matrix<B> t = part.transposed();
    g.pack_b(t.cells.data(), 1, k, k, columns, to);
  } else {
    Matrix<B> wide(k, 3 * columns);  // both strides above one
    for (int64_t i = 0; i < k; ++i)
      for (int64_t n = 0; n < columns; ++n) wide(i, 3 * n) = part(i, n);
    g.pack_b(wide.cells.data(), 3 * columns, 3, k, columns, to);
  }
}

template <typename Gemm>
Packed<Gemm> pack(const Gemm& g, const Matrix<typename Operands<Gemm>::A>& a,
                  const Matrix<typename Operands<Gemm>::B>& b, const std::vector<int>& segments,
                  Layout layout = Layout::kContiguousK) {
  Packed<Gemm> p;
  for (int s : segments) p.k += round_up_to(s, g.kr);
  p.rows = static_cast<int>(a.rows);
  p.panels = (p.rows + g.mr - 1) / g.mr;
  // A gap between panels, as callers that align them have it.
  p.a_panel_bytes = (int64_t{g.mr} * p.k * g.a_bytes + 63) / 64 * 64 + 64;
  p.a = PanelBuffer(p.panels * p.a_panel_bytes);
  p.b = PanelBuffer(int64_t{g.nr} * p.k * g.b_bytes);
  int64_t k0 = 0, padded = 0;
  for (int s : segments) {
    for (int panel = 0; panel < p.panels; ++panel) {
      const int64_t first = int64_t{panel} * g.mr;
      const int m = static_cast<int>(std::min<int64_t>(g.mr, a.rows - first));
      auto rows = a.row_pointers(first, m);
      for (auto& r : rows) r += k0;
      g.pack_a(rows.data(), m, s, p.a.data() + panel * p.a_panel_bytes + g.mr * padded * g.a_bytes);
    }
    pack_b_segment(g, b, k0, s, layout, p.b.data() + g.nr * padded * g.b_bytes);
    k0 += s;
    padded += round_up_to(s, g.kr);
  }
  return p;
}

/// A right operand that may be prefetched and not read: nothing is mapped there.
inline const void* const kOnlyAskedFor = reinterpret_cast<const void*>(std::uintptr_t{1} << 12);

/// C with a stride above nr; `before` fills it, and what lies beyond the tiles must keep that value.
template <typename Gemm>
Matrix<typename Operands<Gemm>::C> run(const Gemm& g, Packed<Gemm>& p, typename Operands<Gemm>::C before, Into into) {
  using C = typename Operands<Gemm>::C;
  Matrix<C> c(int64_t{p.panels} * g.mr + 1, g.nr + 3);
  std::fill(c.cells.begin(), c.cells.end(), before);
  Matrix<C> fetching = c;
  g.run(p.k, p.rows, p.a.data(), p.a_panel_bytes, p.b.data(), c.cells.data(), c.columns, into, nullptr);
  g.run(p.k, p.rows, p.a.data(), p.a_panel_bytes, p.b.data(), fetching.cells.data(), c.columns, into, kOnlyAskedFor);
  // With and without a panel to fetch: the same bits.
  REQUIRE(std::memcmp(c.cells.data(), fetching.cells.data(), c.cells.size() * sizeof(C)) == 0);
  return c;
}

/// True if the row after the last tile and the columns beyond nr still hold `before`.
template <typename Gemm, typename C>
bool rims_kept(const Gemm& g, const Matrix<C>& c, C before) {
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t n = r + 1 == c.rows ? 0 : g.nr; n < c.columns; ++n)
      if (std::memcmp(&c(r, n), &before, sizeof before) != 0) return false;
  return true;
}

/// One problem: m rows, k deep, columns of B.
struct Extent {
  int m = 0, k = 0, columns = 0;
};

/// Every awkward extent once: all row counts and all column counts at a short depth, all depths at ragged counts,
/// several panels.
template <typename Gemm>
std::vector<Extent> extents(const Gemm& g) {
  std::vector<Extent> all;
  for (int m = 1; m <= g.mr; ++m) all.push_back({m, 39, std::max(1, g.nr - m % 3)});
  for (int n = 1; n <= g.nr; ++n) all.push_back({std::max(1, g.mr - n % 2), 39, n});
  for (int k : {0, 1, 2, 3, g.kr - 1, g.kr, g.kr + 1, 2 * g.kr + 3, 8 * 4 - 1, 8 * 4 + 5, 79, 147, 128 * 4, 576}) {
    all.push_back({g.mr, k, g.nr});
    all.push_back({2 * g.mr + 1, k, std::max(1, g.nr - 1)});
  }
  for (int m = 2; m + 1 < g.mr; ++m) all.push_back({m, 576, g.nr});  // every height has a tile of its own
  all.push_back({g.mr, 4608, g.nr});
  all.push_back({3 * g.mr - 1, 4608, std::max(1, g.nr / 2 + 1)});
  return all;
}

inline std::string describe(const std::string& kernel, Extent e, const std::string& fill) {
  return fmt::format("{} m {} k {} columns {} fill {}", kernel, e.m, e.k, e.columns, fill);
}

}  // namespace nibble::testing
