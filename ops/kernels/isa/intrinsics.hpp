// The one place where the kernels get their intrinsics from, so that tests can run them on an emulation instead.
#pragma once
#if defined(NIBBLE_INTRINSICS_HEADER)
#include NIBBLE_INTRINSICS_HEADER
#else
#include <immintrin.h>
#endif
