// The convolution driver of small maps on levels whose product kernel reads its left operand in place: a block is one
// grid point of 32 images, so that a product has only the taps that meet a pixel.
//
//     3x3 on 4x4 pixels: a corner has 4 taps, a rim point 6, an inner point 9: 100 for 16 points, where plane_gemm
//     multiplies nine for each of the 25 points of a map with its rims. 7x7: 361 instead of 576; 2x2: 16 instead of 81.
//
// The sums are those of plane_gemm, bit for bit: what is left out are products with zeros.
#pragma once
#include <vector>

#include "ops/block_pipeline.hpp"

namespace nibble {

/// Images of a block.
inline constexpr int64_t kBlockImages = block_pipeline::kRows;

/// Whether 32 images are processed together, pixel by pixel, here and in the weight gradient: whole blocks of images of
/// a map of up to 8x8 grid points over 16x16 pixels, read under several taps. A larger map has less rim, and 32 images
/// of it do not fit L2.
bool images_innermost(const Gather& g);

/// The tasks of image_gemm: whole blocks of images. Each stands for as many tasks of plane_gemm, of
/// grid_rows_per_task(g) rows, so that what is summed task by task is summed in the same order.
struct ImageCut {
  int64_t tasks = 0, images = 0;  // images of a task
};
ImageCut cut_by_images(const Gather& g);

/// The taps of every grid point that meet a pixel.
struct PointTaps {
  std::vector<int64_t> begin;  // of a point's segments; one more than there are points
  std::vector<kernels::Segment> segments;
};
/// `pixel_bytes` of a block's images lie together, `segment_bytes` is what a tap takes in a panel.
PointTaps point_taps(const Gather& g, int64_t pixel_bytes, int64_t segment_bytes);

namespace image_detail {

/// Copies 32 images' maps of k elements per pixel into [pixel][image][stride], zeros after each.
template <typename T>
void lay_images(const SourceRows<T>& from, int64_t first_pixel, int64_t pixels, int64_t k, T* to, int64_t stride) {
  for (int64_t image = 0; image < kBlockImages; ++image) {
    const T* pixel = from.data + (first_pixel + image * pixels) * from.stride;
    T* at = to + image * stride;
    for (int64_t p = 0; p < pixels; ++p, pixel += from.stride, at += kBlockImages * stride) {
      std::memcpy(at, pixel, static_cast<size_t>(k) * sizeof(T));
      std::fill_n(at + k, stride - k, T{});
    }
  }
}

struct PointBlock : block_pipeline::Block {
  int64_t point = 0;
};

}  // namespace image_detail

/// Runs a whole product of a gather for which images_innermost holds, and whose taps outside the map read zeros.
/// `source(scratch, range)` gives a task's source rows as for gather_gemm; `epilogue(task, first_point, images,
/// first_column, columns, c, ldc)` gets finished blocks: grid points first_point, first_point + gh * gw, ... of
/// neighbouring images. `task` is the first of the tasks of plane_gemm that it stands for; for what surrounds them see
/// NothingMore. The epilogue must not spawn or wait.
template <typename C, typename T, typename Gemm, typename Source, typename Epilogue, typename Around = NothingMore>
void image_gemm(const Gemm& gemm, const Gather& g, const Panels& b, const Source& source, const Epilogue& epilogue,
                Around&& around = {}) {
  using namespace block_pipeline;
  const ImageCut cut = cut_by_images(g);
  const int64_t pixel_bytes = b.segment_k * static_cast<int64_t>(sizeof(T)), map = g.gh * g.gw;
  const PointTaps taps = point_taps(g, pixel_bytes, b.segment_k * b.nr * gemm.b_bytes);
  parallel_for(cut.tasks, [&](int64_t task) {
    using B = image_detail::PointBlock;
    const int64_t i0 = task * cut.images, i1 = std::min(g.n, i0 + cut.images);
    const int64_t name = i0 * g.gh / grid_rows_per_task(g);
    Scratch scratch;
    around.begin(scratch, name, i0 * g.gh, i1 * g.gh);
    const SourceRows<T> from = source(scratch, RowRange{i0 * g.sh, i1 * g.sh});
    T* const maps = scratch.get<T>(static_cast<size_t>(g.sh * g.sw * kBlockImages * b.segment_k));
    C* const sums = scratch.get<C>(static_cast<size_t>(kRows * kPanels * b.nr));
    for (int64_t image = i0; image < i1; image += kBlockImages) {
      image_detail::lay_images(from, (image * g.sh - from.first_row) * g.sw, g.sh * g.sw, b.k, maps, b.segment_k);
      const auto multiply = [&](const B& now, int64_t i, const kernels::HeldSums<C>& held) {
        const auto first = static_cast<size_t>(now.point);
        const kernels::StridedRows a{.first = maps,
                                     .row_bytes = pixel_bytes,
                                     .segments = taps.segments.data() + taps.begin[first],
                                     .segment_count = static_cast<int>(taps.begin[first + 1] - taps.begin[first]),
                                     .groups = static_cast<int>(b.segment_k / gemm.kr)};
        gemm.run_strided(a, static_cast<int>(kRows), b.panel(i),
                         now.point == 0 ? kernels::PanelIn::kMemory : kernels::PanelIn::kCache, nullptr, held);
        return now.sums(b, i, kRows, sums);
      };
      const auto finish = [&](const B& done, const B&) {
        epilogue(name, image * map + done.point, done.count, done.column(b), done.columns(b), sums, done.ldc(b));
      };
      const KernelScope<Gemm> ready(gemm);
      Pipeline<C, B> pipeline;
      for (int64_t n = 0; n < b.count(); n += kPanels)
        for (int64_t point = 0; point < map; ++point)
          pipeline.next({{.count = kRows, .n = n, .last = std::min(b.count(), n + kPanels)}, point}, multiply, finish);
      pipeline.drain(gemm, finish);
    }
    around.end(name, i0 * g.gh, i1 * g.gh);
  });
}

}  // namespace nibble
