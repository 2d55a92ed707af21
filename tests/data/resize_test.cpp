// Resizing against results of Pillow 10.4 (Image.crop, Image.resize with BILINEAR), stored as hashes.
#include "data/resize.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "engine/error.hpp"
#include "tests/data/images.hpp"

namespace nibble {
namespace {

using testing::formula_image;
using testing::hash_of;

std::vector<uint8_t> resized(const Image& image, const ResizeArgs& args) {
  std::vector<uint8_t> out(size_t{3} * static_cast<size_t>(args.window.width) *
                           static_cast<size_t>(args.window.height));
  resize_bilinear(image, args, out.data());
  return out;
}

TEST_CASE("resize of a 5x4 image to 3x2 gives Pillow's bytes") {
  const std::vector<uint8_t> expected = {55,  84,  113, 79,  108, 129, 111, 119, 132,
                                         175, 157, 124, 125, 129, 134, 136, 102, 84};
  const ResizeArgs args{.crop = {0, 0, 5, 4}, .width = 3, .height = 2, .window = {0, 0, 3, 2}};
  CHECK(resized(formula_image(5, 4), args) == expected);
}

TEST_CASE("resize equals Pillow when shrinking, enlarging, cropping and at extreme shapes") {
  struct Case {
    int width, height;
    Box crop;
    int out_width, out_height;
    uint64_t hash;
  };
  const Case cases[] = {
      {5, 4, {0, 0, 5, 4}, 3, 2, 0x9f37ba7a66a95e69ull},
      {5, 4, {0, 0, 5, 4}, 8, 9, 0xde81ba6577bc9bbfull},
      {64, 48, {0, 0, 64, 48}, 32, 32, 0x37c8f00d38cdaba4ull},
      {224, 224, {13, 27, 150, 101}, 128, 128, 0x50df93064b0a4b9dull},
      {100, 75, {50, 0, 50, 75}, 64, 64, 0xd6dcc2ba03d85587ull},
      {17, 13, {0, 0, 17, 13}, 224, 224, 0x7df59761afd72c5bull},
      {1, 300, {0, 0, 1, 300}, 32, 32, 0xf1380da0a5f71d85ull},
      {300, 2, {1, 0, 299, 1}, 40, 40, 0x1744b2735483dd25ull},
      {500, 375, {0, 0, 500, 375}, 341, 256, 0xa3dc306e4c831e95ull},
      {90, 90, {3, 5, 80, 80}, 80, 80, 0x05182ddca7feea8dull},
      {333, 257, {0, 0, 333, 257}, 7, 5, 0x49655f16edaf5f6eull},
      {31, 37, {0, 0, 31, 37}, 31, 16, 0x6e79435a6de0bb70ull},
      {1, 1, {0, 0, 1, 1}, 8, 8, 0x258c50faccea85e5ull},
  };
  for (const Case& c : cases) {
    INFO(c.width << "x" << c.height << " to " << c.out_width << "x" << c.out_height);
    const ResizeArgs args{
        .crop = c.crop, .width = c.out_width, .height = c.out_height, .window = {0, 0, c.out_width, c.out_height}};
    CHECK(hash_of(resized(formula_image(c.width, c.height), args)) == c.hash);
  }
}

TEST_CASE("a window holds the same bytes as the whole result") {
  const Image image = formula_image(61, 47);
  const Box crop{5, 3, 50, 40};
  const std::vector<uint8_t> whole =
      resized(image, {.crop = crop, .width = 33, .height = 70, .window = {0, 0, 33, 70}});
  const Box window{9, 21, 20, 40};
  const std::vector<uint8_t> part = resized(image, {.crop = crop, .width = 33, .height = 70, .window = window});
  for (int y = 0; y < window.height; ++y)
    for (int i = 0; i < 3 * window.width; ++i)
      REQUIRE(part[static_cast<size_t>(y * 3 * window.width + i)] ==
              whole[static_cast<size_t>((window.y + y) * 3 * 33 + 3 * window.x + i)]);
}

TEST_CASE("resizing to the same size copies") {
  const Image image = formula_image(40, 30);
  const std::vector<uint8_t> out =
      resized(image, {.crop = {0, 0, 40, 30}, .width = 40, .height = 30, .window = {0, 0, 40, 30}});
  CHECK(std::equal(out.begin(), out.end(), image.pixels.get()));
}

TEST_CASE("an image without pixels is refused, whatever size it says") {
  uint8_t out[12];
  const Box box{0, 0, 2, 2};
  Image image;
  image.width = image.height = 2;
  CHECK_THROWS_AS(resize_bilinear(image, {.crop = box, .width = 2, .height = 2, .window = box}, out), ShapeError);
}

TEST_CASE("boxes outside their frame are refused") {
  const Image image = formula_image(10, 10);
  std::vector<uint8_t> out(300);
  const Box whole{0, 0, 10, 10};
  for (const Box& bad :
       {Box{-1, 0, 5, 5}, Box{0, 0, 11, 5}, Box{8, 0, 3, 5}, Box{0, 0, 0, 5}, Box{2147483647, 0, 9, 1}}) {
    CHECK_THROWS_AS(resize_bilinear(image, {.crop = bad, .width = 10, .height = 10, .window = whole}, out.data()),
                    ShapeError);
    CHECK_THROWS_AS(resize_bilinear(image, {.crop = whole, .width = 10, .height = 10, .window = bad}, out.data()),
                    ShapeError);
  }
}

}  // namespace
}  // namespace nibble
