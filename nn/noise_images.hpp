// Images of noise, for speeds and checks that need no real ones.
#pragma once
#include "engine/rng.hpp"
#include "engine/tensor.hpp"

namespace nibble {

/// u8 [n, side, side, 3], the same bytes in every call and on every machine.
inline Tensor noise_images(int64_t n, int64_t side) {
  const Tensor images(DType::u8, {n, side, side, 3});
  Rng rng(0, rng_purpose::kTest);
  for (int64_t i = 0; i < images.size(); ++i) images.data<uint8_t>()[i] = static_cast<uint8_t>(rng.next_u32() >> 24);
  return images;
}

}  // namespace nibble
