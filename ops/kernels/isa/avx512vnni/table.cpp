// The AVX-512-VNNI level.
#define NIBBLE_KERNEL_LEVEL avx512vnni
#define NIBBLE_KERNEL_LANES 16
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/avx512vnni/gemm.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avx512vnni {

// One dot-product kernel serves all code widths. bf16 products convert and use FMA: the bf16 dot product, where there is
// one, runs at half the rate of FMA on the CPUs measured.
constinit const Table kTable = {
    .u8s8 = quad_gemm<DotOfBytes, kMr, kNv>(),
    .u8s4 = quad_gemm<DotOfBytes, kMr, kNv>(),
    .u4s4 = quad_gemm<DotOfBytes, kMr, kNv>(),
    .bf16_gemm = float_gemm<bf16, FloatFma, kMr, kNv>(),
    .f32_gemm = float_gemm<float, FloatFma, kMr, kNv>(),
    .ew = kElementwise,
    .probe = nullptr,
};

}  // namespace nibble::kernels::avx512vnni
