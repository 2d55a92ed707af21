// Elementary functions with fixed bits: libm's results differ between libraries and CPUs, these use only IEEE
// add, multiply, divide and sqrt in one written order (the project compiles with -ffp-contract=off).
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace nibble {

inline float sqrt_exact(float x) {
  return std::sqrt(x);  // IEEE: correctly rounded everywhere
}

/// e^x, |relative error| < 3e-7; 0 below -87.3, +inf above 88.7, NaN for NaN.
inline float exp_exact(float x) {
  if (!(x <= 88.72283f)) return x != x ? x : std::bit_cast<float>(0x7f800000u);
  if (x < -87.33654f) return 0.0f;
  // x = k ln2 + r with ln2 in two parts (Cody and Waite), then a degree-6 polynomial on |r| <= ln2/2.
  const float k = std::floor(x * 1.44269504f + 0.5f);
  const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.3888889e-3f;  // 1/720
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t half = static_cast<int32_t>(k) / 2;
  const int32_t rest = static_cast<int32_t>(k) - half;
  const float a = std::bit_cast<float>((half + 127) << 23), b = std::bit_cast<float>((rest + 127) << 23);
  return p * a * b;
}

/// Natural logarithm of a positive normal number, |error| < 1e-6 relative to max(1, |log x|).
inline float log_exact(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  int32_t e = static_cast<int32_t>(u >> 23) - 127;
  float m = std::bit_cast<float>((u & 0x007fffffu) | 0x3f800000u);  // [1, 2)
  if (m > 1.41421356f) {
    m *= 0.5f;
    ++e;
  }
  // log m = 2 artanh(s), s = (m-1)/(m+1), |s| <= 0.1716; terms to s^11 leave 2 s^13/13 < 2e-11.
  const float s = (m - 1.0f) / (m + 1.0f), z = s * s;
  float p = 1.0f / 11.0f;
  p = p * z + 1.0f / 9.0f;
  p = p * z + 1.0f / 7.0f;
  p = p * z + 0.2f;
  p = p * z + 1.0f / 3.0f;
  p = p * z + 1.0f;
  return 2.0f * s * p + static_cast<float>(e) * 0.693147181f;
}

/// cos(2 pi t) for t in [0, 1); absolute error < 1e-6.
inline float cos2pi_exact(float t) {
  float q = t < 0.5f ? t : 1.0f - t;  // cos is even about 1/2: q in [0, 1/2]
  float sign = 1.0f;
  if (q > 0.25f) {
    q = 0.5f - q;
    sign = -1.0f;
  }
  const float a = q * 6.28318531f, z = a * a;  // a in [0, pi/2]; Taylor to a^12
  float p = 2.0876757e-9f;
  p = p * z - 2.7557319e-7f;
  p = p * z + 2.4801587e-5f;
  p = p * z - 1.3888889e-3f;
  p = p * z + 4.1666667e-2f;
  p = p * z - 0.5f;
  p = p * z + 1.0f;
  return sign * p;
}

inline float cos_exact(double radians) {
  double turns = radians * 0.15915494309189535;
  turns -= std::floor(turns);
  return cos2pi_exact(static_cast<float>(turns) >= 1.0f ? 0.0f : static_cast<float>(turns));
}

}  // namespace nibble
