// The very products of the avx512bf16 level, compiled on emulated intrinsics.
#define NIBBLE_KERNEL_LEVEL emulated_avx512bf16
#define NIBBLE_INTRINSICS_HEADER "tests/kernels/emulated/intrinsics.hpp"
#include "tests/kernels/emulated/intrinsics.hpp"

#include "ops/kernels/isa/avx512bf16/products.hpp"
#include "tests/kernels/emulated/levels.hpp"

namespace nibble::kernels::emulated_avx512bf16 {
constinit const Table kEmulated = kProducts;

bool probe_with_wrong_sum() {
  testing::emulated::flaw = testing::emulated::Flaw::kLastRealSumWrong;
  const bool accepted = kProducts.probe();
  testing::emulated::flaw = testing::emulated::Flaw::kNone;
  return accepted;
}
}  // namespace nibble::kernels::emulated_avx512bf16
