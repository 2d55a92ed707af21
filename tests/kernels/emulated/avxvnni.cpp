// The very products of the avxvnni level, compiled on emulated intrinsics.
#define NIBBLE_KERNEL_LEVEL emulated_avxvnni
#define NIBBLE_INTRINSICS_HEADER "tests/kernels/emulated/intrinsics.hpp"
#include "tests/kernels/emulated/intrinsics.hpp"

#include "ops/kernels/isa/avxvnni/products.hpp"
#include "tests/kernels/emulated/levels.hpp"

namespace nibble::kernels::emulated_avxvnni {
constinit const Table kEmulated = kProducts;
}
