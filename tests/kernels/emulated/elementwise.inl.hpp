// The element-wise kernels of an AVX-512 level on emulated instructions: our code and xsimd's, as they are.
//
// xsimd decides by the compiler's macros which vectors there are; they are defined here, after everything that must
// see the truth, and its calls of intrinsics then mean the emulated ones. NIBBLE_KERNEL_LEVEL is the namespace.
#pragma once
#define NIBBLE_KERNEL_LANES 16
#include <immintrin.h>

#include "tests/kernels/emulated/intrinsics.hpp"
#undef NIBBLE_INLINE  // vocab.hpp defines its own

// Used by xsimd in ways that SIMDe 0.7.4's macros do not allow, and by none of our kernels.
#undef _mm256_testc_ps
#undef _mm256_testc_pd
#undef _mm256_testc_si256
#undef _mm256_setr_ps
#undef _mm256_setr_pd

#undef __SSE3__
#undef __SSSE3__
#undef __SSE4_1__
#undef __SSE4_2__
#undef __AVX__
#undef __AVX2__
#undef __AVX512F__
#undef __AVX512CD__
#undef __AVX512DQ__
#undef __AVX512BW__
#define __SSE3__ 1
#define __SSSE3__ 1
#define __SSE4_1__ 1
#define __SSE4_2__ 1
#define __AVX__ 1
#define __AVX2__ 1
#define __AVX512F__ 1
#define __AVX512CD__ 1
#define __AVX512DQ__ 1
#define __AVX512BW__ 1
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "tests/kernels/elementwise_support.hpp"
