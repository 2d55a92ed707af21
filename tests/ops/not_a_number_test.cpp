// A NaN in any argument of a generic op reaches every result that depends on it, and no other.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <vector>

#include "ops/add.hpp"
#include "ops/average_pool.hpp"
#include "ops/batch_norm.hpp"
#include "ops/conv2d.hpp"
#include "ops/linear.hpp"
#include "ops/matmul.hpp"
#include "ops/mul.hpp"
#include "tests/gradcheck.hpp"

namespace nibble::testing {
namespace {

using Op = std::function<Tensor(const std::vector<Tensor>&)>;

/// Elements of the op's result that are NaN when element `at` of argument `which` is.
std::set<int64_t> tainted(const Op& op, const std::vector<Shape>& shapes, size_t which, int64_t at) {
  std::vector<Tensor> arguments;
  for (const Shape& shape : shapes) arguments.push_back(random_tensor(shape, static_cast<uint32_t>(arguments.size())));
  const Doubles clean = to_doubles(op(arguments));
  for (const double v : clean) REQUIRE(std::isfinite(v));
  arguments[which].data<float>()[at] = std::numeric_limits<float>::quiet_NaN();
  const Doubles values = to_doubles(op(arguments));
  std::set<int64_t> found;
  for (size_t i = 0; i < values.size(); ++i)
    if (std::isnan(values[i])) found.insert(static_cast<int64_t>(i));
  return found;
}

/// Elements of a dense [rows, columns] result that lie in `row` (-1: all rows) and `column` (-1: all columns).
std::set<int64_t> part(int64_t rows, int64_t columns, int64_t row, int64_t column) {
  std::set<int64_t> all;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      if ((row < 0 || r == row) && (column < 0 || c == column)) all.insert(r * columns + c);
  return all;
}

TEST_CASE("NaN passes through add and mul where it stands") {
  for (const Op& op : {Op([](const std::vector<Tensor>& t) { return add_forward(t[0], t[1]); }),
                       Op([](const std::vector<Tensor>& t) { return mul_forward(t[0], t[1]); })})
    for (const size_t which : {size_t{0}, size_t{1}})
      for (const int64_t at : {0, 7, 33}) CHECK(tainted(op, {{2, 17}, {2, 17}}, which, at) == std::set<int64_t>{at});
}

TEST_CASE("NaN passes through products to its row or column, also from a last block and an edge of tiles") {
  const Op product = [](const std::vector<Tensor>& t) { return matmul_forward(t[0], t[1]); };
  const std::vector<Shape> shapes = {{61, 37}, {37, 35}};
  for (const int64_t row : {0, 13, 48, 60}) CHECK(tainted(product, shapes, 0, row * 37 + 36) == part(61, 35, row, -1));
  for (const int64_t column : {0, 15, 16, 34})
    CHECK(tainted(product, shapes, 1, 36 * 35 + column) == part(61, 35, -1, column));
  const Op layer = [](const std::vector<Tensor>& t) { return linear_forward(t[0], t[1], t[2]); };
  const std::vector<Shape> of_layer = {{5, 9}, {33, 9}, {33}};
  CHECK(tainted(layer, of_layer, 0, 4 * 9 + 8) == part(5, 33, 4, -1));
  CHECK(tainted(layer, of_layer, 1, 32 * 9) == part(5, 33, -1, 32));
  CHECK(tainted(layer, of_layer, 2, 31) == part(5, 33, -1, 31));
}

TEST_CASE("NaN passes through a convolution to the windows that hold it and to its output channel") {
  const Op conv = [](const std::vector<Tensor>& t) {
    return conv2d_forward(t[0], t[1], {.stride = 1, .pad_before = 1, .pad_after = 1});
  };
  const std::vector<Shape> shapes = {{1, 4, 5, 3}, {17, 3, 3, 3}};
  std::set<int64_t> corner;  // the pixel at 0, 0 is in the windows of four
  for (const int64_t pixel : {0, 1, 5, 6})
    for (int64_t o = 0; o < 17; ++o) corner.insert(pixel * 17 + o);
  CHECK(tainted(conv, shapes, 0, 2) == corner);
  CHECK(tainted(conv, shapes, 1, (16 * 9 + 4) * 3) == part(20, 17, -1, 16));
}

TEST_CASE("NaN passes through batch norm to its channel and through the average pool to its image's") {
  const Op norm = [](const std::vector<Tensor>& t) {
    const BatchStatistics s = batch_statistics(t[0]);
    return batch_norm_forward(t[0], t[1], t[2], s, 1e-5f);
  };
  const std::vector<Shape> shapes = {{6, 19}, {19}, {19}};
  CHECK(tainted(norm, shapes, 0, 5 * 19 + 18) == part(6, 19, -1, 18));
  CHECK(tainted(norm, shapes, 1, 3) == part(6, 19, -1, 3));
  CHECK(tainted(norm, shapes, 2, 0) == part(6, 19, -1, 0));
  const Op pool = [](const std::vector<Tensor>& t) { return average_pool_forward(t[0]); };
  CHECK(tainted(pool, {{2, 3, 3, 7}}, 0, (9 + 8) * 7 + 6) == std::set<int64_t>{7 + 6});
}

}  // namespace
}  // namespace nibble::testing
