// The right operand of a product, packed for one GEMM kernel.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/parallel.hpp"
#include "engine/tensor.hpp"
#include "ops/gather.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {

/// The right operand in panels of one GEMM kernel: for each block of nr columns all segments (taps) in sequence.
struct Panels {
  Tensor storage;
  int64_t columns = 0, k = 0, segments = 0;  // k: elements of one segment
  int64_t segment_k = 0;                     // k rounded up to the kernel's granule
  int64_t panel_bytes = 0;
  int nr = 0;

  int64_t count() const { return nr == 0 ? 0 : ceil_div(columns, nr); }
  int64_t padded_columns() const { return count() * nr; }
  const std::byte* panel(int64_t p) const { return storage.raw() + p * panel_bytes; }
};

/// Panels for `segments` segments of k elements, not filled.
template <typename Gemm>
Panels make_panels(const Gemm& gemm, int64_t segments, int64_t k, int64_t columns) {
  Panels p;
  p.columns = columns;
  p.k = k;
  p.segments = segments;
  p.segment_k = round_up(k, gemm.kr);
  p.nr = gemm.nr;
  p.panel_bytes = round_up(segments * gemm.nr * p.segment_k * gemm.b_bytes, static_cast<int64_t>(kAlignment));
  p.storage = Tensor(DType::u8, {p.count(), p.panel_bytes});
  return p;
}

/// A right operand in memory: element (tap t, k, column n) = data[t*tap_stride + k*k_stride + n*n_stride].
template <typename T>
struct PanelSource {
  const T* data = nullptr;
  int64_t tap_stride = 0, k_stride = 0, n_stride = 0;
};

/// The part of a right operand that is packed at once: of every segment elements [k0, k0 + k), of these columns
/// [n0, n0 + columns). k0 is a multiple of kr, n0 of nr; so are k and columns, unless they end the operand.
struct PanelPart {
  int64_t k0 = 0, k = 0, n0 = 0, columns = 0;
};

/// Packs one part of the panels; `src` begins with the part's first element and has the listed taps.
template <typename Gemm, typename T>
void pack_part(const Gemm& gemm, const Panels& p, const PanelSource<T>& src, const std::vector<Tap>& taps,
               const PanelPart& part) {
  const int64_t granule_bytes = int64_t{gemm.nr} * gemm.b_bytes, segment_bytes = granule_bytes * p.segment_k;
  for (int64_t n = 0; n < part.columns; n += gemm.nr) {
    const int width = static_cast<int>(std::min<int64_t>(gemm.nr, part.columns - n));
    std::byte* to = p.storage.raw() + (part.n0 + n) / gemm.nr * p.panel_bytes + part.k0 * granule_bytes;
    for (const Tap& tap : taps) {
      gemm.pack_b(src.data + tap.weight_tap * src.tap_stride + n * src.n_stride, src.k_stride, src.n_stride,
                  static_cast<int>(part.k), width, to);
      to += segment_bytes;
    }
  }
}

/// All of it.
template <typename Gemm, typename T>
Panels pack_panels(const Gemm& gemm, const PanelSource<T>& src, const std::vector<Tap>& taps, int64_t k,
                   int64_t columns) {
  const Panels p = make_panels(gemm, static_cast<int64_t>(taps.size()), k, columns);
  parallel_for(p.count(), [&](int64_t b) {
    const int64_t n0 = b * gemm.nr;
    PanelSource<T> from = src;
    from.data += n0 * src.n_stride;
    pack_part(gemm, p, from, taps, {.k = k, .n0 = n0, .columns = std::min<int64_t>(gemm.nr, columns - n0)});
  });
  return p;
}

}  // namespace nibble
