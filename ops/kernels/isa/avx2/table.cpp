// The AVX2 level.
#define NIBBLE_KERNEL_LEVEL avx2
#define NIBBLE_KERNEL_LANES 8
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/avx2/gemm.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avx2 {

constinit const Table kTable = {
    .u8s8 = pair_gemm<kMr, kNv>(),
    // Partial sums of 8-bit activations last 8 steps only; the smaller tile's sums stay in the nearest cache lines.
    .u8s4 = byte_gemm<QuadsOf4Bit, kMr, kNv, 8>(),
    .u4s4 = byte_gemm<QuadsOf4Bit, kMr, kNv, 128>(),
    .bf16_gemm = float_gemm<bf16, FloatFma, kMr, kNv>(),
    .f32_gemm = float_gemm<float, FloatFma, kMr, kNv>(),
    .ew = kElementwise,
    .probe = nullptr,
};

}  // namespace nibble::kernels::avx2
