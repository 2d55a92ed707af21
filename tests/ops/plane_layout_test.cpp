// Planes: every grid point finds the pixel under each tap at one offset, rims and strides included.
#include "ops/plane_layout.hpp"

#include "tests/ops/packed_layers.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

constexpr uint8_t kPad = 0xee;
constexpr int64_t kStride = 64;

/// Source pixel `at` as four bytes that no other pixel has.
void write_number(int64_t at, uint8_t* to) {
  const auto number = static_cast<uint32_t>(at + 1);
  std::memcpy(to, &number, sizeof number);
}

/// The pixel under tap t of a grid point, -1 outside.
int64_t pixel_under(const Gather& g, int64_t point, const Tap& t) {
  const int64_t y = point / g.gw % g.gh * g.step + t.dh, x = point % g.gw * g.step + t.dw;
  return y < 0 || y >= g.sh || x < 0 || x >= g.sw ? -1 : (point / (g.gw * g.gh) * g.sh + y) * g.sw + x;
}

/// Wrong pixels in the planes of grid rows [g0, g1). Only the rows in the task's range exist in memory.
int64_t wrong_pixels(const Gather& g, int64_t g0, int64_t g1) {
  const PlaneLayout layout = plane_layout(g);
  REQUIRE(layout.taps.size() == g.taps.size());
  const RowRange range = source_rows(g, g0, g1);
  const int64_t pixels = (range.end - range.begin) * g.sw;
  const Tensor rows(DType::u8, {std::max<int64_t>(1, pixels), 4}, kStride);
  const std::vector<uint8_t> pad(kStride, kPad);
  for (int64_t p = 0; p < pixels; ++p) write_number(range.begin * g.sw + p, rows.row<uint8_t>(p));
  Scratch scratch;
  const SourceRows<uint8_t> source{rows.data<uint8_t>(), range.begin, kStride, pad.data()};
  const TaskPlanes planes = lay_planes<uint8_t>(g, layout, source, 4, g0, g1, scratch);
  const int64_t first = layout.plane_row(g0, g.gh) * layout.width;
  int64_t wrong = 0;
  for (int64_t point = g0 * g.gw; point < g1 * g.gw; ++point) {
    const int64_t q = layout.plane_row(point / g.gw, g.gh) * layout.width + point % g.gw - first;
    CHECK(q < planes.readable);
    for (size_t t = 0; t < g.taps.size(); ++t) {
      const PlaneLayout::PlaneTap& tap = layout.taps[t];
      const std::byte* got =
          planes.first_point + tap.plane * planes.plane_bytes + (q + tap.offset) * planes.pixel_bytes;
      uint8_t expected[4] = {kPad, kPad, kPad, kPad};
      const int64_t pixel = pixel_under(g, point, g.taps[t]);
      if (pixel >= 0) write_number(pixel, expected);
      wrong += std::memcmp(got, expected, sizeof expected) != 0;
    }
  }
  return wrong;
}

void check_gather(const Gather& g, const std::string& what) {
  const int64_t all = g.n * g.gh;
  if (g.taps.empty() || all == 0) return;
  INFO(what << ", step " << g.step << ", " << g.taps.size() << " taps");
  CHECK(wrong_pixels(g, 0, all) == 0);
  for (int64_t g0 = 0; g0 < all; ++g0) CHECK(wrong_pixels(g, g0, std::min(all, g0 + 3)) == 0);
}

}  // namespace

TEST_CASE("planes: every point finds the pixel under each tap at one offset, forward and backward") {
  for (NamedShape named : conv_shapes()) {
    for (int64_t n : {1, 3}) {
      named.shape.n = n;
      check_gather(forward_gather(named.shape), named.name);
      for (const InputGradientClass& c : input_gradient_classes(named.shape)) check_gather(c.gather, named.name);
    }
  }
}

TEST_CASE("planes: neighbouring rows and images share their rims") {
  const ConvShape s{.n = 2, .h = 7, .w = 7, .ic = 8, .oc = 8, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1};
  const PlaneLayout layout = plane_layout(forward_gather(s));
  CHECK(layout.width == 8);
  CHECK(layout.height == 8);
  CHECK(layout.planes.size() == 1);
  CHECK(!layout.in_place);
}

TEST_CASE("planes: a 1x1 kernel reads its source in place, but few points are copied") {
  const ConvShape s{.n = 4, .h = 5, .w = 5, .ic = 64, .oc = 8};
  const Gather g = forward_gather(s);
  const PlaneLayout layout = plane_layout(g);
  CHECK(layout.in_place);
  const Tensor x = Tensor::zeros(DType::u8, {100, 64}, 64);
  const SourceRows<uint8_t> source{x.data<uint8_t>(), 0, 64, x.data<uint8_t>()};
  Scratch scratch;
  const TaskPlanes all = lay_planes<uint8_t>(g, layout, source, 64, 0, 20, scratch);
  CHECK(all.first_point == x.raw());
  CHECK(all.readable == 100);
  CHECK(lay_planes<uint8_t>(g, layout, source, 64, 0, 2, scratch).first_point != x.raw());
}

namespace {

/// Wrong elements of the pixels that a stem's points read, grid rows [g0, g1), the only ones whose source exists; where
/// a pixel has no kernel row only floats have to be zero.
template <typename T>
int64_t wrong_elements(const ConvShape& s, int64_t g0, int64_t g1, T (*element)(int64_t)) {
  const Gather g = row_folded_gather(s);
  const int64_t segment = s.kw * s.ic, row_elements = g.sw * s.ic;
  const PlaneLayout layout = folded_layout(g, segment, sizeof(T));
  const RowRange range = source_rows(g, g0, g1);
  std::vector<T> image;
  for (int64_t i = range.begin * row_elements; i < range.end * row_elements; ++i) image.push_back(element(i));
  Scratch scratch;
  const SourceRows<T> source{image.data(), range.begin, s.ic, nullptr};
  const TaskPlanes planes = lay_planes<T>(g, layout, source, layout.pixel, g0, g1, scratch);
  int64_t wrong = 0, rows_found = 0;
  for (int64_t point = g0 * g.gw; point < g1 * g.gw; ++point) {
    const int64_t image_row = point / g.gw, i = image_row % g.gh, j = point % g.gw;
    const int64_t q = (layout.plane_row(image_row, g.gh) - layout.plane_row(g0, g.gh)) * layout.width + j;
    CHECK(q < planes.readable);
    for (size_t t = 0; t < layout.taps.size(); ++t) {
      const PlaneLayout::PlaneTap& tap = layout.taps[t];
      const auto* pixel = reinterpret_cast<const T*>(planes.first_point + tap.plane * planes.plane_bytes +
                                                     (q + tap.offset) * planes.pixel_bytes);
      for (int64_t e = 0; e < layout.pixel; ++e) {
        const int64_t h = std::min(layout.folded_rows - 1, e / layout.slot), within = e - h * layout.slot;
        const int64_t kernel_row = static_cast<int64_t>(t) * layout.folded_rows + h;
        const bool has = kernel_row < s.kh && within < segment;
        if (!has && (sizeof(T) == 1 || kernel_row >= s.kh)) continue;
        const int64_t row = image_row / g.gh * g.sh + i * s.stride + kernel_row;
        const T expected = has ? element((row * g.sw + j * s.stride) * s.ic + within) : T{};
        wrong += std::memcmp(pixel + e, &expected, sizeof expected) != 0;
        rows_found += within == 0;
      }
    }
  }
  CHECK(rows_found == (g1 - g0) * g.gw * s.kh);
  return wrong;
}

/// Floats that could be infinite or NaN where a pixel of the planes has no data.
int64_t unclean_floats(const ConvShape& s) {
  const Gather g = row_folded_gather(s);
  const PlaneLayout layout = folded_layout(g, s.kw * s.ic, sizeof(bf16));
  const std::vector<bf16> image(static_cast<size_t>(g.n * g.sh * g.sw * s.ic), to_bf16(1.0f));
  Scratch scratch;
  {
    Scratch before;  // what the planes are laid over
    std::fill_n(before.get<uint8_t>(1 << 20), 1 << 20, uint8_t{0xff});
  }
  const TaskPlanes planes =
      lay_planes<bf16>(g, layout, {image.data(), 0, s.ic, nullptr}, layout.pixel, 0, g.n * g.gh, scratch);
  const int64_t rows = layout.plane_row(g.n * g.gh - 1, g.gh) + 1 + layout.row_span;
  int64_t unclean = 0;
  for (size_t p = 0; p < layout.planes.size(); ++p) {
    const auto* at = reinterpret_cast<const bf16*>(planes.first_point + static_cast<int64_t>(p) * planes.plane_bytes);
    for (int64_t e = 0; e < rows * layout.width * layout.pixel; ++e)
      unclean += !(to_float(at[e]) == 0.0f || to_float(at[e]) == 1.0f);
  }
  return unclean;
}

}  // namespace

TEST_CASE("planes: the points of a stem find their kernel rows side by side, in any part of the images") {
  for (NamedShape named : first_layer_shapes()) {
    if (named.shape.kw * named.shape.ic > 64) continue;
    for (int64_t n : {1, 3}) {
      named.shape.n = n;
      INFO(named.name << ", " << n << " images");
      const int64_t rows = n * named.shape.oh();
      for (int64_t g0 = 0; g0 < rows; g0 += g0 == 0 ? 1 : 3)
        for (int64_t g1 : {std::min(rows, g0 + 3), rows}) {
          CHECK(wrong_elements<uint8_t>(named.shape, g0, g1,
                                        [](int64_t i) { return static_cast<uint8_t>(i * 7 + i / 251); }) == 0);
          CHECK(wrong_elements<bf16>(named.shape, g0, g1,
                                     [](int64_t i) { return to_bf16(static_cast<float>(i % 251 + 1)); }) == 0);
        }
      CHECK(unclean_floats(named.shape) == 0);
    }
  }
}

TEST_CASE("planes: two image rows of codes share the line of a 7x7 stem, bf16 rows are dealt by parity") {
  const ConvShape s{
      .n = 1, .h = 32, .w = 32, .ic = 3, .oc = 8, .kh = 7, .kw = 7, .stride = 2, .pad_before = 3, .pad_after = 3};
  const PlaneLayout codes = folded_layout(row_folded_gather(s), 21, 1),
                    floats = folded_layout(row_folded_gather(s), 21, 2);
  CHECK(codes.folded_rows == 2);
  CHECK(codes.planes.size() == 1);
  CHECK(codes.taps.size() == 4);
  CHECK(codes.pixel == 64);
  CHECK(floats.folded_rows == 1);
  CHECK(floats.planes.size() == 2);
  CHECK(floats.taps.size() == 7);
}
