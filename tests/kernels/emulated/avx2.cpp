// The very products of the avx2 level, compiled on emulated intrinsics.
#define NIBBLE_KERNEL_LEVEL emulated_avx2
#define NIBBLE_INTRINSICS_HEADER "tests/kernels/emulated/intrinsics.hpp"
#include "tests/kernels/emulated/intrinsics.hpp"

#include "ops/kernels/isa/avx2/products.hpp"
#include "tests/kernels/emulated/levels.hpp"

namespace nibble::kernels::emulated_avx2 {
constinit const Table kEmulated = kProducts;
}
