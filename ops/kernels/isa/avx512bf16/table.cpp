// The AVX512-BF16 level: its products, and the element-wise kernels compiled with its flags.
#define NIBBLE_KERNEL_LEVEL avx512bf16
#define NIBBLE_KERNEL_LANES 16
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/avx512bf16/products.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avx512bf16 {

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::avx512bf16
