// Augmentation: bounds, distribution and reproducibility of crops; the evaluation transform against torchvision's.
#include "data/augment.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "engine/error.hpp"
#include "tests/data/images.hpp"

namespace nibble {
namespace {

using testing::formula_image;
using testing::hash_of;

TEST_CASE("crops lie within the image and keep area and aspect ratio within their bounds") {
  const TrainTransform transform{.size = 32, .min_crop = 0.25f, .flip = true};
  double area = 0.0;
  int mirrored = 0;
  constexpr int kSamples = 4000;
  for (int i = 0; i < kSamples; ++i) {
    const TrainCrop c = train_crop(400, 300, transform, {.seed = 3, .epoch = 1, .index = i});
    REQUIRE(c.box.x >= 0);
    REQUIRE(c.box.y >= 0);
    REQUIRE(c.box.x + c.box.width <= 400);
    REQUIRE(c.box.y + c.box.height <= 300);
    const double share = c.box.width * c.box.height / 120000.0;
    const double ratio = static_cast<double>(c.box.width) / c.box.height;
    // Rounding to whole pixels moves a side of at least 150 by half a pixel.
    REQUIRE(share > 0.25 * 0.99);
    REQUIRE(ratio > 0.75 * 0.99);
    REQUIRE(ratio < 4.0 / 3.0 * 1.01);
    area += share;
    mirrored += c.mirrored ? 1 : 0;
  }
  // 40,000 crops by a Python script of the same rule kept 0.5215 on average; one share varies by 0.19, so five standard
  // errors of this mean are 0.015.
  CHECK(area / kSamples > 0.5065);
  CHECK(area / kSamples < 0.5365);
  CHECK(mirrored > kSamples / 2 - 160);  // five standard deviations of sqrt(4000) / 2
  CHECK(mirrored < kSamples / 2 + 160);
}

TEST_CASE("a sample depends on seed, epoch and index and on nothing else") {
  const TrainTransform t{.size = 32, .min_crop = 0.08f, .flip = true};
  const TrainCrop a = train_crop(300, 200, t, {.seed = 1, .epoch = 2, .index = 3});
  const TrainCrop again = train_crop(300, 200, t, {.seed = 1, .epoch = 2, .index = 3});
  CHECK(a.box == again.box);
  CHECK(a.mirrored == again.mirrored);
  CHECK_FALSE(a.box == train_crop(300, 200, t, {.seed = 2, .epoch = 2, .index = 3}).box);
  CHECK_FALSE(a.box == train_crop(300, 200, t, {.seed = 1, .epoch = 3, .index = 3}).box);
  CHECK_FALSE(a.box == train_crop(300, 200, t, {.seed = 1, .epoch = 2, .index = 4}).box);
}

TEST_CASE("images too narrow for any crop get the largest central one with an allowed ratio") {
  const TrainTransform t{.size = 8, .min_crop = 0.9f, .flip = false};
  CHECK(train_crop(1000, 10, t, {}).box == Box{493, 0, 13, 10});
  CHECK(train_crop(10, 1000, t, {}).box == Box{0, 493, 10, 13});
  CHECK(train_crop(1, 1, t, {}).box == Box{0, 0, 1, 1});
}

TEST_CASE("a mirrored sample is the plain one with its rows reversed") {
  const Image image = formula_image(60, 50);
  SampleKey key{.seed = 5, .epoch = 0, .index = 0};
  const TrainTransform with{.size = 15, .min_crop = 0.5f, .flip = true};
  const TrainTransform without{.size = 15, .min_crop = 0.5f, .flip = false};
  while (!train_crop(60, 50, with, key).mirrored) ++key.index;
  std::vector<uint8_t> a(15 * 15 * 3), b(15 * 15 * 3);
  augment_train(image, with, key, a.data());
  augment_train(image, without, key, b.data());
  for (size_t y = 0; y < 15; ++y)
    for (size_t x = 0; x < 15; ++x)
      for (size_t c = 0; c < 3; ++c) REQUIRE(a[(y * 15 + x) * 3 + c] == b[(y * 15 + 14 - x) * 3 + c]);
}

TEST_CASE("a share of area outside (0, 1] is a usage error") {
  CHECK_THROWS_AS(train_crop(9, 9, {.size = 8, .min_crop = 0.0f, .flip = true}, {}), UsageError);
  CHECK_THROWS_AS(train_crop(9, 9, {.size = 8, .min_crop = 1.5f, .flip = true}, {}), UsageError);
}

TEST_CASE("evaluation equals torchvision's Resize and CenterCrop on PIL images") {
  struct Case {
    int width, height, size;
    uint64_t hash;
  };
  const Case cases[] = {
      {500, 375, 224, 0x8b84b1d24cd6303cull}, {375, 500, 224, 0xd18484e5a4c41454ull},
      {224, 224, 128, 0x548501f9286dc8e3ull}, {64, 64, 64, 0x2303fee9c82d4ff2ull},
      {97, 61, 32, 0x7471607b0bf8f471ull},    {61, 98, 33, 0x5f46778a504caa5dull},
  };
  for (const Case& c : cases) {
    std::vector<uint8_t> out(static_cast<size_t>(3 * c.size * c.size));
    transform_eval(formula_image(c.width, c.height), {.size = c.size}, out.data());
    INFO(c.width << "x" << c.height << " at " << c.size);
    CHECK(hash_of(out) == c.hash);
  }
}

TEST_CASE("an odd remainder of the evaluation crop is halved to the even side, up as well as down") {
  CHECK(eval_resize(39, 37, {.size = 32}).window ==
        Box{4, 2, 32, 32});  // 39 - 32: 3.5 becomes 4; 37 - 32: 2.5 becomes 2
  CHECK(eval_resize(37, 39, {.size = 32}).window == Box{2, 4, 32, 32});
}

TEST_CASE("the crop's share of the short side is as asked for: torchvision's Resize(232), CenterCrop(224)") {
  const EvalTransform second_weights{.size = 224, .crop_share = 0.9655};
  const ResizeArgs r = eval_resize(500, 375, second_weights);
  CHECK(r.height == 232);
  CHECK(r.width == 309);                    // 232 * 500 / 375, cut
  CHECK(r.window == Box{42, 4, 224, 224});  // 85 / 2 to even
  CHECK(eval_resize(375, 500, second_weights).width == 232);
  const ResizeArgs whole = eval_resize(500, 375, {.size = 224, .crop_share = 1});
  CHECK(whole.height == 224);
  CHECK(whole.window == Box{37, 0, 224, 224});
  for (const double wrong : {0.0, -0.5, 1.001, std::nan("")})
    CHECK_THROWS_AS(eval_resize(500, 375, {.size = 224, .crop_share = wrong}), ShapeError);
  CHECK_THROWS_AS(eval_resize(2, 1, {.size = 224, .crop_share = 1e-300}), ShapeError);
}

TEST_CASE("a frame that someone else owns is read where it lies") {
  const Image owned = formula_image(97, 61);
  const std::vector<uint8_t> frame(owned.pixels.get(), owned.pixels.get() + owned.bytes());
  const Image borrowed{.width = 97, .height = 61, .pixels = {std::shared_ptr<const uint8_t[]>(), frame.data()}};
  CHECK(borrowed.pixels.get() == frame.data());
  CHECK(borrowed.pixels.use_count() == 0);
  std::vector<uint8_t> expected(3 * 32 * 32), got(3 * 32 * 32);
  transform_eval(owned, {.size = 32}, expected.data());
  transform_eval(borrowed, {.size = 32}, got.data());
  CHECK(got == expected);
}

TEST_CASE("an image that holds nothing is an error, in evaluation and in training") {
  uint8_t out[3 * 8 * 8];
  CHECK_THROWS_AS(transform_eval(Image{}, {.size = 8}, out), ShapeError);
  CHECK_THROWS_AS(augment_train(Image{}, {.size = 8}, {}, out), ShapeError);
  CHECK_THROWS_AS(eval_resize(0, 5, {.size = 8}), ShapeError);
  CHECK_THROWS_AS(eval_resize(5, 0, {.size = 8}), ShapeError);
  CHECK_THROWS_AS(eval_resize(5, 5, {.size = 0}), ShapeError);
  CHECK_THROWS_AS(eval_resize(5'000'000, 1, {.size = 224}), ShapeError);  // 1,280,000,000 pixels
  CHECK(eval_resize(4'000'000, 1, {.size = 224}).width == 1'024'000'000);
}

TEST_CASE("evaluation of extreme shapes stays cheap and within bounds") {
  const ResizeArgs wide = eval_resize(16384, 1, {.size = 224});
  CHECK(wide.height == 256);
  CHECK(wide.width == 16384 * 256);
  CHECK(wide.window == Box{(16384 * 256 - 224) / 2, 16, 224, 224});
  std::vector<uint8_t> out(224 * 224 * 3);
  transform_eval(formula_image(3000, 1), {.size = 224}, out.data());
  transform_eval(formula_image(1, 3000), {.size = 224}, out.data());
  CHECK(out[0] == out[3]);  // one column wide: all columns are equal
}

TEST_CASE("training samples are the same bytes on every machine") {
  std::vector<uint8_t> out(48 * 48 * 3);
  augment_train(formula_image(200, 150), {.size = 48, .min_crop = 0.08f, .flip = true},
                {.seed = 0, .epoch = 7, .index = 11}, out.data());
  CHECK(hash_of(out) == 275111626672110355ull);
}

}  // namespace
}  // namespace nibble
