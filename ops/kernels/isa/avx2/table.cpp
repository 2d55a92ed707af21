// The AVX2 level: its products, and the element-wise kernels compiled with its flags.
#define NIBBLE_KERNEL_LEVEL avx2
#define NIBBLE_KERNEL_LANES 8
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/avx2/products.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avx2 {

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::avx2
