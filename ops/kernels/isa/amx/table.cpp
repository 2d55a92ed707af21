// The AMX level: its products, and the element-wise kernels compiled with its flags.
#define NIBBLE_KERNEL_LEVEL amx
#define NIBBLE_KERNEL_LANES 16
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/isa/amx/products.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::amx {

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::amx
