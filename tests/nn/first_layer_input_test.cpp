// From image bytes to the first layer: the network's own normalisation, as bf16 and as codes.
#include "nn/first_layer_input.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "nn/model.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

const PixelNorm kOther = {.mean = {0.5, 0.25, 0}, .std = {0.5, 0.125, 1}};

/// Every byte in every colour.
Tensor all_bytes(int64_t side) {
  const Tensor images(DType::u8, {1, side, side, 3});
  for (int64_t i = 0; i < images.size(); ++i) images.data<uint8_t>()[i] = static_cast<uint8_t>(i / 3);
  return images;
}

Network network_of(const char* precision, const PixelNorm& norm) {
  NetworkOptions o = testing::small_options(precision, 0.1);
  o.pixel_norm = norm;
  return build_resnet(o);
}

TEST_CASE("first layer input: bf16 values are those of the network's own mean and deviation") {
  for (const PixelNorm& norm : {PixelNorm(), kOther}) {
    const Model model = make_model(network_of("bf16", norm), {});
    const Tensor images = all_bytes(model.network.options.image_size);
    const Tensor input = first_layer_input(model, images);
    REQUIRE(input.dtype() == DType::bf16);
    const ConvShape& s = model.network.units.front().shape;
    for (int64_t y = 0; y < s.h; ++y)
      for (int64_t x = 0; x < s.w; ++x)
        for (int64_t c = 0; c < 3; ++c) {
          const int byte = images.data<uint8_t>()[(y * s.w + x) * 3 + c];
          const double value = (byte / 255.0 - norm.mean[static_cast<size_t>(c)]) / norm.std[static_cast<size_t>(c)];
          const int64_t at = ((y + s.pad_before) * s.padded_w() + x + s.pad_before) * 3 + c;
          // bf16 has 8 bits; the subtraction leaves 2^-24 of numbers up to 1, divided by the deviation.
          const double bound = std::fabs(value) / 256 + 1e-6 / norm.std[static_cast<size_t>(c)];
          REQUIRE(std::fabs(static_cast<double>(to_float(input.data<bf16>()[at])) - value) <= bound);
        }
  }
}

TEST_CASE("first layer input: the statistic of the image quantizer is of the same values") {
  const std::vector<float> usual = image_maxima(all_bytes(32), {}), other = image_maxima(all_bytes(32), kOther);
  CHECK(usual[0] == doctest::Approx((1 - 0.485) / 0.229));
  CHECK(other[0] == 1);
  CHECK(other[1] == 6);
  CHECK(other[2] == 1);
}

}  // namespace
}  // namespace nibble
