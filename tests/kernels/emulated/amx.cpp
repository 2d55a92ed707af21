// The very products of the amx level, compiled on emulated intrinsics.
#define NIBBLE_KERNEL_LEVEL emulated_amx
#define NIBBLE_INTRINSICS_HEADER "tests/kernels/emulated/intrinsics.hpp"
#include "tests/kernels/emulated/intrinsics.hpp"

#include "ops/kernels/isa/amx/products.hpp"
#include "tests/kernels/emulated/levels.hpp"

namespace nibble::kernels::emulated_amx {
constinit const Table kEmulated = kProducts;
}
