// The AMX level: its products, and the element-wise kernels of the level below.
#define NIBBLE_KERNEL_LEVEL amx
#define NIBBLE_KERNEL_LANES 16
#include "ops/kernels/generic/inherited_elementwise.inl.hpp"
#include "ops/kernels/isa/amx/products.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::amx {

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::amx
