// 16-byte vectors are enough: one core's share of memory is far below what its load and store units take.
#include "ops/kernels/isa/bandwidth.hpp"

#if defined(NIBBLE_X86_KERNELS)
#include <emmintrin.h>
#endif

namespace nibble::kernels {

float read_floats(const float* x, int64_t n) {
  constexpr int64_t kSums = 16;  // independent, so that additions do not wait for each other
  float sum[kSums] = {};
  int64_t i = 0;
#if defined(NIBBLE_X86_KERNELS)
  __m128 wide[kSums] = {};
  for (; i + 4 * kSums <= n; i += 4 * kSums)
    for (int64_t k = 0; k < kSums; ++k) wide[k] = _mm_add_ps(wide[k], _mm_loadu_ps(x + i + 4 * k));
  for (int64_t k = 0; k < kSums; k += 4) {
    const __m128 four = _mm_add_ps(_mm_add_ps(wide[k], wide[k + 1]), _mm_add_ps(wide[k + 2], wide[k + 3]));
    _mm_storeu_ps(sum + k, four);
  }
#endif
  for (; i < n; ++i) sum[i % kSums] += x[i];
  float total = 0;
  for (const float part : sum) total += part;
  return total;
}

void halve_floats(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= 0.5f;
}

void stream_triad(float* to, const float* a, const float* b, float s, int64_t n) {
#if defined(NIBBLE_X86_KERNELS)
  const __m128 factor = _mm_set1_ps(s);
  for (int64_t i = 0; i < n; i += 4)
    _mm_stream_ps(to + i, _mm_add_ps(_mm_loadu_ps(a + i), _mm_mul_ps(factor, _mm_loadu_ps(b + i))));
  _mm_sfence();
#else
  for (int64_t i = 0; i < n; ++i) to[i] = a[i] + s * b[i];
#endif
}

}  // namespace nibble::kernels
