// The AVX-VNNI level: its products, and the element-wise kernels compiled with its flags.
#define NIBBLE_KERNEL_LEVEL avxvnni
#define NIBBLE_KERNEL_LANES 8
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/avxvnni/products.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avxvnni {

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::avxvnni
