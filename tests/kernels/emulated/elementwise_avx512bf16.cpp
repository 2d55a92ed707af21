// The element-wise kernels of the avx512bf16 and amx levels on emulated instructions: those of AVX-512 that round with
// AVX512-BF16.
#define NIBBLE_KERNEL_LEVEL emulated_avx512bf16
#include <immintrin.h>

#include "tests/kernels/emulated/intrinsics.hpp"

// For our kernels only: the headers above ask it what the compiler may use.
#undef __AVX512BF16__
#define __AVX512BF16__ 1
#include "tests/kernels/emulated/elementwise.inl.hpp"

namespace nibble::testing {
namespace {

const EmulatedElementwise kRegistered("emulated avx512bf16", kernels::emulated_avx512bf16::kElementwise);
static_assert(kernels::emulated_avx512bf16::Wide::kRoundsPairs);

}  // namespace
}  // namespace nibble::testing
