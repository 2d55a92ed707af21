// How a convolution's weight gradient becomes products of tiles: points flattened, taps as offsets, work cut into
// chunks.
//
// Source pixels lie in planes, one per residue class of the stride, whose rows share their pads: an odd row of zeros
// between images, a zero column between rows. The points of d_y are embedded in the same plane, with zero rows of d_y
// at the rim. Then every tap of a class is the same product with the plane shifted by whole points, and x is packed
// once for all of them (3 % to 23 % of the points of a 3x3 layer of ResNet-50 are rim; the gathered driver packs x nine
// times).
//
// Small maps are mostly rim: of a 3x3 kernel's nine taps on a 2x2 map a point meets four inside. There the
// points of all images that lie on one pixel are neighbours, a step is 32 images, and a tap lists the pixels it meets.
#pragma once
#include <vector>

#include "ops/layer_weights.hpp"

namespace nibble::weight_gradient {

inline constexpr int64_t kStep = kernels::WeightGradient::kPoints, kOutputs = kernels::WeightGradient::kOutputs,
                         kChannels = kernels::WeightGradient::kChannels;
inline constexpr int64_t kBlockFloats = kOutputs * kChannels;
/// Steps of one product: a panel of 20 steps is 40 KiB, the part of a 48 KiB L1 that it may keep while the other
/// operand streams (3x3 at 14 and 56 px: 600 and 538 GMAC/s with 20 steps, 565 and 520 with 16, 605 and 474 with 32).
inline constexpr int64_t kSliceSteps = 20;

/// Rows or columns of a class's plane: cell u is source position u * stride + phase - before.
struct Axis {
  int64_t source = 0, grid = 0, kernel = 1, stride = 1, before = 0;

  int64_t classes() const { return std::min(stride, kernel); }
  /// Cells that the grid reads under the taps of a class.
  int64_t reads(int64_t phase) const { return grid + (kernel - 1 - phase) / stride; }
  int64_t first(int64_t phase) const { return std::max<int64_t>(0, ceil_div(before - phase, stride)); }
  int64_t end(int64_t phase) const { return std::min(reads(phase), ceil_div(source + before - phase, stride)); }
  /// Cells from one row (or image) to the next, the same for all classes: what is read beyond them must be pads that
  /// the next one begins with.
  int64_t pitch() const {
    int64_t p = grid;
    for (int64_t r = 0; r < classes(); ++r) p = std::max({p, end(r), reads(r) - first(r)});
    return p;
  }
};

struct Plane {
  int64_t pixels = 0;  // images innermost: of all images; otherwise 0
  int64_t row_phase = 0, column_phase = 0;
  int64_t reach = 0;  // largest offset of a tap
  bool even = false, odd = false;
  int64_t bytes_of(int64_t points) const { return (even + odd) * pairs(points) * kChannels * 4; }
  int64_t pairs(int64_t points) const { return pixels > 0 ? pixels / 2 : round_up((points + reach) / 2 + 1, 16); }
};

struct PlaneTap {
  size_t plane = 0;
  int64_t offset = 0;  // points from d_y's to x's
};

/// The layer as products of blocks.
struct Geometry {
  Axis rows, columns;
  int64_t images = 0, row_pitch = 0, image_pitch = 0;  // in points and rows
  std::vector<Plane> planes;
  std::vector<PlaneTap> taps;  // in the order of d_weights

  int64_t plane_rows() const { return (images - 1) * image_pitch + rows.grid; }
  // Images innermost: `batch` points per pixel, the steps of a tap's products by slices of the grid's rows; otherwise
  // 0.
  int64_t batch = 0;
  std::vector<std::vector<kernels::StepRun>> runs;  // [slice * taps + tap]
  int64_t slices() const { return std::ssize(runs) / std::ssize(taps); }
};

/// `s` is the layer's shape with its batch.
Geometry geometry(const LayerWeights& layer, const ConvShape& s);

/// Cells of a source row are dealt by column % stride where images are innermost: the place of column x.
int64_t dealt_column(const ConvShape& s, int64_t x);

/// How the work is cut, by shape alone.
struct TiledPlan {
  bool left_stays = false;      // d_y stays in L2 and x streams past it, panel by panel; otherwise the other way round
  int64_t chunks = 1;           // parts of the plane's rows, multiplied one after another
  int64_t rows_per_chunk = 0;   // plane rows
  int64_t left = 0, right = 0;  // panels of 32 outputs and 32 channels
  int64_t group = 0;            // panels of the operand that stays at a time
  int64_t at_once = 0;          // panels of the other one that are packed together
  int64_t left_bytes = 0;       // of a panel over the longest chunk
  int64_t right_bytes = 0;

  int64_t staying() const { return left_stays ? left : right; }
  int64_t streaming() const { return left_stays ? right : left; }
  int64_t staying_bytes() const { return left_stays ? left_bytes : right_bytes; }
  int64_t streaming_bytes() const { return left_stays ? right_bytes : left_bytes; }

  /// Chunks of that many plane rows, the last one shorter.
  void cut(const Geometry& g, int64_t rows_of_chunk);
  /// About the bytes that are written in addition to the products: sums between chunks, and panels, those that stream
  /// once for every group of those that stay. Few panels at once read a
  /// line here and a line there of every row of d_y; the weight of that is a guess.
  double cost(int64_t taps) const;
};

/// Which operand stays, for `outputs` x `channels`; to be cut.
TiledPlan uncut_plan(const Geometry& g, int64_t outputs, int64_t channels);
/// The cheapest cut.
TiledPlan make_plan(const Geometry& g, int64_t outputs, int64_t channels);

}  // namespace nibble::weight_gradient
