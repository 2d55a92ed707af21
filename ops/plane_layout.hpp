// How the source of a convolution lies so that its rows need no gathering: each tap is one offset for all points.
//
// The points of a task are flattened into one long row of a plane whose map rows carry a rim; then "the pixel under tap
// t" is the pixel of the point plus a constant, and a kernel reads 16 neighbouring points as rows one pixel apart.
//
//     a 3x3 kernel, padding 1, on 4x4 pixels:       . x x x x      a map row's right rim is the next one's left rim,
//     point (i, j) -> i * width + j, width 5        . x x x x      an image's lower rim the next image's upper rim.
//     tap (dh, dw) -> + (dh + 1) * width + dw + 1   . x x x x      The points on rims are computed and ignored: one
//                                                   . x x x x      in nine of a 14x14 map, one in four of a 7x7.
//
// For stride 2 the pixels are dealt to four planes by the parities of row and column, so that each tap reads one plane
// at stride 1. A 1x1 kernel at stride 1 reads its source in place.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/scratch.hpp"
#include "engine/tensor.hpp"
#include "ops/gather.hpp"

namespace nibble {

struct PlaneLayout {
  /// One residue class of source pixels: (row % step, column % step).
  struct Plane {
    int64_t row_phase = 0, column_phase = 0;
    int64_t rows = 0, columns = 0;  // pixels of one image that are read
    bool operator==(const Plane&) const = default;
  };
  struct PlaneTap {
    int64_t plane = 0, offset = 0;  // in points
  };

  bool in_place = false;          // the source itself is the plane: one tap, no rim
  int64_t folded_rows = 0;        // of a row-folded stem: kernel rows side by side in one pixel of a plane; otherwise 0
  int64_t segment = 0, slot = 0;  // elements of such a row, and from one to the next
  int64_t pixel = 0;              // elements of a pixel
  int64_t width = 0, height = 0;  // points of a grid row, rows of an image, in the flattened plane
  int64_t low_row = 0, low_column = 0;  // plane pixel that the first point's first tap reads; negative: rim
  int64_t row_span = 0;                 // plane rows that a point's taps reach over
  int64_t overhang = 0;                 // points after the last map row that taps still read
  std::vector<Plane> planes;
  std::vector<PlaneTap> taps;  // as Gather::taps

  /// Plane row of a flattened grid row (image, i).
  int64_t plane_row(int64_t grid_row, int64_t gh) const { return grid_row / gh * height + grid_row % gh; }
};

/// Layout for the taps of g.
PlaneLayout plane_layout(const Gather& g);
/// Layout of a row-folded gather whose taps are segments of `segment` elements of `element_bytes`. A pixel of a plane
/// is a point's cache line of the segments of as many source rows as fit, neighbours below each other; the points of an
/// image row share it with those of the rows above, which read it under other taps. A 7x7 kernel at stride 2 on codes:
///
///     line (i, j): 7 pixels of row 2i from pixel 2j on, 7 pixels of row 2i + 1; point (i, j) reads lines i .. i + 3
///
/// so each source row is copied once per column, not 3.5 times. Tap u has kernel rows u * folded_rows + (0, 1, ..).
PlaneLayout folded_layout(const Gather& g, int64_t segment, int64_t element_bytes);

/// The planes of one task, in bytes.
struct TaskPlanes {
  const std::byte* first_point = nullptr;
  int64_t pixel_bytes = 0, plane_bytes = 0;
  int64_t readable = 0;  // points that may be read from first_point on
};

namespace plane_detail {

inline constexpr int64_t kGroupBytes = 64;
/// Rows a kernel may read past the last point it was asked for, two tiles.
inline constexpr int64_t kSlackPoints = 32;

/// Copies `columns` pixels of k elements, `step` pixels apart, into pixels of `stride` elements; the rest is zero.
template <typename T>
void copy_pixels(const T* from, int64_t from_stride, int64_t step, int64_t columns, int64_t k, T* to, int64_t stride) {
  const bool whole = sizeof(T) == 1 && from_stride == stride;  // the bytes after codes are zeros already
  if (step == 1 && (whole || (from_stride == stride && k == stride))) {
    std::memcpy(to, from, static_cast<size_t>(columns * stride) * sizeof(T));
    return;
  }
  const int64_t copied = whole ? stride : k;
  for (int64_t x = 0; x < columns; ++x, from += step * from_stride, to += stride) {
    std::memcpy(to, from, static_cast<size_t>(copied) * sizeof(T));
    std::fill_n(to + copied, stride - copied, T{});
  }
}

template <typename T>
void fill_pixels(const T* pad, int64_t count, T* to, int64_t stride) {
  for (int64_t i = 0; i < count; ++i, to += stride) std::memcpy(to, pad, static_cast<size_t>(stride) * sizeof(T));
}

/// One plane of grid rows [g0, g1).
template <typename T>
void fill_plane(const Gather& g, const PlaneLayout& l, const PlaneLayout::Plane& plane, const SourceRows<T>& from,
                RowRange range, const T* pad, int64_t k, int64_t g0, int64_t g1, T* to, int64_t stride) {
  const int64_t s0 = l.plane_row(g0, g.gh), s1 = l.plane_row(g1 - 1, g.gh) + 1 + l.row_span;
  const int64_t x0 = std::max<int64_t>(0, l.low_column), left = x0 - l.low_column;
  const int64_t inside = std::max<int64_t>(0, plane.columns - x0);
  for (int64_t s = s0; s < s1; ++s, to += l.width * stride) {
    const int64_t image = s / l.height, y = l.low_row + s % l.height;
    const int64_t row = image * g.sh + y * g.step + plane.row_phase;
    // Rows that only another plane's taps reach need not be in the task's range.
    if (image >= g.n || y < 0 || y >= plane.rows || row < range.begin || row >= range.end) {
      fill_pixels(pad, l.width, to, stride);
      continue;
    }
    const T* const pixels =
        from.data + ((row - from.first_row) * g.sw + x0 * g.step + plane.column_phase) * from.stride;
    fill_pixels(pad, left, to, stride);
    copy_pixels(pixels, from.stride, g.step, inside, k, to + left * stride, stride);
    fill_pixels(pad, l.width - left - inside, to + (left + inside) * stride, stride);
  }
  fill_pixels(pad, l.overhang, to, stride);
}

/// `count` segments, `step` elements apart, into pixels of `stride` elements. With kCopy bytes per segment, of which
/// all exist and fit the place of one, copies have a fixed size.
template <int64_t kCopy, typename T>
void copy_segments(const T* from, int64_t step, int64_t segment, int64_t count, T* to, int64_t stride) {
  for (int64_t j = 0; j < count; ++j, from += step, to += stride) {
    if constexpr (kCopy > 0)
      std::memcpy(to, from, kCopy);
    else
      std::memcpy(to, from, static_cast<size_t>(segment) * sizeof(T));
  }
}

/// One plane of a folded layout, grid rows [g0, g1): rows of `segment` elements per pixel, side by side. Floats get
/// zeros where there is no such row and after a segment; bytes are left as they are there, because they meet zero
/// weights.
template <typename T>
void fill_folded(const Gather& g, const PlaneLayout& l, const PlaneLayout::Plane& plane, const SourceRows<T>& from,
                 RowRange range, int64_t g0, int64_t g1, T* to, int64_t stride) {
  constexpr int64_t kElement = sizeof(T), kShort = 32 / kElement, kLong = 64 / kElement;
  const int64_t s0 = l.plane_row(g0, g.gh), s1 = l.plane_row(g1 - 1, g.gh) + 1 + l.row_span;
  const int64_t row_elements = g.sw * from.stride, step = g.step * from.stride, segment = l.segment;
  for (int64_t s = s0; s < s1; ++s, to += l.width * stride) {
    for (int64_t h = 0; h < l.folded_rows; ++h) {
      const int64_t image = s / l.height, y = s % l.height * g.step + plane.row_phase + h;
      const int64_t row = image * g.sh + y;
      T* const slot = to + h * l.slot;
      const int64_t room = h + 1 < l.folded_rows ? l.slot : stride - h * l.slot;
      const bool exists = image < g.n && y < g.sh && row >= range.begin && row < range.end;
      if (exists) {
        // What a copy of fixed size reads in excess lies in the rows below, which the last ones lack.
        const T* const pixels = from.data + (row - from.first_row) * row_elements;
        const int64_t readable = (range.end - row) * row_elements - (g.gw - 1) * step;
        const auto fits = [&](int64_t size) { return segment <= size && size <= room && size <= readable; };
        if (fits(kShort))
          copy_segments<32>(pixels, step, segment, g.gw, slot, stride);
        else if (fits(kLong))
          copy_segments<64>(pixels, step, segment, g.gw, slot, stride);
        else
          copy_segments<0>(pixels, step, segment, g.gw, slot, stride);
      }
      if constexpr (kElement > 1)
        for (int64_t j = 0; j < l.width; ++j) {
          const int64_t data = exists && j < g.gw ? segment : 0;
          std::fill_n(slot + j * stride + data, room - data, T{});
        }
    }
  }
}

}  // namespace plane_detail

/// Lays out the source of grid rows [g0, g1) in `scratch`, or finds it in place. pad is in from: at least a pixel long.
/// Cost: one copy of the source (in place: none).
template <typename T>
TaskPlanes lay_planes(const Gather& g, const PlaneLayout& l, const SourceRows<T>& from, int64_t k, int64_t g0,
                      int64_t g1, Scratch& scratch) {
  using plane_detail::kGroupBytes;
  using plane_detail::kSlackPoints;
  constexpr int64_t kElement = sizeof(T), kLine = kGroupBytes / kElement;
  const int64_t points = (g1 - g0) * g.gw;
  // Bytes after codes meet zero weights; after bf16 anything but zeros could be infinite.
  const bool readable_ends = from.stride % kLine == 0 && (kElement == 1 || k % kLine == 0);
  const bool aligned = reinterpret_cast<uintptr_t>(from.data) % kGroupBytes == 0;
  if (l.in_place && readable_ends && aligned && points >= 2 * kSlackPoints) {
    const T* const first = from.data + (g0 * g.sw - from.first_row * g.sw) * from.stride;
    return {reinterpret_cast<const std::byte*>(first), from.stride * kElement, 0, points};
  }
  const int64_t stride = round_up(k, kLine);
  const int64_t rows = l.plane_row(g1 - 1, g.gh) + 1 + l.row_span - l.plane_row(g0, g.gh);
  const int64_t plane = (rows * l.width + l.overhang + kSlackPoints) * stride;
  T* const to = scratch.get<T>(static_cast<size_t>(plane) * std::max<size_t>(1, l.planes.size()));
  if (l.folded_rows > 0) {
    for (size_t p = 0; p < l.planes.size(); ++p)
      plane_detail::fill_folded(g, l, l.planes[p], from, source_rows(g, g0, g1), g0, g1,
                                to + static_cast<int64_t>(p) * plane, stride);
  } else {
    T* const pad = scratch.get<T>(static_cast<size_t>(stride));
    std::fill_n(pad, stride, from.pad[0]);
    if (k < stride) std::fill_n(pad + k, stride - k, T{});
    for (size_t p = 0; p < l.planes.size(); ++p)
      plane_detail::fill_plane(g, l, l.planes[p], from, source_rows(g, g0, g1), pad, k, g0, g1,
                               to + static_cast<int64_t>(p) * plane, stride);
  }
  return {reinterpret_cast<const std::byte*>(to), stride * kElement, plane * kElement, rows * l.width + kSlackPoints};
}

}  // namespace nibble
