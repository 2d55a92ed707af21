// The facts every integer GEMM kernel must show, whatever level (or emulation of one) it belongs to.
#pragma once
#include "tests/kernels/gemm_support.hpp"

namespace nibble::testing {

/// Codes a kernel promises to take.
struct CodeRange {
  int a_max = 255, b_min = -128, b_max = 127;
  int a_min = 0;
};

enum class Codes { kAllLow, kAllHigh, kHighTimesLow, kAlternating, kRandom, kOneHot };
inline constexpr Codes kAllCodes[] = {Codes::kAllLow,      Codes::kAllHigh, Codes::kHighTimesLow,
                                      Codes::kAlternating, Codes::kRandom,  Codes::kOneHot};
inline const char* name_of(Codes c) {
  constexpr const char* kNames[] = {"all low", "all high", "high times low", "alternating", "random", "one hot"};
  return kNames[static_cast<int>(c)];
}

template <typename A, typename B>
void fill_codes(Codes codes, CodeRange range, Matrix<A>& a, Matrix<B>& b, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> any_a(range.a_min, range.a_max), any_b(range.b_min, range.b_max);
  const int64_t hot = a.columns == 0 ? 0 : static_cast<int64_t>(random()) % a.columns;
  const auto a_at = [&](int64_t r, int64_t i) -> int {
    switch (codes) {
      case Codes::kAllLow:
        return range.a_min;
      case Codes::kAllHigh:
      case Codes::kHighTimesLow:
        return range.a_max;
      case Codes::kAlternating:
        return (r + i) % 2 ? range.a_max : range.a_min;
      case Codes::kRandom:
        return any_a(random);
      case Codes::kOneHot:
        return i == hot ? 1 + static_cast<int>(r) % range.a_max : 0;
    }
    return 0;
  };
  const auto b_at = [&](int64_t i, int64_t n) -> int {
    switch (codes) {
      case Codes::kAllLow:
      case Codes::kHighTimesLow:
        return range.b_min;
      case Codes::kAllHigh:
        return range.b_max;
      case Codes::kAlternating:
        return (i + n) % 2 ? range.b_min : range.b_max;
      case Codes::kRandom:
      case Codes::kOneHot:
        return any_b(random);
    }
    return 0;
  };
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t i = 0; i < a.columns; ++i) a(r, i) = static_cast<A>(a_at(r, i));
  for (int64_t i = 0; i < b.rows; ++i)
    for (int64_t n = 0; n < b.columns; ++n) b(i, n) = static_cast<B>(b_at(i, n));
}

/// Elements of c that differ from before + a*b, in 64-bit arithmetic, of 16-bit integers modulo 2^32; columns that were
/// missing count as zeros of B.
template <typename A, typename B>
int64_t differences(const kernels::GemmCodes<A, B>& g, const Matrix<A>& a, const Matrix<B>& b, const Matrix<int32_t>& c,
                    int64_t before) {
  int64_t wrong = 0;
  std::vector<int64_t> sum(static_cast<size_t>(g.nr));
  for (int64_t r = 0; r < a.rows; ++r) {
    std::fill(sum.begin(), sum.end(), before);
    for (int64_t i = 0; i < a.columns; ++i)
      for (int64_t n = 0; n < b.columns; ++n)
        sum[static_cast<size_t>(n)] += int64_t{a(r, i)} * b.cells[static_cast<size_t>(i * b.columns + n)];
    for (int64_t n = 0; n < g.nr; ++n) {
      int64_t want = sum[static_cast<size_t>(n)];
      if constexpr (sizeof(A) == 2) want = static_cast<int32_t>(static_cast<uint32_t>(want));
      wrong += want != c(r, n);
    }
  }
  return wrong;
}

template <typename A, typename B>
void check_code_extent(const kernels::GemmCodes<A, B>& g, Extent e, Codes codes, CodeRange range,
                       const std::string& kernel) {
  Matrix<A> a(e.m, e.k);
  Matrix<B> b(e.k, e.columns);
  fill_codes(codes, range, a, b, static_cast<uint32_t>(e.k * 64 + e.m + e.columns));
  const std::string what = describe(kernel, e, name_of(codes));
  auto packed = pack(g, a, b, {e.k}, codes == Codes::kRandom ? Layout::kContiguousN : Layout::kContiguousK);
  REQUIRE_MESSAGE(packed.guards_intact(), what);
  constexpr int32_t kBefore = -123456789;
  for (const Into into : {Into::kOverwrite, Into::kAccumulate}) {
    const auto c = run(g, packed, kBefore, into);
    CHECK_MESSAGE(differences(g, a, b, c, into == Into::kAccumulate ? kBefore : 0) == 0, what);
    CHECK_MESSAGE(rims_kept(g, c, kBefore), what);
  }
}

/// Equality with the naive product on every extent and fill.
template <typename A, typename B>
void check_codes(const kernels::GemmCodes<A, B>& g, CodeRange range, const std::string& kernel) {
  for (const Extent& e : extents(g)) {
    for (const Codes codes : kAllCodes) {
      // Depth matters to the extremes, ragged edges only to one fill.
      if (e.k == 39 && codes != Codes::kRandom) continue;
      if (e.m != g.mr && e.k > 147 && codes != Codes::kHighTimesLow && codes != Codes::kRandom) continue;
      check_code_extent(g, e, codes, range, kernel);
    }
  }
}

/// Segments packed in sequence are one longer product.
template <typename A, typename B>
void check_code_segments(const kernels::GemmCodes<A, B>& g, CodeRange range, const std::string& kernel) {
  for (const std::vector<int>& segments : {std::vector<int>{39, 1, 79}, {64, 64}, {3, 5, 7, 11, 13, 17, 19, 23, 29}}) {
    const int k = std::accumulate(segments.begin(), segments.end(), 0);
    Matrix<A> a(g.mr + 2, k);
    Matrix<B> b(k, g.nr);
    fill_codes(Codes::kRandom, range, a, b, 7);
    auto packed = pack(g, a, b, segments);
    CHECK_MESSAGE(packed.guards_intact(), kernel);
    CHECK_MESSAGE(differences(g, a, b, run(g, packed, 0, Into::kOverwrite), 0) == 0, kernel);
  }
}

/// A panel is the same bytes however B lay in memory.
template <typename A, typename B>
void check_code_layouts(const kernels::GemmCodes<A, B>& g, CodeRange range, const std::string& kernel) {
  for (const int k : {1, 2, 3, 17, 32, 39, 64, 131}) {
    for (int columns = 1; columns <= g.nr; ++columns) {
      Matrix<A> a(1, k);
      Matrix<B> b(k, columns);
      fill_codes(Codes::kRandom, range, a, b, static_cast<uint32_t>(k));
      auto one = pack(g, a, b, {k}, Layout::kContiguousK), two = pack(g, a, b, {k}, Layout::kContiguousN),
           three = pack(g, a, b, {k}, Layout::kStridedBoth);
      CHECK_MESSAGE(one.b.same_bytes(two.b), kernel, " k ", k, " columns ", columns);
      CHECK_MESSAGE(one.b.same_bytes(three.b), kernel, " k ", k, " columns ", columns);
      CHECK_MESSAGE((one.guards_intact() && two.guards_intact() && three.guards_intact()), kernel);
    }
  }
}

/// All families of one level.
template <typename Body>
void for_each_code_family(const kernels::Table& t, const std::string& level, const Body& body) {
  body(t.u8s8, CodeRange{255, -128, 127}, level + " u8s8");
  body(t.u8s4, CodeRange{255, -8, 7}, level + " u8s4");
  body(t.u4s4, CodeRange{15, -8, 7}, level + " u4s4");
  body(t.u6s7, CodeRange{63, -64, 63}, level + " u6s7");
  if (t.s16s14.run != nullptr)
    body(t.s16s14, CodeRange{.a_max = 17340, .b_min = -6272, .b_max = 6272, .a_min = -17340}, level + " s16s14");
}

}  // namespace nibble::testing
