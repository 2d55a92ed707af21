// The element-wise kernels of the avx512 and avx512vnni levels on emulated instructions.
#define NIBBLE_KERNEL_LEVEL emulated_avx512
#include "tests/kernels/emulated/elementwise.inl.hpp"

namespace nibble::testing {
namespace {

const EmulatedElementwise kRegistered("emulated avx512", kernels::emulated_avx512::kElementwise);

}  // namespace
}  // namespace nibble::testing
