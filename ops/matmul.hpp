// Matrix product, and the panel loop that every f32 product of the generic ops goes through.
#pragma once
#include "engine/tape.hpp"
#include "ops/row_products.hpp"

namespace nibble {

/// A read-only matrix: element (r, c) = data[r * row_stride + c * column_stride]; one of the strides is 1.
struct MatrixView {
  const float* data = nullptr;
  int64_t rows = 0, columns = 0;
  int64_t row_stride = 0, column_stride = 1;

  MatrixView transposed() const { return {data, columns, rows, column_stride, row_stride}; }
};

/// Rows of a dense f32 tensor as a matrix [rows, innermost dimension].
MatrixView matrix_of(const Tensor& t);

/// Writes the left operand's rows [m0, m0 + m), elements [k0, k0 + k), as one panel of the kernel.
using PackLeft = FunctionRef<void(int64_t m0, int m, int64_t k0, int k, void* panel)>;

/// All columns of the right operand [k, n] as panels of the active level's f32 kernel.
Panels pack_right(const MatrixView& b);

/// One block of a product, on the calling thread: rows [m0, m0 + rows) of the left operand times all of `right`, into
/// c [round_up(rows, mr), right.padded_columns()]. K is cut into chunks of kChunkK, so the order of every sum is fixed
/// by k alone.
void multiply_block(const PackLeft& left, const Panels& right, int64_t m0, int64_t rows, float* c);

/// c [a.rows, b.columns] = a * b, written with rows `ldc` elements apart.
/// Exact?: fp32 sums in an order fixed by k and the kernel level.  Threads: blocks of 48 rows of c.
/// Cost: rows * columns * k products, one packed copy of b.
void multiply(const MatrixView& a, const MatrixView& b, float* c, int64_t ldc);

/// y = a b.
/// Shapes: a [m, k], b [k, n], y [m, n].  Types: f32, dense.
/// Exact?: fp32 sums, one order per kernel level.  Threads: blocks of 48 rows.
/// Errors: ShapeError if the inner dimensions differ, DTypeError if an operand is not f32.
/// Cost: m n k products.
Tensor matmul_forward(const Tensor& a, const Tensor& b);

/// d_a [m, k] = d_y b^T.
Tensor matmul_backward_a(const Tensor& d_y, const Tensor& b);
/// d_b [k, n] = a^T d_y.
Tensor matmul_backward_b(const Tensor& d_y, const Tensor& a);

/// Saves: a and b.  Gradients: a, b.
Variable matmul(Tape* tape, const Variable& a, const Variable& b);

}  // namespace nibble
