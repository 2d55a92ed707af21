#include "data/resize.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/error.hpp"

namespace nibble {
namespace {

// 22 bits of weight, 8 of pixel and 2 to spare for sums above one by rounding: 32.
constexpr int kPrecisionBits = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// For each wanted output position the first input position and its weights, `taps` apart.
struct Filter {
  int taps = 0;
  std::vector<int> first;
  std::vector<int> count;
  std::vector<int32_t> weights;
  const int32_t* of(int i) const { return weights.data() + static_cast<ptrdiff_t>(i) * taps; }
};

// Triangle filter from `in` to `out` samples at positions [begin, begin + wanted). The order of the double operations
// is Pillow's: weights are normalised by their sum, then rounded half away from zero.
Filter make_filter(int in, int out, int begin, int wanted) {
  const double scale = static_cast<double>(in) / out;
  const double support = std::max(scale, 1.0), inverse = 1.0 / support;
  Filter f;
  f.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  f.first.resize(static_cast<size_t>(wanted));
  f.count.resize(static_cast<size_t>(wanted));
  f.weights.resize(static_cast<size_t>(wanted) * static_cast<size_t>(f.taps));
  std::vector<double> w(static_cast<size_t>(f.taps));
  for (int i = 0; i < wanted; ++i) {
    const double center = (begin + i + 0.5) * scale;
    const int lo = std::max(static_cast<int>(center - support + 0.5), 0);
    const int hi = std::min(static_cast<int>(center + support + 0.5), in);
    double sum = 0.0;
    for (int x = lo; x < hi; ++x) {
      const double distance = std::abs((x - center + 0.5) * inverse);
      const double weight = distance < 1.0 ? 1.0 - distance : 0.0;
      w[static_cast<size_t>(x - lo)] = weight;
      sum += weight;
    }
    int32_t* fixed = f.weights.data() + static_cast<ptrdiff_t>(i) * f.taps;
    for (int k = 0; k < hi - lo; ++k) {
      const double weight = sum != 0.0 ? w[static_cast<size_t>(k)] / sum : w[static_cast<size_t>(k)];
      fixed[k] = static_cast<int32_t>(0.5 + weight * (1 << kPrecisionBits));
    }
    f.first[static_cast<size_t>(i)] = lo;
    f.count[static_cast<size_t>(i)] = hi - lo;
  }
  return f;
}

void resize_row(const uint8_t* in, const Filter& f, int wanted, uint8_t* out) {
  for (int i = 0; i < wanted; ++i) {
    const uint8_t* p = in + ptrdiff_t{3} * f.first[static_cast<size_t>(i)];
    const int32_t* w = f.of(i);
    int32_t r = kHalf, g = kHalf, b = kHalf;
    for (int k = 0, n = f.count[static_cast<size_t>(i)]; k < n; ++k) {
      r += p[3 * k] * w[k];
      g += p[3 * k + 1] * w[k];
      b += p[3 * k + 2] * w[k];
    }
    out[3 * i] = to_byte(r);
    out[3 * i + 1] = to_byte(g);
    out[3 * i + 2] = to_byte(b);
  }
}

// One output row as the weighted sum of `count` rows, `bytes` apart; the inner loops run along memory.
void combine_rows(const uint8_t* rows, int count, const int32_t* w, size_t bytes, int32_t* sums, uint8_t* out) {
  std::fill_n(sums, bytes, kHalf);
  for (int k = 0; k < count; ++k) {
    const uint8_t* row = rows + static_cast<size_t>(k) * bytes;
    const int32_t weight = w[k];
    for (size_t i = 0; i < bytes; ++i) sums[i] += row[i] * weight;
  }
  for (size_t i = 0; i < bytes; ++i) out[i] = to_byte(sums[i]);
}

void check_inside(const char* what, const Box& box, int width, int height) {
  if (box.x < 0 || box.y < 0 || box.width < 1 || box.height < 1 || box.width > width - box.x ||
      box.height > height - box.y)
    throw ShapeError("[resize] the {} {}x{} at ({}, {}) does not lie within {}x{} pixels", what, box.width, box.height,
                     box.x, box.y, width, height);
}

}  // namespace

void resize_bilinear(const Image& image, const ResizeArgs& args, uint8_t* out) {
  if (image.pixels == nullptr) throw ShapeError("[resize] an image of {}x{} without pixels", image.width, image.height);
  const Box &crop = args.crop, &window = args.window;
  check_inside("crop", crop, image.width, image.height);
  check_inside("window", window, args.width, args.height);
  const Filter across = make_filter(crop.width, args.width, window.x, window.width);
  const Filter down = make_filter(crop.height, args.height, window.y, window.height);

  // Positions only grow, so the rows needed are those from the first output row's first to the last one's last.
  const int first = down.first.front(), last = down.first.back() + down.count.back();
  const size_t row_bytes = size_t{3} * static_cast<size_t>(window.width);
  std::vector<uint8_t> rows(static_cast<size_t>(last - first) * row_bytes);
  const size_t image_row = size_t{3} * static_cast<size_t>(image.width);
  for (int y = first; y < last; ++y) {
    const uint8_t* in =
        image.pixels.get() + static_cast<size_t>(crop.y + y) * image_row + size_t{3} * static_cast<size_t>(crop.x);
    resize_row(in, across, window.width, rows.data() + static_cast<size_t>(y - first) * row_bytes);
  }
  std::vector<int32_t> sums(row_bytes);
  for (int y = 0; y < window.height; ++y) {
    const size_t i = static_cast<size_t>(y);
    combine_rows(rows.data() + static_cast<size_t>(down.first[i] - first) * row_bytes, down.count[i], down.of(y),
                 row_bytes, sums.data(), out + i * row_bytes);
  }
}

}  // namespace nibble
