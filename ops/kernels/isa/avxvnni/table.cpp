// The AVX-VNNI level: its products, and the element-wise kernels of the level below.
#define NIBBLE_KERNEL_LEVEL avxvnni
#define NIBBLE_KERNEL_LANES 8
#include "ops/kernels/generic/inherited_elementwise.inl.hpp"
#include "ops/kernels/isa/avxvnni/products.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::avxvnni {

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::avxvnni
