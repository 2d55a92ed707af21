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
namespace emulated_amx {
extern const Table kEmulated;
}
}  // namespace nibble::kernels
