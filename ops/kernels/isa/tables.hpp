// What each ISA folder exports: exactly one object, its own slots only.
#pragma once
#include "ops/kernels/table.hpp"

namespace nibble::kernels {
namespace scalar {
extern const Table kTable;
}
namespace avx2 {
extern const Table kTable;
}
namespace avxvnni {
extern const Table kTable;
}
namespace avx512 {
extern const Table kTable;
}
namespace avx512vnni {
extern const Table kTable;
}
namespace avx512bf16 {
extern const Table kTable;
}
namespace amx {
extern const Table kTable;
}
}  // namespace nibble::kernels
