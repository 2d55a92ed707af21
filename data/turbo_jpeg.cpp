#include "data/turbo_jpeg.hpp"

#if defined(NIBBLE_HAVE_TURBOJPEG)
#include <turbojpeg.h>

#include <cstdlib>
#include <new>
#endif

namespace nibble::data_detail {

#if defined(NIBBLE_HAVE_TURBOJPEG)

namespace {

struct Destroy {
  void operator()(void* handle) const { tjDestroy(handle); }
};

// One byte times another as fractions of 255, rounded: exact for all 65536 pairs.
uint8_t multiply_255(int a, int b) {
  const int t = a * b + 128;
  return static_cast<uint8_t>((t + (t >> 8)) >> 8);
}

// The library calls an error a warning if any warning came before it, and then leaves the rest of the result
// unwritten. So the last row starts as this pattern; if it is still there after a "warning", that was an error.
uint8_t mark(size_t i) {
  return static_cast<uint8_t>(0xA7 + 59 * i);
}

// Ink to light. Adobe's files store 255 - ink, so that their product with black is the light already.
std::shared_ptr<uint8_t[]> cmyk_to_rgb(const uint8_t* cmyk, size_t pixels, bool inverted) {
  std::shared_ptr<uint8_t[]> rgb(new uint8_t[3 * pixels]);
  const int flip = inverted ? 0 : 255;
  for (size_t i = 0; i < pixels; ++i) {
    const int k = cmyk[4 * i + 3] ^ flip;
    for (size_t c = 0; c < 3; ++c) rgb[3 * i + c] = multiply_255(cmyk[4 * i + c] ^ flip, k);
  }
  return rgb;
}

}  // namespace

bool have_turbo() {
  return true;
}

TurboImage turbo_decode(const JpegStream& s) {
  TurboImage image;
  const std::unique_ptr<void, Destroy> handle(tjInitDecompress());
  if (!handle) throw std::bad_alloc();  // the only reason it has, and not one to call the image damaged
  const bool cmyk = s.components == 4;
  const size_t pixels = static_cast<size_t>(s.width) * static_cast<size_t>(s.height);
  const size_t row_bytes = static_cast<size_t>(s.width) * (cmyk ? 4 : 3);
  std::shared_ptr<uint8_t[]> out(new uint8_t[row_bytes * static_cast<size_t>(s.height)]());
  const std::span<uint8_t> last_row(out.get() + row_bytes * static_cast<size_t>(s.height - 1), row_bytes);
  for (size_t i = 0; i < row_bytes; ++i) last_row[i] = mark(i);
  const int status =
      tjDecompress2(handle.get(), s.bytes.data(), static_cast<unsigned long>(s.bytes.size()), out.get(), s.width, 0,
                    s.height, cmyk ? TJPF_CMYK : TJPF_RGB, TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS);
  if (status != 0) {
    image.error = tjGetErrorStr2(handle.get());
    if (image.error.find("Insufficient memory") != std::string::npos) throw std::bad_alloc();
    size_t untouched = 0;
    while (untouched < row_bytes && last_row[untouched] == mark(untouched)) ++untouched;
    if (tjGetErrorCode(handle.get()) == TJERR_FATAL || untouched == row_bytes) return image;
  }
  image.rgb = cmyk ? cmyk_to_rgb(out.get(), pixels, s.has_adobe) : std::move(out);
  return image;
}

#else

bool have_turbo() {
  return false;
}

TurboImage turbo_decode(const JpegStream&) {
  return {.rgb = nullptr, .error = "this build has no libjpeg-turbo"};
}

#endif

}  // namespace nibble::data_detail
