// A grid of points over a map and the rows of the map that each reads: what forward, gradient of the input and gradient
// of the weights of a convolution have in common.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/tensor.hpp"
#include "ops/conv_shape.hpp"

namespace nibble {

/// One source row read by every grid point: (i*step + dh, j*step + dw); weights of kernel position `weight_tap`.
struct Tap {
  int64_t dh = 0, dw = 0;
  int64_t weight_tap = 0;
};

/// A grid of n x gh x gw points over a source map of n x sh x sw pixels. Taps that fall outside read the pad row.
struct Gather {
  int64_t n = 0, gh = 0, gw = 0;
  int64_t sh = 0, sw = 0;
  int64_t step = 1;
  std::vector<Tap> taps;
  int64_t rows_together = 1;  // grid rows that tasks of a training step never part: those of a tile (ops/winograd.hpp)

  int64_t points() const { return n * gh * gw; }
  /// Whether its rows of the source are read whole: a 1x1 kernel of stride 2 reads every fourth pixel.
  bool reads_all() const { return static_cast<int64_t>(taps.size()) >= step * step; }
};

/// Grid = output pixels, source = input pixels.
Gather forward_gather(const ConvShape& s);

/// The same for a stem whose channels are few: the source is the image padded on all sides with rows of (w + pads)*ic
/// contiguous elements, one tap is a whole kernel row of kw*ic elements, nothing falls outside.
Gather row_folded_gather(const ConvShape& s);

/// Grid = one residue class of input pixels (row = i*stride + row_phase), source = output pixels. With stride 2 a class
/// meets only its own taps, so no zero is multiplied; a class without taps has an all-zero gradient.
struct InputGradientClass {
  Gather gather;
  int64_t row_phase = 0, column_phase = 0;
};
std::vector<InputGradientClass> input_gradient_classes(const ConvShape& s);

/// The source rows of one task, each segment readable to the end of its last k-group (round_up(k, kr) elements), as the
/// pad is: rows [first_row, ...) of the flattened (image, row) index, `stride` elements per pixel.
template <typename T>
struct SourceRows {
  const T* data = nullptr;
  int64_t first_row = 0;
  int64_t stride = 0;
  const T* pad = nullptr;    // read by taps outside the map, as long as one segment; no pixel's row
  bool pad_is_zero = false;  // all of it: taps outside may then be left out

  const T* zeros() const { return pad_is_zero ? pad : nullptr; }
};

/// The range of flattened source rows that grid rows [g0, g1) touch.
struct RowRange {
  int64_t begin = 0, end = 0;
};
RowRange source_rows(const Gather& g, int64_t g0, int64_t g1);

/// Grid rows (of gw points) per task: about 512 points, so that a task is worth a spawn and its source stays in L2; a
/// multiple of rows_together.
int64_t grid_rows_per_task(const Gather& g);

inline int64_t task_count(const Gather& g) {
  const int64_t per = grid_rows_per_task(g), all = g.n * g.gh;
  return ceil_div(all, per);
}

/// Fills pointers[t * rows + r] = source row of grid point first + r under tap t.
template <typename T>
void point_rows(const Gather& g, const SourceRows<T>& src, int64_t first, int64_t rows, const T** pointers) {
  // Run by run of neighbours in one grid row: a division per point cost more than its pointers.
  for (int64_t r = 0; r < rows;) {
    const int64_t j = (first + r) % g.gw, row = (first + r) / g.gw, i = row % g.gh, image = row / g.gh;
    const int64_t run = std::min(rows - r, g.gw - j);
    for (size_t t = 0; t < g.taps.size(); ++t) {
      const T** to = pointers + static_cast<int64_t>(t) * rows + r;
      const int64_t y = i * g.step + g.taps[t].dh, x = j * g.step + g.taps[t].dw;
      if (y < 0 || y >= g.sh) {
        std::fill_n(to, run, src.pad);
        continue;
      }
      const int64_t line = (image * g.sh + y - src.first_row) * g.sw;
      for (int64_t k = 0; k < run; ++k) {
        const int64_t at = x + k * g.step;
        to[k] = at >= 0 && at < g.sw ? src.data + (line + at) * src.stride : src.pad;
      }
    }
    r += run;
  }
}

}  // namespace nibble
