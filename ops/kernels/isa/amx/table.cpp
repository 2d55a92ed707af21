// The AMX level: tiles for codes and bf16, AVX-512 for everything else.
#define NIBBLE_KERNEL_LEVEL amx
#define NIBBLE_KERNEL_LANES 16
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/amx/gemm.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::amx {

// f32_gemm is inherited: tiles have no fp32 product.
constinit const Table kTable = {
    .u8s8 = tile_gemm_codes(),
    .u8s4 = tile_gemm_codes(),
    .u4s4 = tile_gemm_codes(),
    .bf16_gemm = tile_gemm_bf16(),
    .f32_gemm = {},
    .ew = kElementwise,
    .probe = probe_tiles,
};

}  // namespace nibble::kernels::amx
