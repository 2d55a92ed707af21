// The scalar level: plain C++, the meaning of every kernel.
#define NIBBLE_KERNEL_LEVEL scalar
#define NIBBLE_KERNEL_LANES 1
#include "ops/kernels/generic/elementwise.inl.hpp"
#include "ops/kernels/generic/gemm.inl.hpp"
#include "ops/kernels/isa/tables.hpp"

namespace nibble::kernels::scalar {
namespace {

template <typename T>
struct Plain {
  static constexpr int kLanes = 1, kKr = 1, kGroupBytesA = 4, kGroupBytesB = 4, kUnroll = 1;
  using C = T;
  using Acc = T;
  using A = T;
  using B = T;
  static T zero() { return 0; }
  static T load_c(const T* p) { return *p; }
  static void store_c(T* p, T v) { *p = v; }
  static T load_b(const std::byte* p) { return load(p); }
  static T broadcast(const std::byte* p) { return load(p); }
  static T step(T acc, T a, T b) { return acc + a * b; }

 private:
  static T load(const std::byte* p) {
    T v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
};

/// Sums modulo 2^32.
struct Wrapping : Plain<int32_t> {
  static int32_t step(int32_t acc, int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(acc) + static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
  }
};

constexpr int kMr = 4, kNr = 8;

template <typename Gemm, typename Step = Plain<int32_t>>
constexpr Gemm int_gemm() {
  Gemm g;
  g.mr = kMr;
  g.nr = kNr;
  g.kr = 1;
  g.a_bytes = g.b_bytes = 4;
  g.pack_a = pack_rows_plain<typename Gemm::Left, int32_t, kMr, 1>;
  g.pack_b = pack_columns_plain<typename Gemm::Right, int32_t, kNr, 1>;
  g.run = run_tiles<Step, kMr, kNr>;
  return g;
}

template <typename T>
constexpr GemmFloat<T> float_gemm() {
  GemmFloat<T> g;
  g.mr = kMr;
  g.nr = kNr;
  g.kr = 1;
  g.a_bytes = g.b_bytes = 4;
  g.pack_a = pack_rows_plain<T, PanelFloat, kMr, 1>;
  g.pack_a_transposed = pack_transposed_plain<T, kMr>;
  g.pack_b = pack_columns_plain<T, PanelFloat, kNr, 1>;
  g.pack_b_rows = pack_gathered_plain<T, kNr>;
  if constexpr (sizeof(T) == 2) g.pack_b_rows_u8 = pack_gathered_plain<uint8_t, kNr>;
  g.run = run_tiles<Plain<float>, kMr, kNr>;
  return g;
}

constexpr Table kProducts = {
    .u8s8 = int_gemm<GemmInt>(),
    .u8s4 = int_gemm<GemmInt>(),
    .u4s4 = int_gemm<GemmInt>(),
    .u6s7 = int_gemm<GemmInt>(),
    .s16s14 = int_gemm<GemmWide, Wrapping>(),
    .bf16_gemm = float_gemm<bf16>(),
    .f32_gemm = float_gemm<float>(),
    .ew = {},
    .probe = nullptr,
};

}  // namespace

constinit const Table kTable = with_elementwise(kProducts, kElementwise);

}  // namespace nibble::kernels::scalar
