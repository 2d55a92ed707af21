// The one place where the products get their intrinsics from, so that tests can run them on an emulation instead. The
// element-wise kernels (convert.hpp) and the loops of peak.cpp and bandwidth.cpp include their own.
#pragma once
#if defined(NIBBLE_INTRINSICS_HEADER)
#include NIBBLE_INTRINSICS_HEADER
#else
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's AVX-512 intrinsics begin with a vector that is not initialised on purpose, and it warns about them where
// they are inlined.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
/// Keeps a vector in its register as it is. GCC treats integer additions of vectors as plain additions and reorders
/// sums of several steps into trees, which needs more registers than there are.
#define NIBBLE_KEEP(v) __asm__("" : "+v"(v))
#endif
