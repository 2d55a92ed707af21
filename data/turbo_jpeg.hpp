// libjpeg-turbo behind the same narrow door as stb_image; compiled only where NIBBLE_HAVE_TURBOJPEG is defined.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "data/image_stream.hpp"

namespace nibble::data_detail {

struct TurboImage {
  std::shared_ptr<const uint8_t[]> rgb;  // null: failed, or this build has no libjpeg-turbo
  std::string error;                     // the reason, or a warning when rgb is set
};

bool have_turbo();
/// Decodes a stream from check_jpeg at full size, with the accurate integer transform and smooth chroma upsampling.
TurboImage turbo_decode(const JpegStream& stream);

}  // namespace nibble::data_detail
