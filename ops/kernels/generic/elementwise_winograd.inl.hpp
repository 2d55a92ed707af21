// The integer transforms of ops/winograd.hpp, channel by channel: sums of bytes and of 32-bit integers on the
// compiler's own vectors (GCC 12 does not vectorise the plain loops: too many pointers that might overlap).
#pragma once
#include <type_traits>

#include "ops/kernels/generic/elementwise_blocks.inl.hpp"

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

/// S d S^T of a tile whose pixels load(y, x) gives, position by position to store(position, values).
template <typename V, typename Load, typename Store>
NIBBLE_INLINE void transform_tile(const Load& load, const Store& store) {
  V rows[4][4];
  NIBBLE_UNROLL
  for (int y = 0; y < 4; ++y) {
    const V p0 = load(y, 0), p1 = load(y, 1), p2 = load(y, 2), p3 = load(y, 3);
    rows[y][0] = static_cast<V>(p0 - p2);
    rows[y][1] = static_cast<V>(p1 + p2);
    rows[y][2] = static_cast<V>(p2 - p1);
    rows[y][3] = static_cast<V>(p1 - p3);
  }
  NIBBLE_UNROLL
  for (int x = 0; x < 4; ++x) {
    const V p0 = rows[0][x], p1 = rows[1][x], p2 = rows[2][x], p3 = rows[3][x];
    store(x, static_cast<V>(p0 - p2));
    store(4 + x, static_cast<V>(p1 + p2));
    store(8 + x, static_cast<V>(p2 - p1));
    store(12 + x, static_cast<V>(p1 - p3));
  }
}

/// The pointers that a kernel reads from `offset` on, in the function's own memory, which no store of bytes changes.
template <int kCount, typename S>
struct Pointers {
  const S* at[kCount];
  NIBBLE_INLINE Pointers(const S* const* pixels, int64_t offset) {
    for (int p = 0; p < kCount; ++p) at[p] = pixels[p] + offset;
  }
  NIBBLE_INLINE const S* operator[](int p) const { return at[p]; }
};

/// body.template operator()<V>(c): channels from c on, by vectors of T, the last ones by single elements.
template <typename T, typename Body>
NIBBLE_INLINE void by_vectors(int64_t n, const Body& body) {
  using Vector = typename VectorOf<T>::Type;
  constexpr int64_t kCount = sizeof(Vector) / sizeof(T);
  int64_t c = 0;
  for (; c + kCount <= n; c += kCount) body.template operator()<Vector>(c);
  for (; c < n; ++c) body.template operator()<T>(c);
}

/// Sums of bytes are modulo 256: only the results fit.
template <typename T>
NIBBLE_INLINE void transform_codes(const uint8_t* const* pixels, int64_t offset, int64_t n, T added, T* out,
                                   int64_t stride) {
  const Pointers<16, uint8_t> from(pixels, offset);
  by_vectors<T>(n, [&]<typename V>(int64_t c) NIBBLE_INLINE_BODY {
    const V offsets = static_cast<V>(V{} + added);
    transform_tile<V>([&](int y, int x) NIBBLE_INLINE_BODY { return load_pixels<V>(from[4 * y + x] + c); },
                      [&](int position, V v) NIBBLE_INLINE_BODY {
                        if (position != 5) v = static_cast<V>(v + offsets);
                        __builtin_memcpy(out + position * stride + c, &v, sizeof v);
                      });
  });
}

void winograd_input(const uint8_t* const* pixels, int64_t offset, int64_t n, uint8_t* out, int64_t stride) {
  transform_codes(pixels, offset, n, uint8_t{30}, out, stride);
}

void winograd_input_wide(const uint8_t* const* pixels, int64_t offset, int64_t n, int16_t* out, int64_t stride) {
  transform_codes(pixels, offset, n, int16_t{0}, out, stride);
}

/// R s R^T of the sums that load(position) gives.
template <typename V, typename Load>
NIBBLE_INLINE void outputs_of(const Load& load, V (&y)[4]) {
  V upper[4], lower[4];
  NIBBLE_UNROLL
  for (int j = 0; j < 4; ++j) {
    const V s0 = load(j), s1 = load(4 + j), s2 = load(8 + j), s3 = load(12 + j);
    upper[j] = s0 + s1 + s2;
    lower[j] = s1 - s2 - s3;
  }
  y[0] = upper[0] + upper[1] + upper[2];
  y[1] = upper[1] - upper[2] - upper[3];
  y[2] = lower[0] + lower[1] + lower[2];
  y[3] = lower[1] - lower[2] - lower[3];
}

void winograd_output(const int32_t* sums, int64_t stride, int64_t n, const int32_t* start, int64_t start_stride,
                     int32_t* const* out) {
  // Unsigned: sums wrap, and only the results are signed.
  by_vectors<uint32_t>(n, [&]<typename V>(int64_t c) NIBBLE_INLINE_BODY {
    V y[4];
    outputs_of([&](int p) NIBBLE_INLINE_BODY { return load_vector<V>(sums + p * stride + c); }, y);
    NIBBLE_UNROLL
    for (int q = 0; q < 4; ++q) {
      using S = typename SignedOf<V>::Type;
      const S quarter = __builtin_bit_cast(S, y[q] - load_vector<V>(start + q * start_stride + c)) >> 2;
      __builtin_memcpy(out[q] + c, &quarter, sizeof quarter);
    }
  });
}

/// S of a line of six pixels: even and odd terms apart.
template <typename V>
NIBBLE_INLINE void source_line(const V (&d)[6], V (&t)[6]) {
  const V even = static_cast<V>(d[4] - (d[2] << 2)), odd = static_cast<V>(d[3] - (d[1] << 2));
  const V near = static_cast<V>(d[4] - d[2]), twice = static_cast<V>((d[3] - d[1]) << 1);
  t[0] = static_cast<V>((d[0] << 2) + d[4] - d[2] - (d[2] << 2));
  t[1] = static_cast<V>(even + odd);
  t[2] = static_cast<V>(even - odd);
  t[3] = static_cast<V>(near + twice);
  t[4] = static_cast<V>(near - twice);
  t[5] = static_cast<V>((d[1] << 2) + d[5] - d[3] - (d[3] << 2));
}

void winograd_input_4x4(const uint8_t* const* pixels, int64_t offset, int64_t n, int16_t* out, int64_t stride) {
  const Pointers<36, uint8_t> from(pixels, offset);
  by_vectors<int16_t>(n, [&]<typename V>(int64_t c) NIBBLE_INLINE_BODY {
    V columns[6][6];
    NIBBLE_UNROLL
    for (int x = 0; x < 6; ++x) {
      V in[6], t[6];
      NIBBLE_UNROLL
      for (int y = 0; y < 6; ++y) in[y] = load_pixels<V>(from[6 * y + x] + c);
      source_line(in, t);
      NIBBLE_UNROLL
      for (int i = 0; i < 6; ++i) columns[i][x] = t[i];
    }
    NIBBLE_UNROLL
    for (int i = 0; i < 6; ++i) {
      V t[6];
      source_line(columns[i], t);
      NIBBLE_UNROLL
      for (int j = 0; j < 6; ++j) __builtin_memcpy(out + (6 * i + j) * stride + c, &t[j], sizeof t[j]);
    }
  });
}

/// R of a line of six sums, modulo 2^32.
template <typename V>
NIBBLE_INLINE void output_line(const V (&s)[6], V (&y)[4]) {
  const V sum = s[1] + s[2], difference = s[2] - s[1], far_sum = s[3] + s[4], far_difference = s[3] - s[4];
  y[0] = s[0] * 6 + far_sum - (sum << 2);
  y[1] = (difference << 2) + (far_difference << 1);
  y[2] = (far_sum - sum) << 2;
  y[3] = (difference << 2) + (far_difference << 3) + s[5] * 24;
}

void winograd_output_4x4(const int32_t* sums, int64_t stride, int64_t n, int32_t* const* out) {
  constexpr uint32_t kNinth = 954437177;  // 9 * kNinth = 1 modulo 2^32
  by_vectors<uint32_t>(n, [&]<typename V>(int64_t c) NIBBLE_INLINE_BODY {
    V columns[4][6];
    NIBBLE_UNROLL
    for (int j = 0; j < 6; ++j) {
      V in[6], y[4];
      NIBBLE_UNROLL
      for (int i = 0; i < 6; ++i) in[i] = load_vector<V>(sums + (6 * i + j) * stride + c);
      output_line(in, y);
      NIBBLE_UNROLL
      for (int u = 0; u < 4; ++u) columns[u][j] = y[u];
    }
    NIBBLE_UNROLL
    for (int u = 0; u < 4; ++u) {
      V y[4];
      output_line(columns[u], y);
      NIBBLE_UNROLL
      for (int v = 0; v < 4; ++v) {
        using S = typename SignedOf<V>::Type;
        const S output = __builtin_bit_cast(S, y[v] * kNinth) >> 6;
        __builtin_memcpy(out[4 * u + v] + c, &output, sizeof output);
      }
    }
  });
}

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
