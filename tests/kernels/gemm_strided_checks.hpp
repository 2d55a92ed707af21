// The facts every product kernel that reads its left operand in place must show (GemmInt::run_strided).
#pragma once
#include <cstring>

#include "tests/kernels/gemm_int_checks.hpp"

namespace nibble::testing {

struct StridedCase {
  int rows = 0, segments = 1, k = 1;
  int64_t gap_bytes = 0;  // between rows, beyond what their groups take
};

/// Left and right elements: largest values, or random ones; what lies after the elements of a row is `rest`.
template <typename A, typename B>
struct StridedFill {
  A low, high, rest;
  B b_low, b_high;
};

/// Segments lie in order in the rows and the other way round in the panel. c = start + a*b, exactly: the fills are
/// integers whose sums stay below 2^24 for float kernels.
template <typename A, typename B, typename C, typename Gemm>
void check_strided_case(const Gemm& g, const StridedCase& e, const StridedFill<A, B>& fill, bool random,
                        const std::string& kernel) {
  constexpr int64_t kGroup = 64;
  const int64_t element = sizeof(A), groups = (e.k + g.kr - 1) / g.kr, row_bytes = groups * kGroup + e.gap_bytes;
  const int64_t plane_bytes = (e.rows + 1) * row_bytes, segment_bytes = groups * g.kr * g.nr * g.b_bytes;
  // Both end where the last byte lies that may be read: the last group of the last row of the last segment.
  const int64_t readable = e.segments * groups == 0 ? 0 : e.segments * plane_bytes - row_bytes - e.gap_bytes;
  using Bytes = std::vector<std::byte, EndOfPage<std::byte>>;
  const EndOfPage<std::byte> whole_lines(true);
  Bytes rows(static_cast<size_t>(readable), whole_lines);
  Bytes panel(static_cast<size_t>(e.segments * segment_bytes), whole_lines);
  std::mt19937 engine(static_cast<uint32_t>(e.rows * 1000 + e.k));
  std::bernoulli_distribution coin;
  std::vector<A> a(static_cast<size_t>(e.rows * e.segments * e.k));
  std::vector<B> b(static_cast<size_t>(e.segments * e.k * g.nr));
  for (A& v : a) v = random && coin(engine) ? fill.low : fill.high;
  for (B& v : b) v = random && coin(engine) ? fill.b_high : fill.b_low;
  std::vector<kernels::Segment> segments;
  for (int s = 0; s < e.segments; ++s) {
    segments.push_back({.rows = s * plane_bytes, .panel = (e.segments - 1 - s) * segment_bytes});
    for (int r = 0; r <= e.rows; ++r)
      for (int64_t i = 0; i < row_bytes / element; ++i) {
        const int64_t at = s * plane_bytes + r * row_bytes + i * element;
        const A v = r < e.rows && i < e.k ? a[static_cast<size_t>((r * e.segments + s) * e.k + i)] : fill.rest;
        if (at < readable) std::memcpy(rows.data() + at, &v, sizeof v);
      }
    g.pack_b(b.data() + s * e.k * g.nr, g.nr, 1, e.k, g.nr, panel.data() + segments.back().panel);
  }
  const kernels::StridedRows left{rows.data(), row_bytes, segments.data(), e.segments, static_cast<int>(groups)};
  std::vector<C, EndOfPage<C>> start(static_cast<size_t>(g.nr), EndOfPage<C>(true));
  for (int n = 0; n < g.nr; ++n) start[static_cast<size_t>(n)] = static_cast<C>(1000 - 100 * n);
  std::vector<double> sums;
  for (int r = 0; r < e.rows; ++r)
    for (int n = 0; n < g.nr; ++n) {
      double sum = 0;
      for (int i = 0; i < e.segments * e.k; ++i)
        sum +=
            value_of(a[static_cast<size_t>(r * e.segments * e.k + i)]) * value_of(b[static_cast<size_t>(i * g.nr + n)]);
      sums.push_back(sum);
    }
  // Calls in a row, each of which stores what the one before it holds: fewer rows after more, more after fewer.
  struct Call {
    int rows;
    bool with_start;
    kernels::PanelIn where;
  };
  const std::vector<Call> calls = {
      {e.rows, false, kernels::PanelIn::kCache}, {g.strided_rows, true, kernels::PanelIn::kMemory},
      {e.rows, true, kernels::PanelIn::kMemory}, {e.rows, false, kernels::PanelIn::kMemory},
      {e.rows, true, kernels::PanelIn::kCache},  {g.strided_rows, false, kernels::PanelIn::kCache}};
  const int64_t ldc = g.nr + 16, room = (e.rows + 1) * ldc;
  PanelBuffer memory(static_cast<int64_t>(calls.size()) * room * static_cast<int64_t>(sizeof(C)));
  C* const c = reinterpret_cast<C*>(memory.data());
  std::fill_n(c, static_cast<int64_t>(calls.size()) * room, C{-77});
  kernels::HeldSums<C> held;
  g.begin();
  for (const Call& call : calls) {
    g.run_strided(left, call.rows, panel.data(), call.where, call.with_start ? start.data() : nullptr, held);
    held = {c + (&call - calls.data()) * room, ldc, call.rows};
  }
  g.store_held(held);
  g.end();
  for (const Call& call : calls) {
    const C* const at = c + (&call - calls.data()) * room;
    int64_t wrong = 0, touched = 0;
    for (int64_t r = 0; r <= e.rows; ++r)
      for (int64_t n = 0; n < ldc; ++n) {
        if (r >= call.rows || n >= g.nr) {
          touched += at[r * ldc + n] != C{-77};
          continue;
        }
        const double begin = call.with_start ? static_cast<double>(start[static_cast<size_t>(n)]) : 0;
        wrong += static_cast<double>(at[r * ldc + n]) != begin + sums[static_cast<size_t>(r * g.nr + n)];
      }
    INFO(kernel << ": " << call.rows << " of " << e.rows << " rows, " << e.segments << " segments of " << e.k
                << ", gap " << e.gap_bytes << (call.with_start ? ", with a start" : "") << ", call "
                << &call - calls.data());
    CHECK(wrong == 0);
    CHECK(touched == 0);
  }
}

inline const std::vector<StridedCase>& strided_cases() {
  static const std::vector<StridedCase> cases = [] {
    std::vector<StridedCase> all;
    for (int rows : {16, 32})
      for (const auto& [segments, k] :
           {std::pair{1, 1}, {1, 39}, {1, 64}, {1, 65}, {0, 64}, {1, 0}, {3, 79}, {9, 64}, {2, 147}})
        for (int64_t gap : {0, 64, 192}) all.push_back({rows, segments, k, gap});
    return all;
  }();
  return cases;
}

/// Says that there was nothing to check, unless a kernel was.
inline void note_strided(bool checked) {
  if (!checked) MESSAGE("skipped: no level under test multiplies rows in place");
}

inline void check_strided_codes(const GemmInt& g, CodeRange range, const std::string& kernel) {
  if (g.run_strided == nullptr) return;
  const StridedFill<uint8_t, int8_t> fill{1, static_cast<uint8_t>(range.a_max), 0xab, static_cast<int8_t>(range.b_min),
                                          static_cast<int8_t>(range.b_max)};
  for (const StridedCase& e : strided_cases())
    for (const bool random : {false, true}) check_strided_case<uint8_t, int8_t, int32_t>(g, e, fill, random, kernel);
}

/// No level multiplies wide rows in place.
inline void check_strided_codes(const kernels::GemmWide& g, CodeRange, const std::string& kernel) {
  CHECK_MESSAGE((g.run_strided == nullptr), kernel);
}

inline void check_strided_floats(const GemmFloat<bf16>& g, const std::string& kernel) {
  if (g.run_strided == nullptr) return;
  const StridedFill<bf16, bf16> fill{to_bf16(-3.0f), to_bf16(15.0f), to_bf16(1e30f), to_bf16(-8.0f), to_bf16(7.0f)};
  for (const StridedCase& e : strided_cases())
    for (const bool random : {false, true}) check_strided_case<bf16, bf16, float>(g, e, fill, random, kernel);
}

}  // namespace nibble::testing
