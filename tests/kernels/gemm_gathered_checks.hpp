// The facts every product kernel that multiplies gathered rows in place must show (GemmInt::run_gathered): the bits of
// the packed product.
#pragma once
#include <algorithm>
#include <cstring>

#include "tests/kernels/gemm_int_checks.hpp"

namespace nibble::testing {

/// Which rows are the row of zeros: none, and there is none; some of every tile; in the first segment all, whose memory
/// is then something else, because no kernel needs to read it.
enum class Zeros { kNone, kSome, kWholeSegment };

/// Rows in a random order at unaligned addresses; after the elements of each segment, up to the end of its last
/// group, lies what an operand may hold, and nothing that may be read.
template <typename Gemm, typename Fill>
void check_gathered_case(const Gemm& g, int rows, const std::vector<int>& segments, Zeros zeros, const Fill& fill,
                         const std::string& kernel) {
  using A = typename Operands<Gemm>::A;
  using C = typename Operands<Gemm>::C;
  std::mt19937 random(static_cast<uint32_t>(rows * 100 + segments[0]));
  const int k = segments[0], count = static_cast<int>(segments.size()), padded = round_up_to(k, g.kr);
  Matrix<A> a(rows, int64_t{count} * k);
  Matrix<typename Operands<Gemm>::B> b(int64_t{count} * k, g.nr);
  for (A& v : a.cells) v = fill.left(random);
  for (auto& v : b.cells) v = fill.right(random);
  const auto is_zeros = [&](int at) {
    return zeros == Zeros::kSome ? at % 3 == 0 : zeros == Zeros::kWholeSegment && at < rows;
  };
  for (int at = 0; at < count * rows; ++at)
    if (is_zeros(at)) std::fill_n(&a(at % rows, int64_t{at / rows} * k), k, A{});
  auto packed = pack(g, a, b, segments);

  constexpr int kBefore = 3;  // elements before a segment
  std::vector<std::vector<A, EndOfPage<A>>> cells;
  std::vector<const void*> pointers(static_cast<size_t>(count * rows));
  std::vector<int> order(static_cast<size_t>(count * rows));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<A, EndOfPage<A>> zero_row(static_cast<size_t>(kBefore + padded));
  if (zeros == Zeros::kWholeSegment)
    for (A& v : zero_row) v = fill.left(random);
  for (const int at : order) {
    if (is_zeros(at)) {
      pointers[static_cast<size_t>(at)] = zero_row.data();
      continue;
    }
    auto& row = cells.emplace_back(static_cast<size_t>(kBefore + padded));
    for (A& v : row) v = fill.left(random);
    std::copy_n(&a(at % rows, int64_t{at / rows} * k), k, row.begin() + kBefore);
    pointers[static_cast<size_t>(at)] = row.data();
  }
  const kernels::GatheredRows in_place{.rows = pointers.data(),
                                       .segment_stride = rows,
                                       .segments = count,
                                       .first_byte = kBefore * static_cast<int64_t>(sizeof(A)),
                                       .groups = padded / g.kr,
                                       .zeros = zeros == Zeros::kNone ? nullptr : zero_row.data()};
  for (const Into into : {Into::kOverwrite, Into::kAccumulate}) {
    const Matrix<C> expected = run(g, packed, C{7}, into);
    for (const void* const next : {static_cast<const void*>(nullptr), kOnlyAskedFor}) {
      Matrix<C> c(expected.rows, expected.columns);
      std::fill(c.cells.begin(), c.cells.end(), C{7});
      g.run_gathered(in_place, rows, packed.b.data(), c.cells.data(), c.columns, into, next);
      int64_t other = 0;
      for (int64_t r = 0; r < rows; ++r)
        other += std::memcmp(&c(r, 0), &expected(r, 0), sizeof(C) * static_cast<size_t>(g.nr)) != 0;
      CHECK_MESSAGE(other == 0, kernel, " rows ", rows, " k ", k, " segments ", count);
      CHECK_MESSAGE(rims_kept(g, c, C{7}), kernel);
    }
  }
}

/// Every number of rows of two tiles and one more, depths around groups, consecutive segments.
template <typename Gemm, typename Fill>
void check_gathered(const Gemm& g, const Fill& fill, const std::string& kernel) {
  if (g.run_gathered == nullptr) return;
  for (int rows = 1; rows <= 2 * g.mr + 1; ++rows) check_gathered_case(g, rows, {39}, Zeros::kNone, fill, kernel);
  for (const int rows : {1, g.mr - 1, g.mr, 3 * g.mr + 5})
    for (const int k : {1, 2, 3, 4, 5, 16, 31, 64, 147, 576})
      for (const int count : {1, 2, 9})
        for (const Zeros zeros : {Zeros::kNone, Zeros::kSome, Zeros::kWholeSegment})
          check_gathered_case(g, rows, std::vector<int>(static_cast<size_t>(count), k), zeros, fill, kernel);
}

/// Codes of the whole range of both operands.
struct GatheredCodes {
  CodeRange range;
  uint8_t left(std::mt19937& random) const { return static_cast<uint8_t>(one_of(range.a_min, range.a_max, random)); }
  int8_t right(std::mt19937& random) const { return static_cast<int8_t>(one_of(range.b_min, range.b_max, random)); }
  static int one_of(int low, int high, std::mt19937& random) {
    return std::uniform_int_distribution<int>(low, high)(random);
  }
};

/// bf16 of many magnitudes.
struct GatheredReals {
  bf16 left(std::mt19937& random) const {
    return to_bf16(static_cast<float>(
        std::ldexp(std::normal_distribution<double>()(random), std::uniform_int_distribution<int>(-6, 6)(random))));
  }
  bf16 right(std::mt19937& random) const { return left(random); }
};

inline void check_gathered_codes(const GemmInt& g, CodeRange range, const std::string& kernel) {
  check_gathered(g, GatheredCodes{range}, kernel);
}
/// Wide rows are made, not gathered.
inline void check_gathered_codes(const kernels::GemmWide& g, CodeRange, const std::string& kernel) {
  CHECK_MESSAGE((g.run_gathered == nullptr), kernel);
}

}  // namespace nibble::testing
