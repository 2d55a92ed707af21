// EXIF orientation: what segments say, however they lie, and how pixels are turned.
#include "data/orientation.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "data/augment.hpp"
#include "tests/data/images.hpp"

namespace nibble {
namespace {

/// The body of an APP1 segment with one entry of IFD 0 behind `others` of other tags.
std::vector<uint8_t> segment(int orientation, bool big, int others = 0, int type = 3, uint32_t count = 1,
                             uint32_t directory = 8) {
  std::string s = std::string("Exif\0\0", 6) + (big ? "MM" : "II");
  const auto put = [&](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) s += static_cast<char>(value >> 8 * (big ? bytes - 1 - i : i));
  };
  put(42, 2);
  put(directory, 4);
  put(static_cast<uint32_t>(others + 1), 2);
  for (int i = 0; i <= others; ++i) {
    put(i < others ? 0x0100u + static_cast<uint32_t>(i) : 0x0112u, 2);
    put(static_cast<uint32_t>(type), 2);
    put(count, 4);
    put(static_cast<uint32_t>(orientation), 2);
    put(0, 2);
  }
  return {s.begin(), s.end()};
}

TEST_CASE("orientation: the tag is found in either byte order, behind other tags") {
  for (const bool big : {false, true})
    for (int o = 1; o <= 8; ++o)
      for (const int others : {0, 1, 17}) CHECK(exif_orientation(segment(o, big, others)) == o);
}

TEST_CASE("orientation: what is no orientation, damaged or cut anywhere reads as stored") {
  for (const int o : {0, 9, 65535}) CHECK(exif_orientation(segment(o, false)) == 1);
  CHECK(exif_orientation(segment(6, false, 0, 4)) == 1);
  CHECK(exif_orientation(segment(6, false, 0, 3, 2)) == 1);
  for (const uint32_t far : {0u, 9u, 1000u, 0xffffffffu, 0xfffffffeu}) {
    CHECK(exif_orientation(segment(6, false, 0, 3, 1, far)) == 1);
    CHECK(exif_orientation(segment(6, true, 3, 3, 1, far)) == 1);
  }
  const std::vector<uint8_t> whole = segment(6, false, 2);
  REQUIRE(exif_orientation(whole) == 6);
  for (size_t n = 0; n + 2 < whole.size(); ++n)  // the last two bytes pad the value
    CHECK(exif_orientation(std::span(whole).first(n)) == 1);
  std::vector<uint8_t> other = whole;
  other[0] = 'e';
  CHECK(exif_orientation(other) == 1);
  other = whole;
  other[8] = 43;
  CHECK(exif_orientation(other) == 1);
}

/// Red values alone, row by row; rows end in '/'.
std::string letters(const Image& image) {
  std::string text;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const uint8_t* p = image.pixels.get() + 3 * (y * image.width + x);
      text += static_cast<char>(p[0]);
      CHECK(p[1] == p[0] + 1);
      CHECK(p[2] == p[0] + 2);
    }
    text += '/';
  }
  return text;
}

TEST_CASE("orientation: each of the eight stands upright again") {
  // What stands upright as "abc/def/", stored in each of the ways.
  const char* stored[] = {"abc/def/",  "cba/fed/",  "fed/cba/",  "def/abc/",
                          "ad/be/cf/", "cf/be/ad/", "fc/eb/da/", "da/eb/fc/"};
  for (int o = 1; o <= 8; ++o) {
    const std::string rows = stored[o - 1];
    Image image;
    image.width = static_cast<int>(rows.find('/'));
    image.height = 6 / image.width;
    image.orientation = o;
    const std::shared_ptr<uint8_t[]> pixels(new uint8_t[18]);
    int at = 0;
    for (const char c : rows)
      if (c != '/')
        for (int k = 0; k < 3; ++k) pixels[static_cast<std::ptrdiff_t>(at++)] = static_cast<uint8_t>(c + k);
    image.pixels = pixels;
    CAPTURE(o);
    CHECK(letters(upright(image)) == "abc/def/");
    CHECK(upright(image).orientation == 1);
    CHECK(letters(image) == rows);
  }
}

TEST_CASE("orientation: a transform that follows it sees the turned image, others see it as stored") {
  Image image = testing::formula_image(61, 97);
  std::vector<uint8_t> plain(3 * 32 * 32), turned = plain, as_stored = plain;
  transform_eval(image, {.size = 32}, plain.data());
  image.orientation = 6;
  transform_eval(image, {.size = 32}, as_stored.data());
  transform_eval(image, {.size = 32, .upright = true}, turned.data());
  CHECK(as_stored == plain);
  std::vector<uint8_t> by_hand = plain;
  const Image other = upright(image);
  transform_eval(other, {.size = 32}, by_hand.data());
  CHECK(turned == by_hand);
  CHECK(turned != plain);
  augment_train(other, {.size = 32}, {.seed = 1}, by_hand.data());
  augment_train(image, {.size = 32, .upright = true}, {.seed = 1}, turned.data());
  CHECK(turned == by_hand);
}

}  // namespace
}  // namespace nibble
