// matmul: values and gradients at odd sizes, order of sums, errors.
#include "ops/matmul.hpp"

#include <doctest/doctest.h>

#include "engine/parallel.hpp"
#include "tests/gradcheck.hpp"
#include "tests/worst.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

struct MatmulSize {
  int64_t m, k, n;
};

Doubles naive(const Doubles& a, const Doubles& b, MatmulSize s) {
  Doubles y(static_cast<size_t>(s.m * s.n));
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j)
      for (int64_t t = 0; t < s.k; ++t)
        y[static_cast<size_t>(i * s.n + j)] +=
            a[static_cast<size_t>(i * s.k + t)] * b[static_cast<size_t>(t * s.n + j)];
  return y;
}

}  // namespace

TEST_CASE("matmul and its gradients are right at odd sizes") {
  for (const MatmulSize s : {MatmulSize{1, 1, 1}, MatmulSize{1, 7, 1}, MatmulSize{5, 1, 3}, MatmulSize{7, 9, 5},
                             MatmulSize{17, 3, 33}, MatmulSize{2, 40, 17}}) {
    const GradcheckReport report =
        gradcheck({.arguments = {random_tensor({s.m, s.k}, 1), random_tensor({s.k, s.n}, 2)},
                   .op = [](Tape* t, const std::vector<Variable>& v) { return matmul(t, v[0], v[1]); },
                   .reference = [s](const std::vector<Doubles>& x) { return naive(x[0], x[1], s); },
                   .roundings = 2.0 * static_cast<double>(std::max({s.m, s.k, s.n}))});
    CHECK_MESSAGE(report.ok, "m k n " << s.m << " " << s.k << " " << s.n << ": " << report.message);
  }
}

TEST_CASE("matmul sums over several chunks of k and several blocks of rows") {
  const MatmulSize s{kBlockRows + 65, 2 * kChunkK + 37, 19};
  const Tensor a = random_tensor({s.m, s.k}, 1), b = random_tensor({s.k, s.n}, 2);
  const Doubles x = to_doubles(a), w = to_doubles(b), expected = naive(x, w, s), y = to_doubles(matmul_forward(a, b));
  // |error| <= 2 k 2^-24 sum |a b|, and the mean of |a b| is 1/4
  const double bound = 2.0 * static_cast<double>(s.k) * 0x1p-24 * static_cast<double>(s.k) / 2;
  double worst = 0;
  for (size_t i = 0; i < y.size(); ++i) worst = worse(worst, std::abs(y[i] - expected[i]));
  CHECK(worst <= bound);
  CHECK(worst > 0);  // the sums do round: the bound is not vacuous
  // The same product through a transposed left operand
  Tensor a_t(DType::f32, {s.k, s.m});
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t t = 0; t < s.k; ++t) a_t.row<float>(t)[i] = a.row<float>(i)[t];
  CHECK(same_bits(matmul_backward_b(b, a_t), matmul_forward(a, b)));
}

TEST_CASE("matmul gives a row the same bits alone, in a batch, and with any number of threads") {
  const Tensor a = random_tensor({3 * kBlockRows + 1, 600}, 1), b = random_tensor({600, 23}, 2);
  const int before = threads();
  set_threads(1);
  const Tensor y = matmul_forward(a, b), d_b = matmul_backward_b(y, a);
  for (int count : {2, 3}) {
    set_threads(count);
    CHECK(same_bits(matmul_forward(a, b), y));
    CHECK(same_bits(matmul_backward_b(y, a), d_b));
  }
  set_threads(before);
  for (int64_t r : {int64_t{0}, int64_t{1}, int64_t{50}, 3 * kBlockRows}) {
    Tensor row(DType::f32, {1, 600});
    std::copy_n(a.row<float>(r), 600, row.data<float>());
    const Tensor alone = matmul_forward(row, b);
    CHECK(std::memcmp(alone.raw(), y.row<float>(r), 23 * sizeof(float)) == 0);
  }
}

TEST_CASE("matmul over an empty inner dimension is zero, and of no rows is empty") {
  const Tensor y = matmul_forward(Tensor(DType::f32, {2, 0}), Tensor(DType::f32, {0, 3}));
  CHECK(to_doubles(y) == Doubles(6, 0.0));
  CHECK(matmul_forward(Tensor(DType::f32, {0, 4}), random_tensor({4, 3}, 1)).size() == 0);
}

TEST_CASE("matmul names operands that do not fit") {
  const Tensor a = random_tensor({2, 3}, 1);
  CHECK(error_of<ShapeError>([&] { matmul_forward(a, a); }) ==
        "[matmul] a is [2,3] and b is [2,3], but a's columns must equal b's rows; transpose or reshape one");
  CHECK(error_of<ShapeError>([&] { matmul_forward(a, random_tensor({3}, 1)); }) ==
        "[matmul] b has shape [3], but its rank must be 2; reshape it");
  CHECK(error_of<DTypeError>([&] {
          matmul_forward(Tensor(DType::bf16, {2, 3}), a);
        }) == "[matmul] a is bf16, but the generic ops compute in f32 only; convert it first");
  CHECK(error_of<ShapeError>([&] {
          matmul_backward_a(random_tensor({2, 4}, 1), random_tensor({3, 5}, 1));
        }) == "[matmul] d_y has shape [2,4], but b's columns ask for [2,5]; pass a tensor of that shape");
  CHECK(error_of<ShapeError>([&] {
          matmul_backward_b(random_tensor({3, 5}, 1), a);
        }) == "[matmul] d_y has shape [3,5], but a's rows ask for [2,5]; pass a tensor of that shape");
}
