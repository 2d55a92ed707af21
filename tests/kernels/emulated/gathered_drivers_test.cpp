// The drivers of gathered products where rows are multiplied in place, on emulated instructions: the bits of packed
// rows, from operands that end where a protected page begins.
#include <cstring>

#include "ops/gather_gemm.hpp"
#include "ops/serving_gemm.hpp"
#include "tests/kernels/emulated/levels.hpp"
#include "tests/kernels/end_of_page.hpp"
#include "tests/ops/packed_layers.hpp"

namespace nibble::testing {
namespace {

/// Pixels of dense channels; what a segment's last group reads past them is the next pixel, and for the last one
/// nothing that does not exist.
template <typename T>
struct Map {
  const Gather& g;
  int64_t channels;
  std::vector<T, EndOfPage<T>> pixels, pad;
  bool pad_is_zero;

  template <typename Next>
  Map(const Gather& gather, int64_t c, int64_t readable, T outside, bool zero, Next next)
      : g(gather),
        channels(c),
        pixels(at(g.n * g.sh * g.sw * c - c + readable)),
        pad(at(readable), outside),
        pad_is_zero(zero) {
    for (T& v : pixels) v = next();
  }
  SourceRows<T> operator()(Scratch&, RowRange range) const {
    return {.data = pixels.data() + range.begin * g.sw * channels,
            .first_row = range.begin,
            .stride = channels,
            .pad = pad.data(),
            .pad_is_zero = pad_is_zero};
  }
};

/// The sums of both drivers, one after the other: tasks of training; those of serving by one worker and by three, all
/// columns and 32 at a time.
template <typename C, typename T, typename Gemm>
std::vector<C> driven(const Gemm& gemm, const Gather& g, const Panels& panels, const Map<T>& map) {
  const int64_t columns = panels.columns, all = g.points() * columns;
  std::vector<C> sums(at(4 * all), C{-7});
  int64_t part = 0;
  const auto put = [&](int64_t first, int64_t rows, int64_t column, int64_t n, const C* c, int64_t ldc) {
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(c + r * ldc, n, &sums[at(part * all + (first + r) * columns + column)]);
  };
  gather_gemm<C, T>(gemm, g, panels, map, [&](int64_t, int64_t first, int64_t rows, const C* c, int64_t ldc) {
    put(first, rows, 0, columns, c, ldc);
  });
  std::vector<C> start(at(panels.padded_columns()));
  for (size_t i = 0; i < start.size(); ++i) start[i] = static_cast<C>(i) - C{5};
  const std::vector<ServingGemmArgs> served = {{g, panels, 1, 0}, {g, panels, 3, 32}, {g, panels, 1, 32}};
  for (const ServingGemmArgs& args : served) {
    ++part;
    serving_gemm<C, T>(gemm, args, part == 2 ? start.data() : nullptr, map,
                       [&](int64_t first, int64_t rows, int64_t column, int64_t n, const C* c, int64_t ldc,
                           const NextBlock&) { put(first, rows, column, n, c, ldc); });
  }
  return sums;
}

template <typename C, typename T, typename Gemm, typename Right, typename Next>
void check_same_bits(const Gemm& gemm, const ConvShape& s, T outside, bool zero, const std::vector<Right>& weights,
                     Next next) {
  const Gather g = forward_gather(s);
  const Panels panels = pack_panels(
      gemm, PanelSource<Right>{.data = weights.data(), .tap_stride = s.ic, .k_stride = 1, .n_stride = s.k()}, g.taps,
      s.ic, s.oc);
  const bool in_place = multiplies_in_place(gemm, panels);
  const Map<T> map(g, s.ic, in_place ? panels.segment_k : s.ic, outside, zero, next);
  Gemm packed = gemm;
  packed.run_gathered = nullptr;
  const std::vector<C> expected = driven<C, T>(packed, g, panels, map), got = driven<C, T>(gemm, g, panels, map);
  CHECK(std::memcmp(got.data(), expected.data(), got.size() * sizeof(C)) == 0);
}

std::vector<NamedShape> gathered_shapes() {
  std::vector<NamedShape> all;
  // Maps of 14 and more: tiles that lie in one row of the map, all of them under a tap outside.
  for (const int64_t channels : {1, 21, 39, 64}) {
    all.push_back({"3x3", three(2, 5, 14, channels, 33, 1, 1)});
    all.push_back({"3x3, tiles across rows", three(1, 6, 17, channels, 17, 1, 1)});
    all.push_back({"3x3, stride 2", three(1, 9, 30, channels, 31, 2, 1)});
  }
  for (const int64_t channels : {600, 1030})
    all.push_back({"deep", {.n = 1, .h = 4, .w = 5, .ic = channels, .oc = 33}});
  return all;
}

TEST_CASE("emulated: products of codes gathered in place are the bits of packed ones through both drivers") {
  for (const kernels::Table* table : {&kernels::emulated_avxvnni::kEmulated, &kernels::emulated_avx512vnni::kEmulated,
                                      &kernels::emulated_avx512bf16::kEmulated}) {
    const kernels::GemmInt& gemm = table->u8s8;
    REQUIRE((gemm.run_gathered != nullptr));
    for (const NamedShape& named : gathered_shapes()) {
      const ConvShape& s = named.shape;
      INFO(gemm.mr << " rows; " << named.name << "; " << s.ic);
      std::vector<int8_t> weights;
      for (const int v : random_codes(s.oc * s.k(), -128, 127, 5)) weights.push_back(static_cast<int8_t>(v));
      const std::vector<int> codes = random_codes(4099, 0, 255, 6);
      for (const uint8_t outside : {uint8_t{0}, uint8_t{128}}) {
        size_t i = 0;
        check_same_bits<int32_t>(gemm, s, outside, outside == 0, weights,
                                 [&] { return static_cast<uint8_t>(codes[i++ % codes.size()]); });
      }
    }
  }
}

TEST_CASE("emulated: products of bf16 gathered in place are the bits of packed ones through both drivers") {
  set_float_mode();
  const kernels::GemmFloat<bf16>& gemm = kernels::emulated_avx512bf16::kEmulated.bf16_gemm;
  for (const NamedShape& named : gathered_shapes()) {
    const ConvShape& s = named.shape;
    INFO(named.name << "; " << s.ic);
    std::vector<bf16> weights;
    for (const int v : random_codes(s.oc * s.k(), -1000, 1000, 7))
      weights.push_back(to_bf16(static_cast<float>(v) / 7));
    const std::vector<int> values = random_codes(4099, -1000, 1000, 8);
    size_t i = 0;
    check_same_bits<float>(gemm, s, bf16{}, true, weights,
                           [&] { return to_bf16(static_cast<float>(values[i++ % values.size()]) / 3); });
  }
}

}  // namespace
}  // namespace nibble::testing
