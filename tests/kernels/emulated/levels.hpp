// The products of the levels that a machine may lack, compiled on emulated intrinsics.
#pragma once
#include "ops/kernels/table.hpp"

namespace nibble::kernels {
namespace emulated_avx2 {
extern const Table kEmulated;
}
namespace emulated_avxvnni {
extern const Table kEmulated;
}
namespace emulated_avx512 {
extern const Table kEmulated;
}
namespace emulated_avx512vnni {
extern const Table kEmulated;
}
namespace emulated_avx512bf16 {
extern const Table kEmulated;
/// What the probe says about a dot product whose last sum is wrong.
bool probe_with_wrong_sum();
}  // namespace emulated_avx512bf16
namespace emulated_amx {
extern const Table kEmulated;
/// What the probe says about tiles whose contents are lost, about tiles that compute one sum of codes or of floats
/// wrong, and about tiles that lose what a streaming load brings.
bool probe_without_contents();
bool probe_with_wrong_sum();
bool probe_with_wrong_real_sum();
bool probe_without_streamed_loads();
}  // namespace emulated_amx
}  // namespace nibble::kernels
