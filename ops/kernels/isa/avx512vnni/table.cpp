// The AVX-512-VNNI level: its products, and the element-wise kernels of the level below.
#define NIBBLE_KERNEL_LEVEL avx512vnni
#define NIBBLE_KERNEL_LANES 16
#include "ops/kernels/generic/inherited_elementwise.inl.hpp"
#include "ops/kernels/isa/avx512vnni/products.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avx512vnni {

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::avx512vnni
