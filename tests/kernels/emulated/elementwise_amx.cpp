// The element-wise kernels of the amx level on emulated instructions: those of AVX-512 that round with AVX512-BF16.
#define NIBBLE_KERNEL_LEVEL emulated_amx
#include <immintrin.h>

#include "tests/kernels/emulated/intrinsics.hpp"

// For our kernels only: the headers above ask it what the compiler may use.
#undef __AVX512BF16__
#define __AVX512BF16__ 1
#include "tests/kernels/emulated/elementwise.inl.hpp"

namespace nibble::testing {
namespace {

const EmulatedElementwise kRegistered("emulated amx", kernels::emulated_amx::kElementwise);
static_assert(kernels::emulated_amx::Wide::kRoundsPairs);

}  // namespace
}  // namespace nibble::testing
