// The transforms of ops/winograd.hpp, on the compiler's own vectors: sums of bytes and of 32-bit integers, channel by
// channel. (GCC 12 does not vectorise the plain loops: too many pointers that might overlap.)
#pragma once
#include <type_traits>

#include "ops/kernels/generic/vocab.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

template <typename T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(NIBBLE_KERNEL_LANES * 4)));
};

/// As many bytes as a vector has 16-bit integers.
typedef uint8_t NarrowBytes __attribute__((vector_size(NIBBLE_KERNEL_LANES * 2)));

/// The signed twin of unsigned words.
template <typename V>
struct SignedOf;
template <>
struct SignedOf<uint32_t> {
  using Type = int32_t;
};
template <>
struct SignedOf<VectorOf<uint32_t>::Type> {
  using Type = VectorOf<int32_t>::Type;
};

template <typename V>
NIBBLE_INLINE V load_vector(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// As many bytes as V has elements; V: uint8_t, int16_t or a vector of them.
template <typename V>
NIBBLE_INLINE V load_pixels(const uint8_t* p) {
  if constexpr (std::is_same_v<V, int16_t>)
    return *p;
  else if constexpr (std::is_same_v<V, VectorOf<int16_t>::Type>)
    return __builtin_convertvector(load_vector<NarrowBytes>(p), V);
  else
    return load_vector<V>(p);
}

/// Channels from c on, as many as V has, with `offset` added. Sums of bytes are modulo 256: only the results fit.
template <typename V, typename T>
NIBBLE_INLINE void winograd_input_step(const uint8_t* const (&pixels)[16], int64_t c, T offset, T* out,
                                       int64_t stride) {
  V rows[4][4];
  NIBBLE_UNROLL
  for (int y = 0; y < 4; ++y) {
    const V p0 = load_pixels<V>(pixels[4 * y] + c), p1 = load_pixels<V>(pixels[4 * y + 1] + c),
            p2 = load_pixels<V>(pixels[4 * y + 2] + c), p3 = load_pixels<V>(pixels[4 * y + 3] + c);
    rows[y][0] = static_cast<V>(p0 - p2);
    rows[y][1] = static_cast<V>(p1 + p2);
    rows[y][2] = static_cast<V>(p2 - p1);
    rows[y][3] = static_cast<V>(p1 - p3);
  }
  const V added = static_cast<V>(V{} + offset);
  NIBBLE_UNROLL
  for (int x = 0; x < 4; ++x) {
    const V p0 = rows[0][x], p1 = rows[1][x], p2 = rows[2][x], p3 = rows[3][x];
    const V to[4] = {static_cast<V>(p0 - p2 + added), static_cast<V>(x == 1 ? p1 + p2 : p1 + p2 + added),
                     static_cast<V>(p2 - p1 + added), static_cast<V>(p1 - p3 + added)};
    NIBBLE_UNROLL
    for (int y = 0; y < 4; ++y) __builtin_memcpy(out + (4 * y + x) * stride + c, &to[y], sizeof(V));
  }
}

template <typename T>
NIBBLE_INLINE void transform_input(const uint8_t* const* pixels, int64_t n, T offset, T* out, int64_t stride) {
  using Vector = typename VectorOf<T>::Type;
  constexpr int64_t kCount = sizeof(Vector) / sizeof(T);
  const uint8_t* at[16];  // in the function's own memory, which no store of bytes changes
  for (int p = 0; p < 16; ++p) at[p] = pixels[p];
  int64_t c = 0;
  for (; c + kCount <= n; c += kCount) winograd_input_step<Vector>(at, c, offset, out, stride);
  for (; c < n; ++c) winograd_input_step<T>(at, c, offset, out, stride);
}

void winograd_input(const uint8_t* const* pixels, int64_t n, uint8_t* out, int64_t stride) {
  transform_input(pixels, n, uint8_t{30}, out, stride);
}

void winograd_input_wide(const uint8_t* const* pixels, int64_t n, int16_t* out, int64_t stride) {
  transform_input(pixels, n, int16_t{0}, out, stride);
}

/// V: uint32_t or a vector of them: sums wrap, and only the results are signed.
template <typename V>
NIBBLE_INLINE void winograd_output_step(const int32_t* sums, int64_t stride, int64_t c, const int32_t* start,
                                        int64_t start_stride, int32_t* const* out) {
  V upper[4], lower[4];
  NIBBLE_UNROLL
  for (int j = 0; j < 4; ++j) {
    const V s0 = load_vector<V>(sums + j * stride + c), s1 = load_vector<V>(sums + (4 + j) * stride + c),
            s2 = load_vector<V>(sums + (8 + j) * stride + c), s3 = load_vector<V>(sums + (12 + j) * stride + c);
    upper[j] = s0 + s1 + s2;
    lower[j] = s1 - s2 - s3;
  }
  const V y[4] = {upper[0] + upper[1] + upper[2], upper[1] - upper[2] - upper[3], lower[0] + lower[1] + lower[2],
                  lower[1] - lower[2] - lower[3]};
  NIBBLE_UNROLL
  for (int q = 0; q < 4; ++q) {
    using S = typename SignedOf<V>::Type;
    const S quarter = __builtin_bit_cast(S, y[q] - load_vector<V>(start + q * start_stride + c)) >> 2;
    __builtin_memcpy(out[q] + c, &quarter, sizeof quarter);
  }
}

void winograd_output(const int32_t* sums, int64_t stride, int64_t n, const int32_t* start, int64_t start_stride,
                     int32_t* const* out) {
  using Vector = VectorOf<uint32_t>::Type;
  constexpr int64_t kCount = sizeof(Vector) / sizeof(uint32_t);
  int64_t c = 0;
  for (; c + kCount <= n; c += kCount) winograd_output_step<Vector>(sums, stride, c, start, start_stride, out);
  for (; c < n; ++c) winograd_output_step<uint32_t>(sums, stride, c, start, start_stride, out);
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
