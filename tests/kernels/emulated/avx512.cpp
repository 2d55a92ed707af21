// The very products of the avx512 level, compiled on emulated intrinsics.
#define NIBBLE_KERNEL_LEVEL emulated_avx512
#define NIBBLE_INTRINSICS_HEADER "tests/kernels/emulated/intrinsics.hpp"
#include "tests/kernels/emulated/intrinsics.hpp"

#include "ops/kernels/isa/avx512/products.hpp"
#include "tests/kernels/emulated/levels.hpp"

namespace nibble::kernels::emulated_avx512 {
constinit const Table kEmulated = kProducts;
}
