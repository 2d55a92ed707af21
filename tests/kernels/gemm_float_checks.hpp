// The facts every float GEMM kernel must show, whatever level (or emulation of one) it belongs to.
#pragma once
#include <bit>

#include "tests/kernels/gemm_support.hpp"

namespace nibble::testing {

/// kCodes: integers so small that every sum is exact in fp32.
enum class Reals { kCodes, kSpread };

template <typename T>
T real_as(double v) {
  if constexpr (std::is_same_v<T, float>)
    return static_cast<float>(v);
  else
    return to_bf16(static_cast<float>(v));
}

template <typename T>
void fill_reals(Reals reals, Matrix<T>& m, std::mt19937& random) {
  std::uniform_int_distribution<int> code(-15, 15), exponent(-6, 6);
  std::normal_distribution<double> normal;
  for (T& v : m.cells)
    v = reals == Reals::kCodes ? real_as<T>(code(random)) : real_as<T>(std::ldexp(normal(random), exponent(random)));
}

/// Elements of c outside |c - (before + ab)| <= (k + 2) u (|before| + |a||b|), u = 2^-24: the bound of any order of k
/// additions of rounded products (Higham, Accuracy and Stability, 3.5). `exact`: elements that differ at all.
template <typename T>
int64_t differences(const GemmFloat<T>& g, const Matrix<T>& a, const Matrix<T>& b, const Matrix<float>& c,
                    double before, bool exact) {
  int64_t wrong = 0;
  const double u = std::ldexp(1.0, -24), k = static_cast<double>(a.columns);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t n = 0; n < g.nr; ++n) {
      double sum = before, size = std::abs(before);
      for (int64_t i = 0; n < b.columns && i < a.columns; ++i) {
        const double product = value_of(a(r, i)) * value_of(b(i, n));
        sum += product;
        size += std::abs(product);
      }
      const double error = std::abs(static_cast<double>(c(r, n)) - sum);
      wrong += exact ? error != 0 : !(error <= (k + 2) * u * size);
    }
  }
  return wrong;
}

template <typename T>
void check_float_extent(const GemmFloat<T>& g, Extent e, Reals reals, const std::string& kernel) {
  std::mt19937 random(static_cast<uint32_t>(e.k * 64 + e.m + e.columns));
  Matrix<T> a(e.m, e.k), b(e.k, e.columns);
  fill_reals(reals, a, random);
  fill_reals(reals, b, random);
  const std::string what = describe(kernel, e, reals == Reals::kCodes ? "codes" : "spread");
  auto packed = pack(g, a, b, {e.k}, reals == Reals::kCodes ? Layout::kContiguousN : Layout::kContiguousK);
  REQUIRE_MESSAGE(packed.guards_intact(), what);
  constexpr float kBefore = 3.0f;
  for (const Into into : {Into::kOverwrite, Into::kAccumulate}) {
    const auto c = run(g, packed, kBefore, into);
    CHECK_MESSAGE(differences(g, a, b, c, into == Into::kAccumulate ? 3.0 : 0.0, reals == Reals::kCodes) == 0, what);
    CHECK_MESSAGE(rims_kept(g, c, kBefore), what);
  }
}

template <typename T>
void check_floats(const GemmFloat<T>& g, const std::string& kernel) {
  for (const Extent& e : extents(g))
    for (const Reals reals : {Reals::kCodes, Reals::kSpread}) check_float_extent(g, e, reals, kernel);
}

template <typename T>
void check_float_segments(const GemmFloat<T>& g, const std::string& kernel) {
  for (const std::vector<int>& segments : {std::vector<int>{39, 1, 79}, {64, 64}, {3, 5, 7, 11, 13, 17, 19, 23, 29}}) {
    const int k = std::accumulate(segments.begin(), segments.end(), 0);
    std::mt19937 random(static_cast<uint32_t>(k));
    Matrix<T> a(g.mr + 2, k), b(k, g.nr);
    fill_reals(Reals::kCodes, a, random);
    fill_reals(Reals::kCodes, b, random);
    auto packed = pack(g, a, b, segments);
    CHECK_MESSAGE(packed.guards_intact(), kernel);
    CHECK_MESSAGE(differences(g, a, b, run(g, packed, 0.0f, Into::kOverwrite), 0.0, true) == 0, kernel);
  }
}

/// The same row in every slot and the same column in every slot give the same bits everywhere, in every panel.
template <typename T>
void check_float_order(const GemmFloat<T>& g, const std::string& kernel) {
  for (const int k : {1, 39, 147, 576}) {
    std::mt19937 random(static_cast<uint32_t>(k));
    Matrix<T> row(1, k), column(k, 1), a(3 * g.mr, k), b(k, g.nr);
    fill_reals(Reals::kSpread, row, random);
    fill_reals(Reals::kSpread, column, random);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t r = 0; r < a.rows; ++r) a(r, i) = row(0, i);
      for (int64_t n = 0; n < g.nr; ++n) b(i, n) = column(i, 0);
    }
    auto many = pack(g, a, b, {k}), single = pack(g, row, column, {k});
    const auto c = run(g, many, 0.0f, Into::kOverwrite), one = run(g, single, 0.0f, Into::kOverwrite);
    int64_t other = 0;
    for (int64_t r = 0; r + 1 < c.rows; ++r)
      for (int64_t n = 0; n < g.nr; ++n)
        other += std::bit_cast<uint32_t>(c(r, n)) != std::bit_cast<uint32_t>(one(0, 0));
    CHECK_MESSAGE(other == 0, kernel, " k ", k);
  }
}

/// Kernels that multiply pairs of bf16 add the upper product of a pair, then the lower one, each rounded to fp32, and
/// take denormals of operands and sums for zeros (the caller's float mode does so, too).
inline void check_pair_sums(const GemmFloat<bf16>& g, const std::string& kernel) {
  if (g.kr != 2) return;
  for (const int k : {1, 2, 39, 256}) {
    std::mt19937 random(static_cast<uint32_t>(k));
    Matrix<bf16> a(g.mr, k), b(k, g.nr);
    fill_reals(Reals::kSpread, a, random);
    fill_reals(Reals::kSpread, b, random);
    // Row 0 is a denormal next to 2^100, which would make a number of it; row 1 is products that are denormals.
    for (int64_t i = 0; i < k; ++i) {
      a(0, i) = i == 0 ? bf16{0x007f} : bf16{};
      a(1, i) = real_as<bf16>(std::ldexp(1.0, -80));
      b(i, 0) = real_as<bf16>(std::ldexp(1.0, i == 0 ? 100 : -60));
    }
    for (const float before : {3.0f, 1e-40f}) {
      auto packed = pack(g, a, b, {k});
      const auto c = run(g, packed, before, Into::kAccumulate);
      int64_t other = 0;
      for (int64_t r = 0; r < g.mr; ++r)
        for (int64_t n = 0; n < g.nr; ++n) {
          const auto product = [&](int64_t i) { return i < k ? to_float(a(r, i)) * to_float(b(i, n)) : 0.0f; };
          float sum = before;
          for (int64_t i = 0; i < k; i += 2) {
            sum = sum + product(i + 1);
            sum = sum + product(i);
          }
          other += c(r, n) != sum;
        }
      CHECK_MESSAGE(other == 0, kernel, " k ", k, " before ", before);
    }
  }
}

/// A panel is the same bytes whether A came by rows, transposed, or as codes, and however B lay in memory.
template <typename T>
void check_float_layouts(const GemmFloat<T>& g, const std::string& kernel) {
  for (const int k : {1, 2, 3, 8, 17, 31, 32, 39, 64, 131}) {
    for (int m = 1; m <= std::max(g.mr, g.nr); ++m) {
      std::mt19937 random(static_cast<uint32_t>(k + m));
      Matrix<T> a(std::min(m, g.mr), k), b(k, std::min(m, g.nr));
      fill_reals(Reals::kSpread, a, random);
      fill_reals(Reals::kSpread, b, random);
      auto one = pack(g, a, b, {k}, Layout::kContiguousK), two = pack(g, a, b, {k}, Layout::kContiguousN),
           three = pack(g, a, b, {k}, Layout::kStridedBoth);
      CHECK_MESSAGE((one.b.same_bytes(two.b) && one.b.same_bytes(three.b)), kernel, " k ", k, " columns ", m);
      CHECK_MESSAGE((one.guards_intact() && two.guards_intact() && three.guards_intact()), kernel);
      if (m > g.mr) continue;
      const int64_t bytes = int64_t{g.mr} * round_up_to(k, g.kr) * g.a_bytes;
      PanelBuffer by_columns(bytes);
      const Matrix<T> t = a.transposed();
      g.pack_a_transposed(t.row_pointers(0, k).data(), k, m, by_columns.data());
      CHECK_MESSAGE(std::memcmp(one.a.data(), by_columns.data(), static_cast<size_t>(bytes)) == 0, kernel,
                    " transposed k ", k, " m ", m);
      CHECK_MESSAGE(by_columns.guard_intact(), kernel);
    }
  }
}

/// Rows gathered as a right operand, and codes of the same values where they may be gathered, give the panel of the
/// strided matrix.
template <typename T>
void check_gathered_rows(const GemmFloat<T>& g, const std::string& kernel) {
  CHECK((g.pack_b_rows_u8 != nullptr) == (sizeof(T) == 2));
  for (const int k : {1, 2, 3, 8, 17, 31, 32, 39, 64, 131}) {
    for (int columns = 1; columns <= g.nr; ++columns) {
      const int offset = k % 5;
      Matrix<uint8_t> codes(k, offset + columns);
      Matrix<T> values(k, offset + columns);
      for (size_t i = 0; i < codes.cells.size(); ++i) {
        codes.cells[i] = static_cast<uint8_t>(i * 37 + 255);
        if constexpr (sizeof(T) == 2)
          values.cells[i] = to_bf16(static_cast<float>(codes.cells[i]));
        else
          values.cells[i] = static_cast<float>(codes.cells[i]) / 7;
      }
      const int64_t bytes = int64_t{g.nr} * round_up_to(k, g.kr) * g.b_bytes;
      PanelBuffer from_codes(bytes), from_values(bytes), strided(bytes);
      g.pack_b_rows(values.row_pointers(0, k).data(), offset, k, columns, from_values.data());
      g.pack_b(values.cells.data() + offset, offset + columns, 1, k, columns, strided.data());
      CHECK_MESSAGE(from_values.same_bytes(strided), kernel, " k ", k, " columns ", columns);
      CHECK_MESSAGE(from_values.guard_intact(), kernel);
      if constexpr (sizeof(T) == 2) {
        g.pack_b_rows_u8(codes.row_pointers(0, k).data(), offset, k, columns, from_codes.data());
        CHECK_MESSAGE(from_codes.same_bytes(strided), kernel, " k ", k, " columns ", columns);
        CHECK_MESSAGE(from_codes.guard_intact(), kernel);
      }
    }
  }
}

/// Both families of one level.
template <typename Body>
void for_each_float_family(const kernels::Table& t, const std::string& level, const Body& body) {
  body(t.bf16_gemm, level + " bf16");
  body(t.f32_gemm, level + " f32");
}

}  // namespace nibble::testing
