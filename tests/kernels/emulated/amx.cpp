// The very products of the amx level, compiled on emulated intrinsics.
#define NIBBLE_KERNEL_LEVEL emulated_amx
#define NIBBLE_INTRINSICS_HEADER "tests/kernels/emulated/intrinsics.hpp"
#include "tests/kernels/emulated/intrinsics.hpp"

#include "ops/kernels/isa/amx/products.hpp"
#include "tests/kernels/emulated/levels.hpp"

namespace nibble::kernels::emulated_amx {
constinit const Table kEmulated = kProducts;

namespace {
bool probe_with(testing::emulated::Flaw flaw) {
  testing::emulated::flaw = flaw;
  const bool accepted = kProducts.probe();
  testing::emulated::flaw = testing::emulated::Flaw::kNone;
  return accepted;
}
}  // namespace

bool probe_without_contents() {
  return probe_with(testing::emulated::Flaw::kContentsLost);
}
bool probe_with_wrong_sum() {
  return probe_with(testing::emulated::Flaw::kLastSumWrong);
}
bool probe_with_wrong_real_sum() {
  return probe_with(testing::emulated::Flaw::kLastRealSumWrong);
}
bool probe_without_streamed_loads() {
  return probe_with(testing::emulated::Flaw::kStreamedLoadLost);
}
}  // namespace nibble::kernels::emulated_amx
