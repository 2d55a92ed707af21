// The very products of the avx512vnni level, compiled on emulated intrinsics.
#define NIBBLE_KERNEL_LEVEL emulated_avx512vnni
#define NIBBLE_INTRINSICS_HEADER "tests/kernels/emulated/intrinsics.hpp"
#include "tests/kernels/emulated/intrinsics.hpp"

#include "ops/kernels/isa/avx512vnni/products.hpp"
#include "tests/kernels/emulated/levels.hpp"

namespace nibble::kernels::emulated_avx512vnni {
constinit const Table kEmulated = kProducts;
}
