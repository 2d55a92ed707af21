#include "engine/rng.hpp"

#include "engine/math.hpp"

namespace nibble {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c;
}

uint32_t Rng::next_u32() {
  if (used_ == 4) {
    words_ = philox({block_++, b_, static_cast<uint32_t>(a_), static_cast<uint32_t>(a_ >> 32)}, key_);
    used_ = 0;
  }
  return words_[static_cast<size_t>(used_++)];
}

uint32_t Rng::below(uint32_t n) {
  const uint32_t reject_under = (0u - n) % n;  // Lemire's multiply-shift with exact rejection
  for (;;) {
    const uint64_t m = uint64_t{next_u32()} * n;
    if (static_cast<uint32_t>(m) >= reject_under) return static_cast<uint32_t>(m >> 32);
  }
}

float Rng::normal() {
  // 1 - u lies in (0, 1], so the logarithm is finite.
  const float u = 1.0f - uniform();
  const float v = uniform();
  return sqrt_exact(-2.0f * log_exact(u)) * cos2pi_exact(v);
}

}  // namespace nibble
