#include "ops/matmul.hpp"

#include "ops/float_op.hpp"

namespace nibble {

MatrixView matrix_of(const Tensor& t) {
  return {t.data<float>(), t.rows(), t.shape().back(), t.stride(), 1};
}

Panels pack_right(const MatrixView& b) {
  const std::vector<Tap> one_tap(1);
  return pack_panels(kernels::active().f32_gemm,
                     PanelSource<float>{.data = b.data, .k_stride = b.row_stride, .n_stride = b.column_stride}, one_tap,
                     b.rows, b.columns);
}

void multiply_block(const PackLeft& left, const Panels& right, int64_t m0, int64_t rows, float* c) {
  const kernels::GemmFloat<float>& gemm = kernels::active().f32_gemm;
  const int64_t m_panels = ceil_div(rows, gemm.mr), ldc = right.padded_columns();
  const int64_t part = round_up(std::min(right.segment_k, kChunkK), gemm.kr);
  const int64_t panel_bytes = round_up(gemm.mr * part * gemm.a_bytes, static_cast<int64_t>(kAlignment));
  Scratch scratch;
  auto* a = scratch.get<std::byte>(static_cast<size_t>(m_panels * panel_bytes));
  for (int64_t k0 = 0; k0 < right.segment_k; k0 += part) {
    const int64_t padded = std::min(part, right.segment_k - k0), valid = std::min(padded, right.k - k0);
    for (int64_t p = 0; p < m_panels; ++p) {
      const int m = static_cast<int>(std::min<int64_t>(gemm.mr, rows - p * gemm.mr));
      left(m0 + p * gemm.mr, m, k0, static_cast<int>(valid), a + p * panel_bytes);
    }
    for (int64_t n = 0; n < right.count(); ++n)
      gemm.run(static_cast<int>(padded), static_cast<int>(rows), a, panel_bytes,
               right.panel(n) + k0 * gemm.nr * gemm.b_bytes, c + n * gemm.nr, ldc,
               k0 == 0 ? kernels::Into::kOverwrite : kernels::Into::kAccumulate, nullptr);
  }
}

void multiply(const MatrixView& a, const MatrixView& b, float* c, int64_t ldc) {
  const kernels::GemmFloat<float>& gemm = kernels::active().f32_gemm;
  if (b.rows == 0) {
    for (int64_t r = 0; r < a.rows; ++r) std::fill_n(c + r * ldc, b.columns, 0.0f);
    return;
  }
  const Panels right = pack_right(b);
  parallel_blocks(a.rows, round_up(kBlockRows, gemm.mr), [&](int64_t begin, int64_t end) {
    Scratch scratch;
    const float** pointers =
        scratch.get<const float*>(static_cast<size_t>(std::max<int64_t>(gemm.mr, kChunkK + gemm.kr)));
    float* block = scratch.get<float>(static_cast<size_t>(round_up(end - begin, gemm.mr) * right.padded_columns()));
    // Rows that lie contiguous are packed as they are; a transposed matrix gives one contiguous row per k.
    const auto left = [&](int64_t m0, int m, int64_t k0, int k, void* panel) {
      if (a.column_stride == 1) {
        for (int r = 0; r < m; ++r) pointers[r] = a.data + (m0 + r) * a.row_stride + k0;
        gemm.pack_a(pointers, m, k, panel);
      } else {
        for (int i = 0; i < k; ++i) pointers[i] = a.data + (k0 + i) * a.column_stride + m0;
        gemm.pack_a_transposed(pointers, k, m, panel);
      }
    };
    multiply_block(left, right, begin, end - begin, block);
    for (int64_t r = begin; r < end; ++r)
      std::copy_n(block + (r - begin) * right.padded_columns(), b.columns, c + r * ldc);
  });
}

Tensor matmul_forward(const Tensor& a, const Tensor& b) {
  require_f32("matmul", "a", a, 2);
  require_f32("matmul", "b", b, 2);
  if (a.dim(1) != b.dim(0))
    throw ShapeError("[matmul] a is {} and b is {}, but a's columns must equal b's rows; transpose or reshape one",
                     a.shape().str(), b.shape().str());
  Tensor y(DType::f32, {a.dim(0), b.dim(1)});
  multiply(matrix_of(a), matrix_of(b), y.data<float>(), y.stride());
  return y;
}

Tensor matmul_backward_a(const Tensor& d_y, const Tensor& b) {
  require_f32("matmul", "b", b, 2);
  require_f32("matmul", "d_y", d_y, {d_y.dim(0), b.dim(1)}, "b's columns");
  Tensor d_a(DType::f32, {d_y.dim(0), b.dim(0)});
  multiply(matrix_of(d_y), matrix_of(b).transposed(), d_a.data<float>(), d_a.stride());
  return d_a;
}

Tensor matmul_backward_b(const Tensor& d_y, const Tensor& a) {
  require_f32("matmul", "a", a, 2);
  require_f32("matmul", "d_y", d_y, {a.dim(0), d_y.shape().back()}, "a's rows");
  Tensor d_b(DType::f32, {a.dim(1), d_y.dim(1)});
  multiply(matrix_of(a).transposed(), matrix_of(d_y), d_b.data<float>(), d_b.stride());
  return d_b;
}

Variable matmul(Tape* tape, const Variable& a, const Variable& b) {
  return taped(
      tape, matmul_forward(a.value(), b.value()),
      [a, b](const Tensor& d_y) {
        if (a.wants_grad()) a.accumulate(matmul_backward_a(d_y, b.value()));
        if (b.wants_grad()) b.accumulate(matmul_backward_b(d_y, a.value()));
      },
      a, b);
}

}  // namespace nibble
