// The AVX-512 level (F, BW, VL, DQ), for CPUs without a dot-product instruction.
#define NIBBLE_KERNEL_LEVEL avx512
#define NIBBLE_KERNEL_LANES 16
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/avx512/gemm.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avx512 {

constinit const Table kTable = {
    .u8s8 = pair_gemm<kMr, kNv>(),
    .u8s4 = byte_gemm<QuadsOf4Bit, kMr, kNv, 8>(),
    .u4s4 = byte_gemm<QuadsOf4Bit, kMr, kNv, 128>(),
    .bf16_gemm = float_gemm<bf16, FloatFma, kMr, kNv>(),
    .f32_gemm = float_gemm<float, FloatFma, kMr, kNv>(),
    .ew = kElementwise,
    .probe = nullptr,
};

}  // namespace nibble::kernels::avx512
