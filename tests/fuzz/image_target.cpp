// Image files: what both decoders make of any bytes.
#include <stdexcept>

#include "data/synth.hpp"
#include "data/turbo_jpeg.hpp"
#include "engine/error.hpp"
#include "tests/data/images.hpp"
#include "tests/fuzz/target.hpp"

namespace nibble::testing {
namespace {

bool check_image(std::span<const uint8_t> input) {
  bool decoded = false;
  for (const Decoder decoder : {Decoder::stb, Decoder::turbo}) {
    if (decoder == Decoder::turbo && !data_detail::have_turbo()) continue;
    try {
      const Image image = decode(input, decoder, "fuzzed");
      if (image.width < 1 || image.height < 1 || image.width > kMaxSide || image.height > kMaxSide ||
          int64_t{image.width} * image.height > kMaxPixels)
        throw std::logic_error("an image above the limits was decoded");
      volatile uint8_t last = image.pixels[image.bytes() - 1];  // every byte that is promised can be read
      (void)last;
      decoded = true;
    } catch (const DataError&) {
    }
  }
  return decoded;
}

std::vector<FuzzInput> image_seeds() {
  std::vector<FuzzInput> all = {tiny_jpeg(), formula_png(5, 3, false), formula_png(9, 11, true)};
  for (const int side : {1, 17, 40}) {
    const Image image = formula_image(side, side + 3);
    all.push_back(encode_jpeg({image.pixels.get(), image.bytes()}, image.width, image.height, 80));
  }
  return all;
}

}  // namespace

const FuzzTarget kImageTarget = {"image", check_image, image_seeds};

}  // namespace nibble::testing
